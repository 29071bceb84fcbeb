"""Columns of other people's HDF5 files, read with HDF5's own library, because they may use all of HDF5. (Our own shards are
read without it.)

HDF5's C code is not safe against a file that was made to harm it; the manual says so. What a sound file could do besides is
refused: links to other files, columns stored in other files, virtual columns.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from worldmodel_v.errors import DatasetNotUsable


@contextmanager
def foreign_columns(path: Path) -> Iterator[dict[str, Any]]:
    """The columns of numbers in the root group of a file, open: each has `shape`, `dtype`, `attrs`, and rows by slices.

    Texts and groups are left out. Raises DatasetNotUsable if it is no HDF5 file, or if it refers to other files.
    """
    import hdf5plugin  # noqa: F401  (filters that it may use)

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DatasetNotUsable(f"no readable HDF5 file ({error})", where=path, remedy="restore it from a copy") from None
    with file:
        yield {name: column for name in file if (column := _column(file, name, path)) is not None}


def require_written(columns: dict[str, Any], path: Path) -> None:
    """Raise DatasetNotUsable if a part of a column was never written: HDF5 would give zeros for it."""
    for name, column in columns.items():
        chunks = math.prod(-(-size // chunk) for size, chunk in zip(column.shape, column.chunks or column.shape, strict=True))
        written = column.id.get_num_chunks() if column.chunks else int(column.id.get_storage_size() > 0)
        if column.size and written < (chunks if column.chunks else 1):
            raise DatasetNotUsable(f"a part of {name} was never written", where=path, remedy="restore it from a copy")


def _column(file: h5py.File, name: str, path: Path) -> h5py.Dataset | None:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise DatasetNotUsable(f"{name} is a link, possibly to another file", where=path, expected="the column itself")
    column = file[name]
    if not isinstance(column, h5py.Dataset):
        return None
    if column.is_virtual or column.external:
        raise DatasetNotUsable(f"{name} is stored in other files", where=path, expected="the column itself")
    return column if column.dtype.kind in "fiub" and column.shape else None
