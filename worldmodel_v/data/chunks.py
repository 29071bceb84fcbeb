"""Which stored chunks of a dataset hold the wanted frames, and where they lie: a small table, whatever the dataset's size."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.storage import IndexEntry, PixelLayout, Rollouts

ROWS = 64
"""Rows of the largest chunk that the format allows; a frame's address is its chunk's number in the table times ROWS, plus its
row in the chunk."""


@dataclass(frozen=True)
class ChunkTable:
    """The chunks that hold wanted frames, in the order of shards and rows: 40 bytes for each, about 0.6 a frame.

    Made by opening every shard once (2 ms each), which checks all of it except its columns' content.
    """

    dataset: Rollouts
    layouts: tuple[tuple[IndexEntry, PixelLayout], ...]
    """The shards that hold wanted frames."""

    shards: np.ndarray
    """int32 (C,): which of `layouts` each chunk belongs to."""

    numbers: np.ndarray
    """int32 (C,): the chunk's number in its shard."""

    places: np.ndarray
    """int64 (C, 2): its offset and size in the shard's file."""

    masks: np.ndarray
    """uint8 (C, ROWS / 8): the wanted rows as packed bits."""

    counts: np.ndarray
    """int64 (C,): the number of wanted rows."""

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def num_frames(self) -> int:
        return int(self.counts.sum())

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, 3)"""
        return self.layouts[0][1].frame_shape

    def addresses(self, chunks: np.ndarray) -> np.ndarray:
        """int64 (n,): the addresses of all wanted frames of the given chunks, chunk by chunk and row by row."""
        position, row = np.nonzero(np.unpackbits(self.masks[chunks], axis=1))
        return chunks[position] * ROWS + row

    def address_of(self, frames: np.ndarray) -> np.ndarray:
        """int64 (n,): the addresses of wanted frames by their number, counted in the order of shards and rows."""
        ends = np.cumsum(self.counts)
        chunks = np.searchsorted(ends, frames, side="right")
        rows_first = np.argsort(np.unpackbits(~self.masks[chunks], axis=1), axis=1, kind="stable")
        return chunks * ROWS + rows_first[np.arange(len(frames)), frames - (ends - self.counts)[chunks]]


def find_chunks(dataset: Rollouts, wanted: Callable[[int], bool]) -> ChunkTable:
    """The chunks that hold frames of wanted episodes; raises DatasetNotUsable if there are none, ShardDamaged."""
    layouts: list[tuple[IndexEntry, PixelLayout]] = []
    parts: list[tuple[np.ndarray, ...]] = []
    keep = {entry.shard: _wanted(wanted, entry) for entry in dataset.entries}
    for entry, shard in dataset.shards([entry for entry in dataset.entries if keep[entry.shard].any()]):
        layout, places = shard.pixel_layout, shard.pixel_places()
        rows = np.zeros((layout.num_chunks, layout.chunk_rows), np.bool_)
        rows.reshape(-1)[: layout.num_rows] = np.repeat(keep[entry.shard], shard.ep_len)
        masks = np.packbits(np.pad(rows, ((0, 0), (0, ROWS - layout.chunk_rows))), axis=1)
        numbers = np.flatnonzero(rows.any(axis=1))
        shards = np.full(len(numbers), len(layouts))
        parts.append((shards, numbers, places[numbers], masks[numbers], rows.sum(axis=1)[numbers]))
        layouts.append((entry, layout))
    if not parts:
        raise DatasetNotUsable(
            f"none of its {dataset.num_episodes} episodes is wanted", where=dataset.name, remedy="collect more"
        )
    shards, numbers, places, masks, counts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return ChunkTable(dataset, tuple(layouts), shards.astype(np.int32), numbers.astype(np.int32), places, masks, counts)


def _wanted(wanted: Callable[[int], bool], entry: IndexEntry) -> np.ndarray:
    """bool (E,): which episodes of a shard are wanted."""
    return np.fromiter(map(wanted, range(entry.first_episode, entry.end_episode)), np.bool_, entry.num_episodes)
