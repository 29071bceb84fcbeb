"""HDF5 files in other projects' layouts, written to disk as they grow, for exports. (Our own shards are built in memory.)

A merged file of a whole dataset does not fit into memory, so it has to be written in place, and HDF5 does not survive a disk
that fills up: a failed write ends the process with a segmentation fault when the file is closed, or earlier (h5py 3.16). So
HDF5 writes through a Python file that takes every byte after the first failure without writing it. Ctrl-C inside that file
would have the same end, so it waits. `check`, and the end of the context, raise what happened. What is left on disk then is no
HDF5 file: build it under a name that nobody reads, and rename at the end.
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
"""For readers that know HDF5's own filters only."""


def with_plugin() -> dict[str, Any]:
    """zstd, for readers that import hdf5plugin: smaller and faster. Only who writes so needs the plugin: we read without it."""
    import hdf5plugin

    return dict(hdf5plugin.Zstd(clevel=layout.ZSTD_LEVEL))


@contextmanager
def create_hdf5(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new HDF5 file at `path`, open for writing, and `check()`, which raises what happened to it by now.

    That is OSError if the disk failed, KeyboardInterrupt after Ctrl-C. Call `check` now and then: until then a failed disk
    takes everything. The end of the context checks as well.
    """
    with deferred_interrupts() as interrupted, _Disk(path, "w+") as disk:

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


class _Disk(io.FileIO):
    """A file that remembers its first failed write, and claims to have written everything."""

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
