"""The shuffled order of frames: a pure function of (seed, position), and which chunks must be in memory for it.

Frames are read in chunks of 64 consecutive ones, and memory holds a few hundred chunks, so a batch can mix no more episodes
than there are chunks in memory. To mix all of these chunks in every batch, chunks are loaded and dropped in small groups:

- Each epoch permutes the chunks and cuts them into groups of `num_chunks / PARTS`.
- The frames of a group are permuted and cut into PARTS parts. Stretch s of the epoch holds one part of each of the groups s to
  s + PARTS - 1, permuted together. Group s is then dropped, and group s + PARTS is loaded.
- The first stretch also holds the parts for which there is no earlier stretch, the last one all parts that are left: both mix
  as many chunks as the others. A dataset of fewer chunks is one stretch.

So every frame comes once an epoch, and sizes alone determine the stretch of any position: a run resumes at any batch by
reading the chunks that are in memory there. Rejected: pools that are filled, permuted and emptied in turn (one half of memory
waits for the other, so a batch mixes half as many episodes); a rolling shuffle buffer, whose content depends on the whole
past; one permutation of all frames, which decompresses 64 frames for each that it uses.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

PARTS = 16
"""The number of stretches over which a chunk's frames are spread: so many groups are mixed, and one more is being read."""


class Table(Protocol):
    """What is shuffled: chunks of frames, or of anything else that has addresses."""

    @property
    def counts(self) -> np.ndarray:
        """int64 (C,): how many frames each chunk holds."""

    def addresses(self, chunks: np.ndarray) -> np.ndarray:
        """int64 (n,): the addresses of all frames of the given chunks."""


@dataclass(frozen=True)
class Stretch:
    """A stretch of the stream."""

    chunks: np.ndarray
    """int64 (c,): the chunks that hold its frames."""

    addresses: np.ndarray
    """int64 (n,): its frames, in the order of the stream."""


def stretches(table: Table, seed: int, position: int, num_chunks: int) -> Iterator[Stretch]:
    """The endless stream from frame `position` on, each stretch over at most `num_chunks` chunks; the first is cut short."""
    epoch, skip = divmod(position, int(table.counts.sum()))
    while True:
        yield from _Epoch(table, (seed, epoch), num_chunks).stretches(skip)
        epoch, skip = epoch + 1, 0


class _Epoch:
    """One epoch's permutation of the chunks into groups, and of their frames into stretches."""

    def __init__(self, table: Table, key: tuple[int, int], num_chunks: int) -> None:
        self._table, self._key = table, key
        self._parts = min(PARTS, num_chunks)
        order = np.random.default_rng(key).permutation(len(table.counts))
        starts = np.arange(0, len(order), num_chunks // self._parts)
        self._groups = np.split(order, starts[1:])
        self._counts = np.add.reduceat(table.counts[order], starts)
        self._last = max(0, len(self._groups) - self._parts)

    def stretches(self, skip: int) -> Iterator[Stretch]:
        """The epoch's stretches without its first `skip` frames."""
        sizes = self._sizes()
        first = int(np.searchsorted(np.cumsum(sizes), skip, side="right"))
        skip -= int(sizes[:first].sum())
        shuffled: dict[int, np.ndarray] = {}
        for number in range(first, self._last + 1):
            members = range(number, min(number + self._parts, len(self._groups)))
            shuffled = {group: shuffled[group] if group in shuffled else self._shuffled_group(group) for group in members}
            pieces = [frames[self._share(group, number, len(frames))] for group, frames in shuffled.items()]
            addresses = np.random.default_rng((*self._key, 0, number)).permutation(np.concatenate(pieces))
            yield Stretch(np.concatenate([self._groups[group] for group in members]), addresses[skip:])
            skip = 0

    def _sizes(self) -> np.ndarray:
        """int64: the number of frames in every stretch."""
        cuts = self._counts[:, None] * np.arange(self._parts + 1) // self._parts
        where = np.clip(np.arange(len(self._groups))[:, None] - np.arange(self._parts), 0, self._last)
        return np.bincount(where.ravel(), np.diff(cuts, axis=1).ravel()).astype(np.int64)

    def _shuffled_group(self, group: int) -> np.ndarray:
        return np.random.default_rng((*self._key, 1, group)).permutation(self._table.addresses(self._groups[group]))

    def _share(self, group: int, stretch: int, num_frames: int) -> slice:
        """Which of a group's shuffled frames belong to a stretch: one part inside an epoch, more at its ends."""
        first = 0 if stretch == self._last else group - stretch
        end = self._parts if stretch == 0 else group - stretch + 1
        return slice(num_frames * first // self._parts, num_frames * end // self._parts)
