"""A latent dataset cut into sections, each of which is read at once, and the pool of sections in memory.

Legend: S sections, R rows; a window's address is its number in the table of windows.

A section is about 16,000 consecutive rows of a shard in which windows start, and the rows after them that the last windows
need: four stored chunks of 4096 rows, and part of a fifth, so a chunk is read 1.25 times an epoch. Smaller sections would mix
more but read more: with sections of one chunk, every chunk is read twice.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Self

import numpy as np
import torch

from worldmodel_v.data.latent_rows import LatentRows, Window, bytes_of_row
from worldmodel_v.data.windows import WindowTable

SECTION_ROWS = 16_384


@dataclass(frozen=True)
class SectionTable:
    """The sections that hold windows, in the order of shards and rows: 40 bytes for each."""

    windows: WindowTable

    shards: np.ndarray
    """int64 (S,): which of `windows.entries` each section belongs to."""

    starts: np.ndarray
    """int64 (S,): its first row in the shard."""

    stops: np.ndarray
    """int64 (S,): one past its last row there."""

    firsts: np.ndarray
    """int64 (S,): the number of its first window."""

    counts: np.ndarray
    """int64 (S,): how many windows it holds."""

    @property
    def place_rows(self) -> int:
        """Rows of the largest section."""
        return int((self.stops - self.starts).max())

    @property
    def bytes_of_place(self) -> int:
        """Bytes that the largest section takes in memory."""
        return self.place_rows * bytes_of_row(self.windows.schema)

    def addresses(self, sections: np.ndarray) -> np.ndarray:
        """int64 (n,): the numbers of all windows of the given sections."""
        counts = self.counts[sections]
        skipped = np.repeat(self.firsts[sections] - (np.cumsum(counts) - counts), counts)
        return skipped + np.arange(len(skipped))

    def share(self, part: int, num_parts: int) -> "SectionTable":
        """Every `num_parts`-th section, from section `part` on."""
        columns = (self.shards, self.starts, self.stops, self.firsts, self.counts)
        return SectionTable(self.windows, *(column[part::num_parts] for column in columns))


def find_sections(windows: WindowTable) -> SectionTable:
    """Cut the dataset into sections."""
    columns: list[np.ndarray] = []
    first_windows = np.concatenate([[0], windows.ends])
    first_episodes = np.searchsorted(windows.shards, np.arange(len(windows.entries) + 1))
    for shard, (episode, end) in enumerate(pairwise(first_episodes)):
        numbers = np.arange(first_windows[episode], first_windows[end])
        places = windows.places(numbers)
        rows = windows.offsets[places.episode] + places.t
        cuts = np.flatnonzero(np.diff(rows // _rows_of_section(windows.entries[shard].num_rows), prepend=-1))
        if len(cuts):
            stops = np.maximum.reduceat(rows + places.num_steps + 1, cuts)
            columns.append(
                np.stack([np.full_like(cuts, shard), rows[cuts], stops, numbers[cuts], np.diff(cuts, append=len(rows))])
            )
    return SectionTable(windows, *np.concatenate(columns, axis=1))


def _rows_of_section(num_rows: int) -> int:
    """Rows from one section's start to the next; they are equal within a shard."""
    return -(-num_rows // -(-num_rows // SECTION_ROWS))


class SectionPool:
    """Up to `num_places` sections in memory, each read once while it stays; use it as a context manager.

    The memory is reused; callers get copies of windows. Shards are opened where they are read.
    """

    def __init__(self, table: SectionTable, num_places: int) -> None:
        self._table = table
        self._rows = LatentRows(num_places * table.place_rows, table.windows)
        self._first_row = np.zeros(len(table.counts), np.int64)
        self._place: dict[int, int] = {}
        self._free = list(range(num_places))
        self._reading: dict[int, Future[None]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="sections")

    def prepare(self, sections: np.ndarray, keep: np.ndarray) -> None:
        """Drop every section except `sections` and `keep`, and begin to read `sections`, as far as there are places."""
        for section in self._place.keys() - {*sections.tolist(), *keep.tolist()}:
            self._free.append(self._place.pop(section))
        for section in sections.tolist():
            if section not in self._place and self._free:
                self._place[section] = place = self._free.pop()
                self._first_row[section] = place * self._table.place_rows
                self._reading[section] = self._reader.submit(self._read, section)

    def hold(self, sections: np.ndarray) -> None:
        """Drop all but `sections` (at most as many as there are places), and wait until these are read.

        Raises ShardDamaged.
        """
        self.prepare(sections, keep=sections)
        for section in sections.tolist():
            if section in self._reading:
                self._reading.pop(section).result()

    def windows(self, numbers: np.ndarray, generator: torch.Generator | None) -> Window:
        """The windows with these numbers; their sections must be held."""
        table = self._table
        places = table.windows.places(numbers)
        section = np.searchsorted(table.firsts, numbers, side="right") - 1
        row_in_shard = table.windows.offsets[places.episode] + places.t
        return self._rows.windows(self._first_row[section] + row_in_shard - table.starts[section], places, generator)

    def _read(self, section: int) -> None:
        """In a thread: read a section into its place."""
        table, windows = self._table, self._table.windows
        with windows.dataset.open_shard(windows.entries[table.shards[section]]) as shard:
            self._rows.fill(int(self._first_row[section]), shard, int(table.starts[section]), int(table.stops[section]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reader.shutdown(cancel_futures=True)
