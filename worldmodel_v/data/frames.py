"""Frames for training: streamed from compressed shards in shuffled order, in bounded memory.

The order is a pure function of (seed, position): each epoch permutes the chunks of 64 frames, takes them in pools of
`chunks_per_pool`, and permutes the frames within a pool. So memory is two pools (200 MB at 64x64) whatever the dataset's
size, a batch mixes as many episodes as a pool holds, and a run resumes at any batch without replaying. The next pool is
read and decompressed in threads while the present one is consumed. Rejected: a rolling shuffle buffer, which mixes
slightly better but whose content depends on the whole past, and one global permutation of frames, which would
decompress 64 frames for every one it uses.

Legend: N frames, H, W, C.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np

from worldmodel_v.errors import DatasetTooSmall
from worldmodel_v.storage import Dataset, IndexEntry, Shard

CHUNKS_PER_POOL = 128
READER_THREADS = 2
MAX_OPEN_SHARDS = 64


class FrameBatch(NamedTuple):
    """Frames, and for a conditional VAE what stands beside them."""

    frames: np.ndarray
    """uint8 (B, H, W, 3)"""

    condition: np.ndarray | None = None
    """float32 (B, K), or None"""


@dataclass(frozen=True)
class _Chunk:
    """The wanted rows of one stored chunk."""

    entry: IndexEntry
    number: int
    wanted: np.ndarray
    """int (n,): rows within the chunk."""


class FrameStream:
    """An endless stream of shuffled batches of `batch_size` frames, over the chosen episodes.

    Iterating starts at batch `start`; epochs follow each other without a seam, so every batch is full even where the
    dataset is smaller than one. Every frame comes exactly once an epoch. Raises ShardDamaged when it meets damage.
    """

    def __init__(
        self,
        dataset: Dataset,
        wanted: Callable[[int], bool],
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        chunks_per_pool: int = CHUNKS_PER_POOL,
        condition: Callable[[Shard, int, int], np.ndarray] | None = None,
    ) -> None:
        """`wanted` says of an episode number whether its frames belong to the stream.

        `condition(shard, start, stop)` gives float32 (stop - start, K) for rows of a shard; its rows go with their frames.
        """
        self._dataset = dataset
        self._batch_size, self._seed, self._start = batch_size, seed, start
        self._chunks_per_pool = chunks_per_pool
        self._condition = condition
        self._chunks = _find_chunks(dataset, wanted)
        self.num_frames = sum(len(chunk.wanted) for chunk in self._chunks)
        """Frames in one epoch."""
        if not self.num_frames:
            raise DatasetTooSmall(f"{dataset.path}: none of its {dataset.num_episodes} episodes is wanted; collect more")

    def __iter__(self) -> Iterator[FrameBatch]:
        first_position = self._start * self._batch_size
        with _OpenShards(self._dataset) as shards, ThreadPoolExecutor(READER_THREADS) as readers:
            pools = self._pools(first_position, shards, readers)
            yield from _batches(pools, self._batch_size)

    def _pools(self, position: int, shards: "_OpenShards", readers: ThreadPoolExecutor) -> Iterator[FrameBatch]:
        """The shuffled pools from stream position `position` on; the first may begin midway."""
        plans = self._plans(position)
        upcoming = _start_reading(next(plans), shards, readers, self._condition)
        while True:
            current, upcoming = upcoming, _start_reading(next(plans), shards, readers, self._condition)
            yield current.collect()

    def _plans(self, position: int) -> Iterator["_PoolPlan"]:
        epoch, skip = divmod(position, self.num_frames)
        while True:
            order = np.random.default_rng((self._seed, epoch)).permutation(len(self._chunks))
            for pool, start in enumerate(range(0, len(order), self._chunks_per_pool)):
                chunks = [self._chunks[i] for i in order[start : start + self._chunks_per_pool]]
                size = sum(len(chunk.wanted) for chunk in chunks)
                if skip >= size:
                    skip -= size
                    continue
                frames = np.random.default_rng((self._seed, epoch, pool)).permutation(size)[skip:]
                skip = 0
                yield _PoolPlan(chunks, frames)
            epoch += 1


def read_frames(dataset: Dataset, wanted: Callable[[int], bool], limit: int) -> np.ndarray:
    """At most `limit` (1 or more) frames of the chosen episodes, evenly spaced and in order: uint8 (n, H, W, 3)."""
    chunks = _find_chunks(dataset, wanted)
    total = sum(len(chunk.wanted) for chunk in chunks)
    if not total:
        raise DatasetTooSmall(f"{dataset.path}: none of its {dataset.num_episodes} episodes is wanted; collect more")
    picked = np.unique(np.linspace(0, total - 1, min(limit, total)).astype(np.int64))
    frames: list[np.ndarray] = []
    first = 0
    with _OpenShards(dataset) as shards:
        for chunk in chunks:
            inside = picked[(picked >= first) & (picked < first + len(chunk.wanted))] - first
            if inside.size:
                frames.append(shards.get(chunk.entry).pixel_chunk(chunk.number)[chunk.wanted[inside]])
            first += len(chunk.wanted)
    return np.concatenate(frames)


@dataclass
class _PoolPlan:
    """Which chunks make a pool, and the order in which its frames come."""

    chunks: list[_Chunk]
    order: np.ndarray


@dataclass
class _PoolInReading:
    """A pool whose chunks are being decompressed."""

    futures: list[Future[FrameBatch]]
    order: np.ndarray

    def collect(self) -> FrameBatch:
        return _at(_joined([future.result() for future in self.futures]), self.order)


def _start_reading(
    plan: _PoolPlan,
    shards: "_OpenShards",
    readers: ThreadPoolExecutor,
    condition: Callable[[Shard, int, int], np.ndarray] | None,
) -> _PoolInReading:
    def read(chunk: _Chunk) -> FrameBatch:
        shard = shards.get(chunk.entry)
        frames = shard.pixel_chunk(chunk.number)
        first = chunk.number * shard.chunk_rows
        beside = None if condition is None else condition(shard, first, first + len(frames))
        return _at(FrameBatch(frames, beside), chunk.wanted)

    return _PoolInReading([readers.submit(read, chunk) for chunk in plan.chunks], plan.order)


def _batches(pools: Iterator[FrameBatch], batch_size: int) -> Iterator[FrameBatch]:
    """Cut a stream of pools into full batches, joining what is left of one pool with the next."""
    rest = next(pools)
    while True:
        while len(rest.frames) < batch_size:
            rest = _joined([rest, next(pools)])
        yield _at(rest, slice(batch_size))
        rest = _at(rest, slice(batch_size, None))


def _at(batch: FrameBatch, rows: np.ndarray | slice) -> FrameBatch:
    return FrameBatch(batch.frames[rows], None if batch.condition is None else batch.condition[rows])


def _joined(batches: list[FrameBatch]) -> FrameBatch:
    frames = np.concatenate([batch.frames for batch in batches])
    conditions = [batch.condition for batch in batches if batch.condition is not None]
    return FrameBatch(frames, np.concatenate(conditions) if conditions else None)


def _find_chunks(dataset: Dataset, wanted: Callable[[int], bool]) -> list[_Chunk]:
    chunks: list[_Chunk] = []
    for entry in dataset.entries:
        with dataset.open_shard(entry) as shard:
            keep = np.repeat([wanted(int(episode)) for episode in shard.episode_ids], shard.ep_len)
            for number in range(shard.num_pixel_chunks):
                inside = keep[number * shard.chunk_rows : (number + 1) * shard.chunk_rows]
                if inside.any():
                    chunks.append(_Chunk(entry, number, np.flatnonzero(inside)))
    return chunks


class _OpenShards:
    """The shards that are open, the least recently used closed first; shared by the reader threads.

    A shard that is pushed out while a thread still reads from it is closed when that thread lets go of it.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = Lock()

    def get(self, entry: IndexEntry) -> Shard:
        with self._lock:
            shard = self._open.pop(entry.shard, None) or self._dataset.open_shard(entry)
            self._open[entry.shard] = shard
            if len(self._open) > MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
            return shard

    def __enter__(self) -> "_OpenShards":
        return self

    def __exit__(self, *_: object) -> None:
        for shard in self._open.values():
            shard.close()
