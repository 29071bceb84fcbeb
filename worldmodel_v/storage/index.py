"""`index.jsonl`: one line per committed shard, written by the single committer.

A shard's number determines its name and its place. Lines may come in any order, because blocks finish in any order. A kill
in the middle of an append leaves a torn last line, which readers drop. They refuse any other malformed line as damage.
"""

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from worldmodel_v.errors import ShardDamaged
from worldmodel_v.storage import files
from worldmodel_v.storage.checksum import is_sha256
from worldmodel_v.storage.reading import readable
from worldmodel_v.storage.store import Place, stream
from worldmodel_v.untrusted import parse_object

INDEX_NAME = "index.jsonl"
SHARD_FOLDER = "shards"
MAX_LINE_BYTES = 1024
"""Longer than any line, which has seven fields."""

MAX_NUMBER = 2**53
"""Every number of an index is below this: any JSON reader holds such whole numbers exactly."""


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """One committed shard."""

    shard: int
    """Its number; the file is `shards/{shard:06d}.h5`."""

    first_episode: int
    num_episodes: int
    num_rows: int
    bytes: int
    sha256: str
    source_sha256: str | None = None
    """Latents only: the SHA-256 of the rollout shard that these latents were made from."""

    @property
    def name(self) -> str:
        """The file's path inside the dataset."""
        return shard_name(self.shard)

    @property
    def end_episode(self) -> int:
        """One past the last episode."""
        return self.first_episode + self.num_episodes

    def to_line(self) -> str:
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})

    def __post_init__(self) -> None:
        for name in ("shard", "first_episode", "num_episodes", "num_rows", "bytes"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} must be a whole number from 0, got {value!r:.100}")
            if value >= MAX_NUMBER:
                raise ValueError(f"{name} must be below 2^53, got {value}")
        for name in ("sha256", "source_sha256"):
            value = getattr(self, name)
            if value is not None and not is_sha256(value):
                raise ValueError(f"{name} must be 64 hexadecimal digits, got {value!r:.100}")


def shard_name(number: int) -> str:
    """The path of a shard inside its dataset."""
    return f"{SHARD_FOLDER}/{number:06d}.h5"


@readable()
def read_index(path: Place) -> list[IndexEntry]:
    """The committed shards of `index.jsonl`, in the order of their numbers; raises ShardDamaged on a malformed line."""
    try:
        opened = stream(path)
    except FileNotFoundError:
        return []
    with readable(path), opened as file:
        entries = [_parse(path, number, line) for number, line in enumerate(_lines(file), start=1)]
    entries.sort(key=lambda entry: entry.shard)
    _check_disjoint(path, entries)
    return entries


def latest_entry(path: Path) -> IndexEntry | None:
    """The shard that was committed last, None before the first; raises ShardDamaged if its line is malformed."""
    with readable(path), files.open_stream(path) as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 3 * MAX_LINE_BYTES, 0))
        lines = complete_lines(file.read()).splitlines()
    return _parse(path, -1, lines[-1]) if lines else None


def complete_lines(content: bytes) -> bytes:
    """`content` up to its last newline: what is left once a torn last line is dropped."""
    return content[: content.rfind(b"\n") + 1]


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The complete lines. The last one also counts if no kill can have torn it: a kill leaves only the beginning of a line."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if line.endswith(b"\n") or len(line) > MAX_LINE_BYTES or b"}" in line[:-1]:
            yield line


def _parse(path: Place, number: int, line: bytes) -> IndexEntry:
    try:
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"expected at most {MAX_LINE_BYTES} bytes")
        return IndexEntry(**parse_object(line.removesuffix(b"\n")))
    except (ValueError, TypeError) as error:
        raise ShardDamaged(
            f"not a line of an index ({error})",
            where=f"{path}:{number}",
            remedy="restore the file from a copy, or delete the line to have its shard verified and adopted again",
        ) from None


def _check_disjoint(path: Place, entries: list[IndexEntry]) -> None:
    for before, after in itertools.pairwise(entries):
        if after.shard == before.shard or after.first_episode < before.end_episode:
            raise ShardDamaged(
                f"{before.name} (episodes {before.first_episode} to {before.end_episode - 1}) and {after.name} (from "
                f"{after.first_episode}) hold the same episode twice",
                where=path,
                remedy="delete the wrong line",
            )
