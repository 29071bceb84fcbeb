"""The single committer of a dataset: it begins or continues the dataset, and commits shards.

One process writes at a time: it holds a lock on the directory, which the kernel drops when the process dies. A commit is:
bytes under a temporary name, synced, linked to the final name, folder synced, index line appended and synced. A kill between
the last two leaves a finished shard without a line. The next run verifies the shard and adopts it, or removes it.

Continuing checks the size of every committed shard, and opens only the last few, which a crash may have damaged. This takes
seconds; opening 100,000 shards would take minutes. Reading a shard checks what is read, and `verify` checks everything.
"""

import bisect
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NoReturn, Self

from worldmodel_v.errors import OutputNotUsable, ShardDamaged
from worldmodel_v.spec import Spec, differences, schema_differences
from worldmodel_v.steps import Step, reached
from worldmodel_v.storage import files
from worldmodel_v.storage.checksum import sha256_of_file
from worldmodel_v.storage.dataset import SPEC_NAME, Dataset, S, read_spec
from worldmodel_v.storage.index import INDEX_NAME, SHARD_FOLDER, IndexEntry, complete_lines, read_index, shard_name
from worldmodel_v.storage.lock import LOCK_NAME, lock_directory
from worldmodel_v.storage.publish import (
    append_line,
    is_temporary,
    named_failure,
    publish,
    publish_new,
    remove,
    remove_temporaries,
)
from worldmodel_v.storage.reading import readable
from worldmodel_v.storage.set_aside import SetAside, read_set_aside, write_set_aside
from worldmodel_v.storage.shard_reader import Shard

_SHARD_FILE = re.compile(r"([0-9]{6}|[1-9][0-9]{6,})\.h5")

OF_CODE = ("env_source", "policy_source", "policy_weights", "autoencoder_sha256")
"""Settings that say which code, or which weights of a policy, made the episodes."""

SHARDS_OPENED = 64
"""How many committed shards are opened when a dataset is continued: 2 milliseconds each."""


