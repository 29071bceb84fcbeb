"""HDF5 files in other projects' layouts, written to disk as they grow, for exports. (Our own shards are built in memory.)

A merged file of a whole dataset does not fit into memory, so it is written in place. But HDF5 crashes when the disk fills up:
after a failed write, the process ends with a segmentation fault when the file is closed, or earlier (h5py 3.16). So HDF5
writes through a Python file, which discards every byte after the first failure. Ctrl-C inside that file would cause the same
crash, so it is deferred. `check` and the end of the context raise the failure. The file on disk is then not valid HDF5: build
it under a temporary name, and rename it at the end.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from worldmodel_v.interrupts import deferred_interrupts
from worldmodel_v.storage import layout

EVERYWHERE: dict[str, Any] = {"compression": "gzip", "compression_opts": 3}
"""For readers that have only HDF5's own filters."""


def with_plugin() -> dict[str, Any]:
    """zstd, for readers that import hdf5plugin: smaller and faster. Only writing needs the plugin: we read without it."""
    import hdf5plugin

    return dict(hdf5plugin.Zstd(clevel=layout.ZSTD_LEVEL))


@contextmanager
def create_hdf5(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new HDF5 file at `path`, open for writing, and `check()`, which raises what has happened to it so far.

    That is OSError if the disk failed, KeyboardInterrupt after Ctrl-C. Call `check` now and then: without it, writes to a
    failed disk seem to succeed. The end of the context checks as well.
    """
    with deferred_interrupts() as interrupted, Disk(path, "w+") as disk:

        def check() -> None:
            if interrupted():
                raise KeyboardInterrupt
            if disk.failure is not None:
                raise disk.failure

        try:
            with h5py.File(disk, "w", libver=layout.HDF5_VERSIONS) as file:
                yield file, check
        finally:
            check()


def add_column(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, filters: dict[str, Any]) -> h5py.Dataset:
    """A column of `shape` to be filled row by row, in the chunks of our shards, compressed and with a checksum."""
    wanted = layout.PIXEL_CHUNK_ROWS if len(shape) == 4 else layout.ROW_CHUNK_ROWS
    chunks = (min(wanted, shape[0]), *shape[1:])
    return group.create_dataset(name, shape, dtype=np.dtype(dtype), chunks=chunks, fletcher32=True, **filters)


class Disk(io.FileIO):
    """A file that remembers its first failure to write, and claims to have written everything, for writers in C++."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self.failure is None:
                left = left[super().write(left) or 0 :]
        except OSError as error:
            self.failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self.failure is None else 0
        except OSError as error:
            self.failure = error
            return 0
