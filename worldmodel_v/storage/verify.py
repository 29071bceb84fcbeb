"""Checking every byte of a dataset against its index, and every row against the contract."""

from collections.abc import Sequence
from pathlib import Path

from worldmodel_v.errors import NotReadable, ReadFailed, RemoteFailed, ShardDamaged, WorldModelError
from worldmodel_v.notebook import shown
from worldmodel_v.progress import Progress
from worldmodel_v.spec import Spec
from worldmodel_v.storage import files
from worldmodel_v.storage.dataset import Dataset, open_dataset
from worldmodel_v.storage.index import INDEX_NAME, SHARD_FOLDER, IndexEntry, read_index
from worldmodel_v.storage.lock import is_at_work, read_run
from worldmodel_v.storage.reading import readable
from worldmodel_v.storage.store import Location, Place
from worldmodel_v.words import are, counted


def verify(dataset: Dataset[Spec] | Location, progress: Progress | None = None) -> list[str]:
    """What is wrong with a dataset, one line for each finding; an empty list if nothing is wrong. `dataset` may be its path.

    Compares size and SHA-256 of every shard with the index, decodes every chunk, checks every episode's rows (shapes,
    dtypes, endings, where NaN is allowed). Names episodes that are missing between others and files outside the index, unless a
    process is writing there: it has not committed them yet.
    Raises NotReadable, ReadFailed, RemoteFailed, and of a path what `open_dataset` raises. A dataset behind a URL is not
    searched for files outside the index.
    """
    if not isinstance(dataset, Dataset):
        dataset = open_dataset(dataset)
    task = shown(progress).task(f"verify {dataset.path.name}", len(dataset.entries), "shards")
    findings: list[str] = []
    for entry in dataset.entries:
        findings += _verify_shard(dataset, entry)
        task.advance()
    task.close()
    return findings + _unfinished(dataset)


def _verify_shard(dataset: Dataset[Spec], entry: IndexEntry) -> list[str]:
    path = dataset.shard_path(entry)
    try:
        with dataset.open_verified(entry) as shard:
            shard.check()
    except ShardDamaged as error:
        return [str(error)]
    except (NotReadable, ReadFailed, RemoteFailed):
        raise
    except WorldModelError as error:
        return [f"{path}: {error}"]
    return []


@readable()
def _unfinished(dataset: Dataset[Spec]) -> list[str]:
    """What a run did not finish. While one is at work, nothing: it adopts or removes each file, and commits in any order.

    The folder is listed before the lock is looked at, and that before the index is read anew: a run that has ended meanwhile
    has entered each of these files.
    """
    path = dataset.root
    if not isinstance(path, Path):
        return _missing_episodes(path, dataset.entries)
    folder = path / SHARD_FOLDER
    found = [folder / name for name in files.names(folder, path) if name.endswith(".h5")]
    if (run := read_run(path)) is not None and is_at_work(path, run):
        return []
    entries = read_index(path / INDEX_NAME)
    indexed = {path / entry.name for entry in entries}
    return _missing_episodes(path, entries) + [
        f"{file}: is not in the index, so its episodes do not exist; run the same command again to adopt or remove it"
        for file in found
        if file not in indexed
    ]


def _missing_episodes(path: Place, entries: Sequence[IndexEntry]) -> list[str]:
    num_absent, first_absent, end = 0, None, 0
    for entry in sorted(entries, key=lambda entry: entry.first_episode):
        if entry.first_episode > end:
            num_absent += entry.first_episode - end
            first_absent = end if first_absent is None else first_absent
        end = entry.end_episode
    if first_absent is None:
        return []
    return [
        f"{path}: {counted(num_absent, 'episode')} between the committed ones {are(num_absent)} missing, the first is "
        f"{first_absent}; "
        "run the same command again to complete it"
    ]
