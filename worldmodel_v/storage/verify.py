"""Checking every byte of a dataset against its index, and every row against the contract."""

from pathlib import Path

from worldmodel_v.errors import NotReadable, RemoteFailed, ShardDamaged, WorldModelError
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.spec import Spec
from worldmodel_v.storage import files
from worldmodel_v.storage.dataset import Dataset
from worldmodel_v.storage.index import SHARD_FOLDER, IndexEntry


def verify(dataset: Dataset[Spec], progress: Progress | None = None) -> list[str]:
    """What is wrong with a dataset, one line for each finding; an empty list if nothing is wrong.

    Compares size and SHA-256 of every shard with the index, decodes every chunk, checks every episode's rows (shapes,
    dtypes, endings, where NaN is allowed), and names episodes that are missing between others and files outside the index.
    Raises NotReadable, RemoteFailed. A dataset behind a URL is not searched for files outside the index.
    """
    task = (progress or Silent()).task(f"verify {dataset.path.name}", len(dataset.entries), "shards")
    findings: list[str] = []
    for entry in dataset.entries:
        findings += _verify_shard(dataset, entry)
        task.advance()
    task.close()
    return findings + _missing_episodes(dataset) + _unindexed_files(dataset)


def _verify_shard(dataset: Dataset[Spec], entry: IndexEntry) -> list[str]:
    path = dataset.shard_path(entry)
    try:
        with dataset.open_verified(entry) as shard:
            shard.check()
    except ShardDamaged as error:
        return [str(error)]
    except (NotReadable, RemoteFailed):
        raise
    except WorldModelError as error:
        return [f"{path}: {error}"]
    return []


def _missing_episodes(dataset: Dataset[Spec]) -> list[str]:
    num_absent, first_absent, end = 0, None, 0
    for entry in sorted(dataset.entries, key=lambda entry: entry.first_episode):
        if entry.first_episode > end:
            num_absent += entry.first_episode - end
            first_absent = end if first_absent is None else first_absent
        end = entry.end_episode
    if first_absent is None:
        return []
    return [
        f"{dataset.path}: {num_absent} episodes between the committed ones are missing, the first is {first_absent}; "
        "run the same command again to complete it"
    ]


def _unindexed_files(dataset: Dataset[Spec]) -> list[str]:
    if not isinstance(dataset.path, Path):
        return []
    folder = dataset.path / SHARD_FOLDER
    indexed = {dataset.shard_path(entry) for entry in dataset.entries}
    found = [folder / name for name in files.names(folder, dataset.path) if name.endswith(".h5")]
    return [
        f"{file}: is not in the index, so its episodes do not exist; run the same command again to adopt or remove it"
        for file in found
        if file not in indexed
    ]
