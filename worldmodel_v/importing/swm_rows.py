"""The two layouts of stable-worldmodel's data as the same thing: named columns of rows, and where each episode's rows are.

HDF5: every column is a dataset of the root group, `ep_len` and `ep_offset` say where episodes are. Lance: a table whose
`episode_idx` says it; pictures are JPEG or PNG in columns of bytes, all other columns are lists of float32.
"""

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.errors import DatasetNotUsable, PackageMissing
from worldmodel_v.importing.columns import is_storable
from worldmodel_v.importing.decoding import picture
from worldmodel_v.importing.frames import LazyFrames
from worldmodel_v.importing.memory import most_bytes
from worldmodel_v.importing.source_files import files_below
from worldmodel_v.importing.tables import arrow_column, is_numeric
from worldmodel_v.schema import ROLLOUTS
from worldmodel_v.storage.foreign_hdf5 import foreign_columns, require_written

INDEX = ("ep_len", "ep_offset", "ep_idx", "episode_idx", "step_idx")

EPISODES = ("ep_len", "ep_offset")
"""What an HDF5 file says of each episode."""


class SwmRows(ABC):
    """An opened file or table. It holds no open file."""

    path: Path
    files: tuple[Path, ...]

    lengths: np.ndarray
    """int64 (E,): the rows of each episode."""

    offsets: np.ndarray
    """int64 (E,): its first row."""

    columns: tuple[str, ...]
    """Of numbers, the index columns included."""

    pictures: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """What holds neither."""

    state_names: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    """Of each episode, if the file has them."""

    policies: tuple[str, ...] = ()
    """Likewise."""

    @abstractmethod
    def rows(self, names: tuple[str, ...], episode: int) -> dict[str, np.ndarray]:
        """(rows, …) of each column of numbers."""

    @abstractmethod
    def frames(self, name: str, episode: int) -> np.ndarray | LazyFrames:
        """uint8 (rows, H, W, C) of a column of pictures."""

    def _slice(self, episode: int) -> slice:
        return slice(int(self.offsets[episode]), int(self.offsets[episode] + self.lengths[episode]))


class Hdf5Rows(SwmRows):
    """See the module's head. A shard of rollouts of this package is such a file; then seeds and policies come along."""

    def __init__(self, path: Path) -> None:
        """Raises DatasetNotUsable if it is no such file, or if a part of it is missing."""
        self.path, self.files = path, (path,)
        with foreign_columns(path) as columns:
            if missing := [name for name in EPISODES if name not in columns]:
                expected = "one HDF5 file of stable-worldmodel: columns, ep_len, ep_offset"
                raise DatasetNotUsable(f"has no {missing[0]}", where=path, expected=expected)
            require_written(columns, path)
            self.lengths, self.offsets = (columns[name][:].astype(np.int64) for name in EPISODES)
            rows = {
                name: column for name, column in columns.items() if name not in EPISODES and not self._is_by_episode(column)
            }
            self._require_inside(rows)
            self.pictures = tuple(name for name, column in rows.items() if _is_picture(column))
            held = {name for name, column in rows.items() if is_storable(column)}
            self.columns = tuple(name for name in rows if name in held and name not in self.pictures)
            self.left_out = tuple(name for name in columns["ep_len"].file if name not in {*held, *EPISODES})
            self._read_names(columns)

    def rows(self, names: tuple[str, ...], episode: int) -> dict[str, np.ndarray]:
        with foreign_columns(self.path) as columns:
            return {name: self._read(columns[name], name, episode) for name in names}

    def frames(self, name: str, episode: int) -> np.ndarray:
        with foreign_columns(self.path) as columns:
            return self._read(columns[name], name, episode)

    def _read(self, column: Any, name: str, episode: int) -> np.ndarray:
        if (num_bytes := int(self.lengths[episode]) * math.prod(column.shape[1:]) * column.dtype.itemsize) > most_bytes():
            what = f"{name} takes {num_bytes:,} bytes, more than half of the memory"
            raise DatasetNotUsable(what, where=f"{self.path}: episode {episode}")
        return column[self._slice(episode)]

    def _is_by_episode(self, column: Any) -> bool:
        """Whether it has a value for each episode, and not for each row."""
        return len(column) == len(self.lengths) < (self.offsets + self.lengths).max(initial=0)

    def _require_inside(self, columns: dict[str, Any]) -> None:
        ends = self.offsets + self.lengths
        rows = {name: len(column) for name, column in columns.items()}
        shortest = min(rows, key=lambda name: rows[name], default="")
        is_wrong = not shortest or len(self.lengths) != len(self.offsets) or not len(ends) or (self.offsets < 0).any()
        if is_wrong or (self.lengths < 1).any() or ends.max() > rows[shortest]:
            got = "no rows" if not shortest or not len(ends) else f"rows up to {ends.max()}, and {rows[shortest]} of {shortest}"
            raise DatasetNotUsable(where=self.path, expected="episodes (ep_len, ep_offset) within the columns", got=got)
        order = np.argsort(self.offsets, kind="stable")
        if (shared := ends[order][:-1] > self.offsets[order][1:]).any():
            one, other = sorted(order[int(np.argmax(shared)) :][:2].tolist())
            what = f"episodes {one} and {other} have rows in common (ep_len, ep_offset)"
            raise DatasetNotUsable(what, where=self.path, expected="rows of its own for each episode")

    def _read_names(self, columns: dict[str, Any]) -> None:
        if "state" in columns and "names" in columns["state"].attrs:
            self.state_names = _texts(columns["state"].attrs["names"])
        attributes, root = columns["ep_len"].attrs, columns["ep_len"].file.attrs
        if root.get("format") == ROLLOUTS.encode():
            self.seeds = tuple(int(seed) for seed in attributes["seed"])
            self.policies = _texts(attributes["policy"])


