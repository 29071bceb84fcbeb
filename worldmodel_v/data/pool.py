"""The decompressed chunks that a stream draws from: a fixed piece of memory, filled by threads.

Legend: P places, B batch, K condition.
"""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from worldmodel_v.data.chunks import ROWS, ChunkTable
from worldmodel_v.storage import IndexEntry, Shard

MAX_OPEN = 64

Condition = Callable[[Shard, int, int], np.ndarray]
"""(open shard, start, stop) -> float32 (stop - start, K), one condition for each of those rows."""


class ChunkPool:
    """Up to P chunks in memory, each read once while it stays; use it as a context manager.

    The memory is reused, because new pages are expensive; callers get copies of frames.
    """

    def __init__(self, table: ChunkTable, num_places: int, num_threads: int, condition: Condition | None = None) -> None:
        self._table, self._condition = table, condition
        self._files = _Recent(table.dataset.open_file)
        self._shards = _Recent(table.dataset.open_shard)
        self._frames = np.empty((num_places * ROWS, int(np.prod(table.frame_shape))), np.uint8)
        self.condition_dim = 0 if condition is None else self._measure_condition(condition)
        """K; 0 without a condition."""
        self._conditions = np.empty((num_places * ROWS, self.condition_dim), np.float32)
        self._place = np.full(len(table), -1, np.int32)
        self._present = np.zeros(0, np.int64)
        self._free = list(range(num_places))
        self._reading: dict[int, Future[None]] = {}
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="chunks")

    def prepare(self, chunks: np.ndarray, keep: np.ndarray) -> None:
        """Drop every chunk except `chunks` and `keep`, and begin to read `chunks`, as far as there are places."""
        staying = np.isin(self._present, np.concatenate([chunks, keep]))
        self._free.extend(self._place[self._present[~staying]].tolist())
        self._place[self._present[~staying]] = -1
        coming = chunks[self._place[chunks] < 0][: len(self._free)]
        self._present = np.concatenate([self._present[staying], coming])
        for chunk in coming.tolist():
            self._place[chunk] = place = self._free.pop()
            self._reading[chunk] = self._threads.submit(self._read, chunk, place)

    def rows(self, chunks: np.ndarray, addresses: np.ndarray) -> np.ndarray:
        """Where in the pool the given frames of `chunks` are, int64; drops all other chunks, and waits until these are read.

        Raises ShardDamaged if a chunk is damaged. `chunks` are at most as many as there are places.
        """
        self.prepare(chunks, keep=chunks)
        for chunk in self._reading.keys() & chunks.tolist():
            self._reading.pop(chunk).result()
        return self._place[addresses // ROWS].astype(np.int64) * ROWS + addresses % ROWS

    def copy(self, rows: np.ndarray, frames: np.ndarray, conditions: np.ndarray | None = None) -> None:
        """Gather n rows of the pool into contiguous uint8 (n, H, W, 3), and their conditions into float32 (n, K)."""
        # mode "raise" would gather into a temporary array first
        np.take(self._frames, rows, axis=0, out=frames.reshape(len(rows), self._frames.shape[1]), mode="clip")
        if conditions is not None:
            np.take(self._conditions, rows, axis=0, out=conditions, mode="clip")

    def _read(self, chunk: int, place: int) -> None:
        """In a thread: read a chunk, with its conditions, into its place."""
        table, first = self._table, place * ROWS
        entry, layout = table.layouts[table.shards[chunk]]
        number = int(table.numbers[chunk])
        offset, size = table.places[chunk].tolist()
        stored = self._files.get(entry).read(offset, size)
        frames = layout.decode(number, stored, self._frames[first : first + ROWS])
        if self._condition is not None:
            start = number * layout.chunk_rows
            rows = self._condition(self._shards.get(entry), start, start + len(frames))
            self._conditions[first : first + len(frames)] = rows

    def _measure_condition(self, condition: Condition) -> int:
        """K, found out from one row."""
        return condition(self._shards.get(self._table.layouts[0][0]), 0, 1).shape[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._files.close()
        self._shards.close()


class _Closeable(Protocol):
    def close(self) -> None: ...


File = TypeVar("File", bound=_Closeable)


class _Recent(Generic[File]):
    """The open files, of which the least recently used is dropped first; the reader threads share them.

    A file that is dropped while a thread still reads from it closes when that thread is done.
    """

    def __init__(self, open_file: Callable[[IndexEntry], File]) -> None:
        self._open_file = open_file
        self._open: OrderedDict[int, File] = OrderedDict()
        self._lock = Lock()

    def get(self, entry: IndexEntry) -> File:
        with self._lock:
            file = self._open.pop(entry.shard, None) or self._open_file(entry)
            self._open[entry.shard] = file
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
            return file

    def close(self) -> None:
        for file in self._open.values():
            file.close()
