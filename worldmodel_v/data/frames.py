"""Frames for training: streamed from compressed shards in shuffled order, in bounded memory.

The order is a pure function of (seed, position), so a run resumes at any batch without replaying (`order`). Memory is one
pool of chunks of 64 frames (256 MiB), whatever the dataset's size (`pool`). The pool is the shuffle window: a batch mixes the
frames of as many chunks as it holds. A dataset that fits into the pool is read once. Threads read and decompress the chunks
that the next frames need, while batches are gathered from the present ones.

A batch's memory is reused only when nothing refers to it any more (`buffers`). For an asynchronous copy to a GPU, call
`Tensor.pin_memory`: it copies the batch into PyTorch's own memory, which PyTorch reuses only when the GPU is done with it. Do
not pin the batch's memory itself: a copy in flight does not refer to it.

Legend: N frames, B batch, H, W, C, K condition.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from worldmodel_v.data.buffers import Buffers
from worldmodel_v.data.chunks import ROWS, ChunkTable, find_chunks
from worldmodel_v.data.order import PARTS, stretches
from worldmodel_v.data.pool import ChunkPool, Condition
from worldmodel_v.device import num_cores
from worldmodel_v.evenly import evenly_spaced
from worldmodel_v.storage import Rollouts
from worldmodel_v.words import counted

POOL_BYTES = 256 << 20
MAX_READER_THREADS = 16
"""One reader thread a core, up to this number. A dataset behind a URL gets all of them, because a reader mostly waits there."""


class FrameBatch(NamedTuple):
    """Frames, each with its condition."""

    frames: np.ndarray
    """uint8 (B, H, W, 3)"""

    condition: np.ndarray | None = None
    """float32 (B, K), or None for a stream without conditions."""


class FrameStream:
    """An endless stream of shuffled batches over the chosen episodes.

    Iterating starts at batch `start`. Epochs follow each other without a gap, so every batch is full, even if the dataset is
    smaller than a batch. Every frame comes exactly once an epoch. Raises ShardDamaged when it finds damage.
    """

    def __init__(
        self,
        dataset: Rollouts,
        wanted: Callable[[int], bool],
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        condition: Condition | None = None,
        num_chunks: int | None = None,
    ) -> None:
        """`wanted` takes an episode number and says whether the episode's frames belong to the stream.

        `condition` returns the conditions of rows start to stop of an open shard; several threads call it at once.
        `num_chunks` is the shuffle window, how many chunks a batch mixes: by default what fits into 256 MiB, and at least 16.
        The order depends on it. Raises DatasetNotUsable if no episode is wanted, ShardDamaged.
        """
        self._table = find_chunks(dataset, wanted)
        self._batch_size, self._seed, self._start, self._condition = batch_size, seed, start, condition
        self._num_chunks = num_chunks or _num_chunks_in(POOL_BYTES, self._table)
        self.num_frames = self._table.num_frames
        """Frames in one epoch."""

    def __repr__(self) -> str:
        return (
            f"FrameStream({self._table.dataset.name!r}: {counted(self.num_frames, 'frame')}, in batches of {self._batch_size})"
        )

    def __iter__(self) -> Iterator[FrameBatch]:
        num_places = min(len(self._table), self._num_chunks + -(-self._num_chunks // PARTS))
        with ChunkPool(self._table, num_places, _num_threads(self._table.dataset), self._condition) as pool:
            yield from self._batches(pool)

    def _batches(self, pool: ChunkPool) -> Iterator[FrameBatch]:
        """Gather full batches, each from one stretch of the stream or from several."""
        size = self._batch_size
        buffers = Buffers(size * math.prod(self._table.frame_shape))
        (frames, conditions), filled = self._empty_batch(buffers, pool), 0
        for rows in self._rows(pool):
            for piece in np.split(rows, range(size - filled, len(rows), size)):
                part = slice(filled, filled + len(piece))
                pool.copy(piece, frames[part], conditions[part])
                filled = part.stop
                if filled == size:
                    yield FrameBatch(frames, conditions if self._condition else None)
                    (frames, conditions), filled = self._empty_batch(buffers, pool), 0

    def _empty_batch(self, buffers: Buffers, pool: ChunkPool) -> tuple[np.ndarray, np.ndarray]:
        frames_BHWC = buffers.lend().reshape(self._batch_size, *self._table.frame_shape)
        return frames_BHWC, np.empty((self._batch_size, pool.condition_dim), np.float32)

    def _rows(self, pool: ChunkPool) -> Iterator[np.ndarray]:
        """Where in the pool each stretch's frames are; the next stretch's chunks are read meanwhile."""
        stream = stretches(self._table, self._seed, self._start * self._batch_size, self._num_chunks)
        for present, following in pairwise(stream):
            rows = pool.rows(present.chunks, present.addresses)
            pool.prepare(following.chunks, keep=present.chunks)
            yield rows


def read_frames(dataset: Rollouts, wanted: Callable[[int], bool], limit: int) -> np.ndarray:
    """At most `limit` (1 or more) frames of the chosen episodes, evenly spaced and in order: uint8 (n, H, W, 3).

    Raises DatasetNotUsable if no episode is wanted, ShardDamaged.
    """
    table = find_chunks(dataset, wanted)
    picked = evenly_spaced(table.num_frames, limit)
    addresses = table.address_of(picked)
    cuts = np.flatnonzero(np.diff(addresses // ROWS, prepend=-1))[PARTS::PARTS]
    frames = np.empty((len(picked), *table.frame_shape), np.uint8)
    with ChunkPool(table, PARTS, _num_threads(dataset)) as pool:
        for wanted_addresses, out in zip(np.split(addresses, cuts), np.split(frames, cuts), strict=True):
            pool.copy(pool.rows(np.unique(wanted_addresses // ROWS), wanted_addresses), out)
    return frames


def _num_chunks_in(num_bytes: int, table: ChunkTable) -> int:
    """How many chunks can be mixed in `num_bytes`, with room for those that are being read."""
    return max(PARTS, num_bytes // (ROWS * math.prod(table.frame_shape)) * PARTS // (PARTS + 1))


def _num_threads(dataset: Rollouts) -> int:
    """A reader thread for each core that this process may use; the maximum for a remote dataset."""
    if dataset.is_remote:
        return MAX_READER_THREADS
    return min(num_cores(), MAX_READER_THREADS)