class LanceRows(SwmRows):
    """See the module's head."""

    def __init__(self, path: Path) -> None:
        """Raises DatasetNotUsable if it is no such table, PackageMissing without lance."""
        self.path = path
        self.files = tuple(sorted(files_below(path)))
        self._version = _table(path, None).version
        schema = self._open().schema
        if "episode_idx" not in schema.names:
            expected = "a table of stable-worldmodel: episode_idx, pixels, action, …"
            raise DatasetNotUsable("has no column episode_idx", where=path, expected=expected, got=", ".join(schema.names))
        index = arrow_column(self._open().to_table(columns=["episode_idx"])["episode_idx"], name="episode_idx", where=path)
        if not len(index) or (np.diff(index) < 0).any():
            raise DatasetNotUsable("its episodes are not one after the other", where=path, expected="episode_idx that grows")
        starts = np.concatenate([[0], np.flatnonzero(np.diff(index)) + 1, [len(index)]]).astype(np.int64)
        self.offsets, self.lengths = starts[:-1], np.diff(starts)
        self.pictures = tuple(field.name for field in schema if _is_bytes(field.type))
        self.columns = tuple(field.name for field in schema if is_numeric(field.type))
        self.left_out = tuple(name for name in schema.names if name not in (*self.pictures, *self.columns))

    def rows(self, names: tuple[str, ...], episode: int) -> dict[str, np.ndarray]:
        table = self._take(names, episode)
        return {name: arrow_column(table[name], name=name, where=self.path) for name in names}

    def frames(self, name: str, episode: int) -> LazyFrames:
        blobs, where = self._take((name,), episode)[name], f"{self.path}: {name} of episode {episode}"
        if blobs.null_count:
            raise DatasetNotUsable("a picture is missing", where=where)
        shape = (len(blobs), *picture(blobs[0].as_py(), where).shape)
        return LazyFrames(shape, lambda: (picture(blob.as_py(), where) for blob in blobs), where)

    def _take(self, names: tuple[str, ...], episode: int) -> Any:
        rows = self._slice(episode)
        return self._open().take(range(rows.start, rows.stop), columns=[*names])

    def _open(self) -> Any:
        return _table(self.path, self._version)


def _table(path: Path, version: int | None) -> Any:
    try:
        import lance
    except ImportError:
        raise PackageMissing("reading it needs lance", where=path, remedy="pip install 'worldmodel_v[import]'") from None
    return lance.dataset(path, version=version)


def _is_picture(column: Any) -> bool:
    return column.dtype == np.uint8 and column.ndim == 4 and column.shape[3] in (1, 3)


def _is_bytes(type_: Any) -> bool:
    return str(type_) in ("binary", "large_binary")


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(value.decode() if isinstance(value, bytes) else str(value) for value in np.ravel(values).tolist())
