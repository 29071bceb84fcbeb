"""Latent windows for an MDN-RNN, from memory: `LatentSequences`, a PyTorch dataset over the shards that `wm-encode` wrote.

Legend: B batch, L window length in transitions, Z latent, A action.

The latents are drawn again from N(mu, exp(logvar)) at every visit, as in the paper. This keeps the MDN-RNN from learning the
encoder's rounding; `sample=False` gives mu alone.

There are two classes for two needs. `LatentSequences` holds all rows in memory (8 Z + 4 A + 6 bytes each: the paper's
10 million rows at Z = 32 are 2.7 GB, in float16 half of it), and gives any window by its number. `LatentStream` reads datasets
that are larger than memory, and gives windows only in shuffled order, without numbers. Both have the same `batches`, for the
same training loop. Rejected: one class with an argument, half of whose methods would raise.

In a DataLoader, each worker draws its own noise (with the worker's own seed). Workers share the rows: forked workers directly,
spawned ones in shared memory (/dev/shm, which must have room for them), where PyTorch puts tensors that it sends.
"""

import operator
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import get_worker_info

from worldmodel_v.data.latent_rows import LatentRows, Window
from worldmodel_v.data.prefetch import prefetch
from worldmodel_v.data.windows import OverWindows, WindowSettings, WindowTable, find_windows, generator_of
from worldmodel_v.settings import require_at_least
from worldmodel_v.storage import Location, to_place

BATCHES_AHEAD = 2


class LatentSequences(OverWindows, TorchDataset[Window]):
    """Windows of `length` transitions, by number; `len()` counts them.

    An item, or a batch with B in front, holds, whatever the dtype of the stored latents:

    - `z` float32 (L, Z), `next_z` float32 (L, Z): the latent before and after each action, one draw of each row (they mostly
      share memory: change neither in place), and (L, h, w, c) where they are a map; latents without a distribution have
      their own names instead, `tokens` and `next_tokens`, whole numbers as int64;
    - `action` float32 (L, A), or int64: (L,) for discrete actions, (L, A) for several whole numbers (see `action_space`);
    - `reward` float32 (L,); left out if nobody recorded it, as in some imported data;
    - `terminated`, `truncated` bool (L,): whether that action ended the episode, and in which way;
    - each further recorded column but `state`, under its name, from the row of the observation that the action was chosen on;
    - `is_first` bool (L,): whether z is the episode's first;
    - `mask` bool (L,): whether there is a transition. Where it is False, everything else is 0 or False, never NaN.

    Windows begin at every `stride`-th row of an episode. Without `pad`, mask is all True, and episodes with fewer than
    `length` actions hold no window: they are counted in `num_short_episodes`. With `pad`, the last window of an episode
    reaches its end or beyond, so that no transition is left out. With `length=None`, each episode is one item, and a
    batch is as long as the longest episode in it.
    """

    def __init__(
        self,
        path: Location,
        *,
        length: int | None,
        stride: int = 1,
        pad: bool = False,
        sample: bool = True,
        seed: int = 0,
        split: str = "all",
        holdout_every: int | None = None,
    ) -> None:
        """Read the latents at a path or URL; `split` is "all", "train" or "held-out".

        Held out are the episodes that the training of the VAE held out, as the latents record it. If they do not, or if the
        VAE was trained on other collections, `holdout_every` = k gives every k-th episode of a collection.

        Raises DatasetNotUsable if they are no latents or no window fits, ShardDamaged, ConfigError.
        """
        settings = WindowSettings(
            length=length, stride=stride, pad=pad, split=split, holdout_every=holdout_every, sample=sample
        )
        require_at_least(0, seed=seed)
        self.path, self.sample, self.seed = to_place(path), sample, operator.index(seed)
        self._windows = find_windows(self.path, settings)
        self._rows, self._first_rows = _load(self._windows)
        self._generator: torch.Generator | None = None

    @property
    def length(self) -> int:
        """L; for whole episodes, that of the longest episode."""
        return self._windows.length

    def __len__(self) -> int:
        return len(self._windows)

    def __repr__(self) -> str:
        return f"LatentSequences({str(self.path)!r}: {len(self)} windows of {self.length} transitions)"

    def __getitem__(self, index: int) -> Window:
        return {name: column[0] for name, column in self.batch(np.array([operator.index(index)])).items()}

    def __getitems__(self, indices: Sequence[int]) -> list[Window]:
        """The items of a DataLoader's batch, gathered at once; all have one length, so that they can be stacked."""
        batch = self.batch(np.array(indices))
        return [{name: column[row] for name, column in batch.items()} for row in range(len(indices))]

    def batch(self, indices: np.ndarray, generator: torch.Generator | None = None) -> Window:
        """Many windows at once, in one gather: every tensor has B = len(indices) in front.

        Raises IndexError if there is no such window, TypeError for other than whole numbers (B,), as for a mask.
        """
        indices = np.asarray(indices)
        if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
            raise TypeError(f"numbers of windows: expected whole numbers (B,), got {indices.dtype} {indices.shape}")
        indices = indices.astype(np.int64)
        if outside := indices[(indices < -len(self)) | (indices >= len(self))].tolist():
            raise IndexError(f"window {outside[0]} of {len(self)}")
        places = self._windows.places(np.where(indices < 0, indices + len(self), indices))
        noise = (generator or self._own_generator()) if self.sample else None
        return self._rows.windows(self._first_rows[places.episode] + places.t, places, noise)

    def sample_batch(self, batch_size: int, generator: torch.Generator | None = None) -> Window:
        """A batch of windows drawn uniformly with replacement."""
        require_at_least(1, batch_size=batch_size)
        generator = generator or self._own_generator()
        indices = torch.randint(len(self), (batch_size,), generator=generator, device="cpu")
        return self.batch(indices.numpy(), generator)

    def batches(self, batch_size: int, epoch: int = 0) -> Generator[Window]:
        """Every window once, in batches (the last may be smaller), shuffled, and made ahead in a thread; use this to train.

        Order and noise are a function of the seed, `epoch` and `batch_size`.
        """
        require_at_least(1, batch_size=batch_size)
        require_at_least(0, epoch=epoch)
        return prefetch(self._epoch(batch_size, generator_of(self.seed, epoch)), BATCHES_AHEAD)

    def _epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[Window]:
        for indices in torch.randperm(len(self), generator=generator, device="cpu").split(batch_size):
            yield self.batch(indices.numpy(), generator)

    def _own_generator(self) -> torch.Generator:
        """This process's generator: seeded by `seed`, and in a DataLoader worker by the worker's own seed.

        Without the worker's seed, forked workers would all draw the same noise.
        """
        worker = get_worker_info()
        seed = self.seed if worker is None else worker.seed
        if self._generator is None or self._generator.initial_seed() != seed:
            self._generator = torch.Generator().manual_seed(seed)
        return self._generator

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_generator": None}


def _load(table: WindowTable) -> tuple[LatentRows, np.ndarray]:
    """The rows of all wanted episodes end to end, and the first row of each."""
    num_rows_E = table.num_steps + 1
    ends_E = np.cumsum(num_rows_E)
    rows, first = LatentRows(int(ends_E[-1]), table), 0
    for _, shard in table.dataset.shards(table.entries):
        wanted_E = [table.wants(int(episode)) for episode in shard.episode_ids]
        keep = np.repeat(wanted_E, shard.ep_len)
        rows.fill(first, shard, 0, shard.num_rows, None if keep.all() else keep)
        first += int(keep.sum())
    return rows, ends_E - num_rows_E