class DatasetWriter(Generic[S]):
    """A dataset that is open for commits; use it as a context manager. It cannot be pickled: only the driver commits."""

    def __init__(self, path: Path, spec: S) -> None:
        """Begin a dataset at `path`, or continue the one that is there.

        Raises OutputNotUsable if the directory holds something else, or (naming the fields) a dataset that was made with
        another spec, DatasetBusy if another process is writing, ShardDamaged if a committed shard is gone.
        """
        self.path = path
        self.spec = spec
        recorded_spec(path, spec)
        self._lock = lock_directory(path)
        self.entries: list[IndexEntry] = []
        """What is committed, by shard number."""
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    def announce(self, stage: str, goal: int) -> None:
        """Tell readers of the lock file (`wm-inspect`) that `stage` works towards `goal` episodes."""
        self._lock.announce(stage=stage, goal=goal, done=sum(entry.num_episodes for entry in self.entries))

    def commit(self, number: int, image: bytes) -> IndexEntry:
        """Commit shard `number`: its file, then its index line.

        Raises WriteFailed, or DatasetBusy if the directory is another run's by now; then no reader sees the shard.
        """
        self._lock.require_own()
        path = self.path / shard_name(number)
        publish_new(path, image, self.path)
        return self._adopt(number)

    def set_aside(self, episodes: Sequence[SetAside] = ()) -> None:
        """Note the episodes that were set aside. This replaces earlier notes on their shards and on what is committed by now.

        Raises WriteFailed, or DatasetBusy if the directory is another run's by now.
        """
        self._lock.require_own()
        shards, noted = {episode.shard for episode in episodes}, self.dataset().set_aside()
        content = [*(episode for episode in noted if episode.shard not in shards), *episodes]
        if content != read_set_aside(self.path):
            write_set_aside(self.path, content)

    def dataset(self) -> Dataset[S]:
        """What is committed now, for reading."""
        return Dataset(self.path, self.spec, tuple(self.entries))

    def close(self) -> None:
        """Release the dataset's lock; may be called again."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DatasetWriter cannot be pickled; workers return the bytes of a shard and the driver commits them")

    @readable()
    def _recover(self) -> None:
        """Restore the invariant: settings written, no temporary files, no torn line, no shard without a line."""
        with named_failure(self.path / SHARD_FOLDER):
            files.make_folder(self.path / SHARD_FOLDER)
        for folder in (self.path, self.path / SHARD_FOLDER):
            remove_temporaries(folder, self.path)
        recorded = recorded_spec(self.path, self.spec)  # again: before the lock, another process may have begun it
        if recorded is None or recorded.hash != self.spec.hash:
            write_set_aside(self.path, [])
            publish(self.path / SPEC_NAME, (json.dumps(self.spec.to_json(), indent=2) + "\n").encode())
        index = self.path / INDEX_NAME
        with named_failure(index), os.fdopen(files.open_file(index, os.O_RDWR | os.O_CREAT), "r+b", buffering=0) as file:
            with readable(index):
                content = file.read()
            file.truncate(len(complete_lines(content)))
        reached(Step.INDEX_TRIMMED)
        self.entries = read_index(index)
        sizes = files.sizes(self.path / SHARD_FOLDER, _SHARD_FILE, self.path)
        dataset = self.dataset()
        suspect = [entry for entry in self.entries if sizes.pop(Path(entry.name).name, None) != entry.bytes]
        for entry in suspect + self.entries[-SHARDS_OPENED:]:
            dataset.open_shard(entry).close()
        for name in sorted(sizes):
            self._adopt_or_remove(int(Path(name).stem))

    def _adopt_or_remove(self, number: int) -> None:
        path = self.path / shard_name(number)
        try:
            with Shard.open(path, self.spec.schema, inside=self.path) as shard:
                belongs = shard.spec_hash == self.spec.hash and not self._taken(shard)
                for column in shard.columns:
                    shard.rows(column)
        except ShardDamaged:
            belongs = False
        if belongs:
            self._adopt(number)
        else:
            remove(path, self.path)
            reached(Step.SHARD_REMOVED)

    def _taken(self, shard: Shard) -> bool:
        first, end = int(shard.episode_ids[0]), int(shard.episode_ids[-1]) + 1
        return any(first < entry.end_episode and entry.first_episode < end for entry in self.entries)

    def _adopt(self, number: int) -> IndexEntry:
        """Write the index line of a shard that is in place."""
        path = self.path / shard_name(number)
        with Shard.open(path, self.spec.schema, inside=self.path) as shard:
            entry = IndexEntry(
                shard=number,
                first_episode=int(shard.episode_ids[0]),
                num_episodes=shard.num_episodes,
                num_rows=shard.num_rows,
                bytes=files.lstat(path, self.path).st_size,
                sha256=sha256_of_file(path, self.path),
                source_sha256=shard.attributes.get("source_sha256"),
            )
        self._lock.require_own()
        append_line(self.path / INDEX_NAME, entry.to_line())
        bisect.insort(self.entries, entry, key=lambda entry: entry.shard)
        return entry


def recorded_spec(path: Path, spec: Spec) -> Spec | None:
    """The spec that a dataset at `path` was begun with; None if there is none yet. Writes nothing.

    Raises OutputNotUsable if the directory holds something else, or shards of another spec.
    """
    require_dataset_or_empty(path)
    if not path.exists() or not files.exists(path / SPEC_NAME):
        return None
    recorded: Spec = read_spec(path)
    if recorded.format != spec.format:
        raise OutputNotUsable(
            f"holds a dataset of {recorded.format}, this command writes {spec.format}",
            where=path,
            remedy="give another directory",
        )
    if recorded.hash != spec.hash:
        _refuse_other_settings(path, recorded, spec)
    return recorded


def require_dataset_or_empty(path: Path) -> None:
    """Raise OutputNotUsable if `path` holds anything but a dataset, or what a killed run left of one."""
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputNotUsable("is a file", where=path, remedy="give a directory that is empty, new, or a dataset to continue")
    if not files.exists(path / SPEC_NAME):
        foreign = sorted(item.name for item in path.iterdir() if not _is_ours(item))
        if foreign:
            raise OutputNotUsable(
                f"holds {foreign[0]!r}{' and more' if len(foreign) > 1 else ''} but no {SPEC_NAME}",
                where=path,
                remedy="give a directory that is empty, new, or a dataset to continue",
            )


def _refuse_other_settings(path: Path, recorded: Spec, spec: Spec) -> None:
    """Raise OutputNotUsable, unless nothing was ever committed under the recorded settings."""
    if not read_index(path / INDEX_NAME) and not files.names(path / SHARD_FOLDER, path):
        return
    there, asked = recorded.all_settings(), spec.all_settings()
    if {name for name in asked if there[name] != asked[name]} == {"vae_sha256"}:
        raise OutputNotUsable(
            f"holds latents of another VAE ({there['vae_sha256'][:12]}…, now {asked['vae_sha256'][:12]}…)",
            where=path,
            remedy="remove it to encode anew, or give another directory",
        )
    chosen_there, chosen = there.pop("selection", {}), asked.pop("selection", {})
    if bool(chosen_there) != bool(chosen):
        found, remedy = ("episodes that were selected from other datasets", "collect or encode elsewhere, and select from both")
        if chosen:
            found, remedy = "a dataset that was not selected from others", "give another directory"
        raise OutputNotUsable(f"holds {found}, and this command does not continue it", where=path, remedy=remedy)
    imported_there, imported = there.pop("imported", {}), asked.pop("imported", {})
    if bool(imported_there) != bool(imported):
        found = "episodes that were imported" if imported_there else "a dataset that was not imported"
        what = f"holds {found}, and this command does not continue it"
        raise OutputNotUsable(what, where=path, remedy="give another directory")
    fields = "; ".join(
        differences(_by_part(chosen_there), _by_part(chosen))
        or differences(_by_option(imported_there), _by_option(imported))
        or differences(_by_source(there), _by_source(asked))
        or schema_differences(recorded.schema, spec.schema)
    )
    is_other_code = any(there.get(name) != asked.get(name) for name in OF_CODE)
    those = "those versions, files and values" if is_other_code else "those settings"
    raise OutputNotUsable(f"was made with other settings: {fields}", where=path, remedy=f"use {those}, or another directory")


def _by_part(selection: dict[str, Any]) -> dict[str, Any]:
    """What a selection was asked for, by names as `selection.where` and `selection.datasets[0].spec_hash`."""
    datasets = enumerate(selection.get("datasets", ()))
    parts = {f"selection.{name}": value for name, value in selection.items() if name not in ("datasets", "origins", "differ")}
    of_datasets = {
        f"selection.datasets[{place}].{name}": value
        for place, dataset in datasets
        for name, value in dataset.items()
        if name != "selection"
    }
    return parts | of_datasets


def _by_source(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings in which those of the rollouts have names as `source.seed` and `source.selection.datasets[0].spec_hash`."""
    source = settings.get("source", {})
    parts = {name: value for name, value in source.items() if name != "selection"} | _by_part(source.get("selection", {}))
    own = {name: value for name, value in settings.items() if name != "source"}
    return own | {f"source.{name}": value for name, value in parts.items()}


def _by_option(imported: dict[str, Any]) -> dict[str, Any]:
    """What an import was asked for and found, by names as `imported.format` and `imported.options.layout`."""
    options = {f"imported.options.{name}": value for name, value in imported.get("options", {}).items()}
    return {f"imported.{name}": value for name, value in imported.items() if name not in ("options", "files")} | options


def _is_ours(item: Path) -> bool:
    """What a run that was killed before `dataset.json` may leave behind."""
    if item.name == LOCK_NAME or is_temporary(item):
        return True
    return item.name == SHARD_FOLDER and not item.is_file() and not files.names(item)
