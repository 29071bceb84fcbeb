"""Latent windows for an MDN-RNN, from disk: `LatentStream`, for datasets that are larger than memory.

Legend: B batch, L window length in transitions.

Sections of about 16,000 rows are read in shuffled order into a pool of 256 MiB, and a batch's windows come from anywhere in
the pool. This is the order of `order`, with sections for chunks and windows for frames. So every window comes exactly once an
epoch, as in `LatentSequences`. A batch mixes the episodes that the pool holds: 600 to 900 of a thousand rows at Z = 32. A batch
of 64 windows has 0.94 times as many different episodes as one drawn from the whole dataset, a batch of 1024 half as many.
Reading costs little at stride 1, because each row that is read serves L windows; at stride L it is most of the work. One
thread reads sections while batches are made. An epoch begins by filling the pool.

Rejected: reading each window by itself (a chunk of 4096 rows is read and checked for 33 of them); mapping the shards into
memory (fast if the page cache holds them, random reads of 8 kB if not, and no row would be checked).
"""

import operator
from collections.abc import Generator, Iterator
from itertools import chain, pairwise

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from worldmodel_v.data.latent_rows import Window
from worldmodel_v.data.order import PARTS, Stretch, stretches
from worldmodel_v.data.prefetch import prefetch
from worldmodel_v.data.sections import SectionPool, SectionTable, find_sections
from worldmodel_v.data.sequences import BATCHES_AHEAD
from worldmodel_v.data.windows import OverWindows, WindowSettings, find_windows, generator_of
from worldmodel_v.errors import ConfigError
from worldmodel_v.settings import require_at_least
from worldmodel_v.storage import Location, to_place

POOL_BYTES = 256 << 20
ITEMS_AT_ONCE = 64


class LatentStream(OverWindows, IterableDataset[Window]):
    """The windows of `LatentSequences` in shuffled order, each once an epoch, in bounded memory.

    `batches` gives batches; iterating gives items, for a DataLoader: each pass is another epoch. A DataLoader's workers
    divide the sections and the pool's memory among them. Each worker draws with its own seed, so an epoch is a function of
    the DataLoader's `generator` and the number of workers.

    Memory is the pool, 256 MiB, whatever the dataset's size; more only if 17 sections of 16,000 + L rows are larger.
    """

    def __init__(
        self,
        path: Location,
        *,
        length: int,
        stride: int = 1,
        pad: bool = False,
        sample: bool = True,
        seed: int = 0,
        split: str = "all",
        holdout_every: int | None = None,
    ) -> None:
        """Open the latents at a path or URL; the arguments are those of `LatentSequences`, except length None.

        Raises DatasetNotUsable if they are no latents or no window fits, ShardDamaged, ConfigError; iterating
        raises ShardDamaged when it meets damage.
        """
        if length is None:
            raise ConfigError("windows from disk need one; LatentSequences has whole episodes", field="length")
        settings = WindowSettings(
            length=length, stride=stride, pad=pad, split=split, holdout_every=holdout_every, sample=sample
        )
        require_at_least(0, seed=seed)
        self.path, self.sample, self.seed, self.length = to_place(path), sample, operator.index(seed), operator.index(length)
        self._windows = find_windows(self.path, settings)
        self._sections = find_sections(self._windows)
        self._epoch = 0

    @property
    def num_windows(self) -> int:
        """Windows in an epoch."""
        return len(self._windows)

    def __repr__(self) -> str:
        return f"LatentStream({str(self.path)!r}: {self.num_windows} windows of {self.length} transitions)"

    def batches(self, batch_size: int, epoch: int = 0) -> Generator[Window]:
        """Every window once, in batches (the last may be smaller), shuffled, and made ahead in a thread.

        Order and noise are a function of the seed, `epoch` and `batch_size`.
        """
        require_at_least(1, batch_size=batch_size)
        require_at_least(0, epoch=epoch)
        return prefetch(_batches(self._sections, batch_size, (self.seed, epoch), self.sample, POOL_BYTES), BATCHES_AHEAD)

    def __iter__(self) -> Iterator[Window]:
        worker = get_worker_info()
        seed, part, num_parts = (self.seed, 0, 1) if worker is None else (worker.seed, worker.id, worker.num_workers)
        key, self._epoch = (seed, self._epoch), self._epoch + 1
        sections = self._sections.share(part, num_parts)
        for batch in _batches(sections, ITEMS_AT_ONCE, key, self.sample, POOL_BYTES // num_parts):
            for row in range(len(batch["mask"])):
                yield {name: column[row] for name, column in batch.items()}


def _batches(sections: SectionTable, batch_size: int, key: tuple[int, int], sample: bool, pool_bytes: int) -> Generator[Window]:
    """One epoch over some sections, a function of the key (seed, epoch), in batches from one stretch or from several."""
    if not len(sections.counts):
        return
    generator = generator_of(*key)
    num_sections = max(PARTS, pool_bytes // sections.bytes_of_place * PARTS // (PARTS + 1))
    num_places = min(len(sections.counts), num_sections + -(-num_sections // PARTS))
    pieces: list[Window] = []
    room = batch_size
    with SectionPool(sections, num_places) as pool:
        for present, following in pairwise(chain(_epoch(sections, key, num_sections), [None])):
            assert present is not None
            pool.hold(present.chunks)
            if following is not None:
                pool.prepare(following.chunks, keep=present.chunks)
            for numbers in np.split(present.addresses, range(room, len(present.addresses), batch_size)):
                pieces.append(pool.windows(numbers, generator if sample else None))
                room -= len(numbers)
                if not room:
                    yield _joined(pieces)
                    pieces, room = [], batch_size
    if pieces:
        yield _joined(pieces)


def _epoch(sections: SectionTable, key: tuple[int, int], num_sections: int) -> Iterator[Stretch]:
    """The stretches of one epoch."""
    num_windows = int(sections.counts.sum())
    seed, epoch = key
    for stretch in stretches(sections, seed, epoch * num_windows, num_sections):
        yield stretch
        num_windows -= len(stretch.addresses)
        if not num_windows:
            return


def _joined(pieces: list[Window]) -> Window:
    """One batch of several pieces."""
    if len(pieces) == 1:
        return pieces[0]
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
