"""HDF5 files of strangers, in other projects' layouts, which may use all of HDF5. (Our own shards are read without it.)

HDF5's C code is not safe against a file that was made to harm it; the manual says so. What a sound file could do besides is
refused: links to other files, data stored in other files, virtual data, memory for whatever shape is claimed.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from worldmodel_v.errors import DatasetNotUsable, first_line
from worldmodel_v.storage.reading import readable

RESTORE = "restore it from a copy"


def require_self_contained(path: Path, most_bytes: int) -> None:
    """Raise DatasetNotUsable unless all of an HDF5 file lies in that file, and no dataset claims more than `most_bytes`.

    It is for files that a library of somebody else reads. Raises NotReadable, too. It looks at every object, which takes about
    0.1 ms each.
    """
    with readable(path), path.open("rb"):
        pass
    try:
        with h5py.File(path, "r") as file:
            linked = file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name)
            wrong = None if linked else file.visititems(lambda name, held: _wrong(name, held, most_bytes))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DatasetNotUsable(f"is no sound HDF5 file ({first_line(error)})", where=path, remedy=RESTORE) from None
    if linked:
        wrong = f"{linked!r:.100} is a link, which may lead to another file"
    if wrong:
        raise DatasetNotUsable(wrong, where=path, expected="data of the file's own")


@contextmanager
def foreign_columns(path: Path) -> Iterator[dict[str, Any]]:
    """The columns of numbers in the root group of a file, open: each has `shape`, `dtype`, `attrs`, and rows by slices.

    Texts and groups are left out. Raises DatasetNotUsable if it is no HDF5 file, or if it refers to other files.
    """
    import hdf5plugin  # noqa: F401  (filters that it may use)

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DatasetNotUsable(f"no readable HDF5 file ({error})", where=path, remedy=RESTORE) from None
    with file:
        yield {name: column for name in file if (column := _column(file, name, path)) is not None}


def require_written(columns: dict[str, Any], path: Path) -> None:
    """Raise DatasetNotUsable if a part of a column was never written: HDF5 would give zeros for it."""
    for name, column in columns.items():
        if not column.size:
            continue
        chunks = math.prod(-(-size // chunk) for size, chunk in zip(column.shape, column.chunks or column.shape, strict=True))
        written = column.id.get_num_chunks() if column.chunks else int(column.id.get_storage_size() > 0)
        if written < (chunks if column.chunks else 1):
            raise DatasetNotUsable(f"a part of {name} was never written", where=path, remedy=RESTORE)


def _wrong(name: str, held: Any, most_bytes: int) -> str | None:
    if not isinstance(held, h5py.Dataset):
        return None
    if _is_elsewhere(held):
        return f"{name!r:.100} lies in another file"
    if held.size is not None and held.size * held.dtype.itemsize > most_bytes:
        return f"{name!r:.100} claims {held.dtype} {held.shape}, more than half of the memory"
    return None


def _column(file: h5py.File, name: str, path: Path) -> h5py.Dataset | None:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise DatasetNotUsable(f"{name} is a link, possibly to another file", where=path, expected="the column itself")
    column = file[name]
    if not isinstance(column, h5py.Dataset):
        return None
    if _is_elsewhere(column):
        raise DatasetNotUsable(f"{name} is stored in other files", where=path, expected="the column itself")
    return column if column.dtype.kind in "fiub" and column.shape else None


def _is_elsewhere(held: h5py.Dataset) -> bool:
    return bool(held.is_virtual or held.external)
