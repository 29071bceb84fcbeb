"""Latent windows for an MDN-RNN: `LatentSequences`, a PyTorch dataset over the shards that `wm-encode` wrote.

Legend: B batch, L window length in transitions, Z latent, A action.

A window is L transitions inside one episode: rows t to t + L give z_t..z_t+L-1 and, shifted by one, their successors.
The latents are drawn anew from N(mu, exp(logvar)) at every visit, as the paper does, which keeps the MDN-RNN from
learning the encoder's rounding; `sample=False` gives mu alone. All columns are read into memory once (the paper's
10 million rows at Z = 32 are 2.7 GB), because windows at random places are a gather there, and a decompression elsewhere.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import get_worker_info

from worldmodel_v.data.split import is_held_out
from worldmodel_v.errors import ConfigError, DatasetTooSmall, ShardDamaged
from worldmodel_v.storage import Shard, require_format
from worldmodel_v.storage.schema import LATENTS

Window = dict[str, torch.Tensor]


class LatentSequences(TorchDataset[Window]):
    """Windows of `length` transitions; `len()` counts every start at which one fits.

    An item, or a batch with B in front, holds
    `z` float32 (L, Z), `next_z` float32 (L, Z): the latent before and after each action;
    `action` float32 (L, A), or int64 (L,) for discrete actions; `reward` float32 (L,);
    `terminated` bool (L,): whether that action ended the episode.

    Episodes with fewer than `length` actions hold no window and are counted in `num_short_episodes`.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        length: int,
        sample: bool = True,
        seed: int = 0,
        split: str = "all",
        holdout_every: int = 10,
    ) -> None:
        """Read the latents at `path`; `split` is "all", "train" or "held-out" (every `holdout_every`-th episode).

        Raises NotADataset if they are no latents, DatasetTooSmall if no window fits, ConfigError for an unknown split.
        """
        if length < 1:
            raise ConfigError(f"a window needs at least one transition, got length {length}")
        if seed < 0:
            raise ConfigError(f"the seed must be at least 0, got {seed}")
        self.path, self.length, self.sample, self.seed = Path(path), length, sample, seed
        self._columns, ep_len, ep_offset = _load(self.path, _episode_filter(split, holdout_every))
        windows_per_episode = np.maximum(ep_len - length, 0)
        self.num_short_episodes = int((windows_per_episode == 0).sum())
        self._starts = np.concatenate(
            [np.arange(offset, offset + count) for offset, count in zip(ep_offset, windows_per_episode, strict=True)]
            or [np.zeros(0, dtype=np.int64)]
        )
        if not len(ep_len):
            raise DatasetTooSmall(f"{self.path}: no episode is in the split {split!r}; collect more, or lower holdout_every")
        if not len(self._starts):
            raise DatasetTooSmall(
                f"{self.path}: no episode ({split}) has {length} actions (the longest has {max(ep_len) - 1}); "
                "ask for a shorter window, or collect longer episodes"
            )
        self._generator: torch.Generator | None = None

    @property
    def latent_dim(self) -> int:
        """Z"""
        return self._columns["mu"].shape[1]

    @property
    def num_actions(self) -> int | None:
        """A for continuous actions, None for discrete ones."""
        return self._columns["action"].shape[1] if self._columns["action"].ndim == 2 else None

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Window:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return {name: column[0] for name, column in self.batch(np.array([index])).items()}

    def batch(self, indices: np.ndarray, generator: torch.Generator | None = None) -> Window:
        """Many windows at once, in one gather: every tensor has B = len(indices) in front."""
        rows_BL = torch.from_numpy(self._starts[indices][:, None] + np.arange(self.length + 1))
        z = self._latents(rows_BL, generator or self._own_generator())
        acted = rows_BL[:, :-1]
        others = {name: self._columns[name][acted] for name in ("action", "reward", "terminated")}
        return {"z": z[:, :-1], "next_z": z[:, 1:], **others}

    def sample_batch(self, batch_size: int, generator: torch.Generator | None = None) -> Window:
        """A batch of windows drawn uniformly with replacement: the fast way to train."""
        generator = generator or self._own_generator()
        indices = torch.randint(len(self), (batch_size,), generator=generator)
        return self.batch(indices.numpy(), generator)

    def _latents(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        mu = self._columns["mu"][rows]
        if not self.sample:
            return mu
        noise = torch.randn(mu.shape, generator=generator)
        return torch.addcmul(mu, torch.exp(0.5 * self._columns["logvar"][rows]), noise)

    def _own_generator(self) -> torch.Generator:
        """This process's generator: seeded by `seed`, and in a DataLoader worker by the worker's own seed.

        Without the latter, forked workers would all draw the same noise.
        """
        worker = get_worker_info()
        seed = self.seed if worker is None else worker.seed
        if self._generator is None or self._generator.initial_seed() != seed:
            self._generator = torch.Generator().manual_seed(seed)
        return self._generator

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_generator": None}


def _refuse_nan(shard: Shard, columns: dict[str, np.ndarray], ep_len: np.ndarray) -> None:
    """Raise ShardDamaged if NaN or infinity stands anywhere but in an episode's last action and reward."""
    acted = np.ones(len(columns["reward"]), dtype=bool)
    acted[np.cumsum(ep_len) - 1] = False
    for name, rows in columns.items():
        data = rows[acted] if name in ("action", "reward") else rows
        if not np.isfinite(data).all():
            raise ShardDamaged(f"{shard.source}: {name} is NaN or infinite where data should be; restore it, or encode again")


def _episode_filter(split: str, holdout_every: int) -> Callable[[int], bool]:
    filters: dict[str, Callable[[int], bool]] = {
        "all": lambda _: True,
        "train": lambda episode: not is_held_out(episode, holdout_every),
        "held-out": lambda episode: is_held_out(episode, holdout_every),
    }
    if holdout_every < 2:
        raise ConfigError(f"holdout_every must be at least 2, got {holdout_every}")
    if split not in filters:
        raise ConfigError(f"unknown split {split!r}: expected one of {', '.join(filters)}")
    return filters[split]


def _load(path: Path, wanted: Callable[[int], bool]) -> tuple[dict[str, torch.Tensor], np.ndarray, np.ndarray]:
    """The columns of all wanted episodes end to end, their lengths and their first rows."""
    dataset = require_format(path, LATENTS)
    names = ("mu", "logvar", "action", "reward", "terminated")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    lengths: list[np.ndarray] = []
    for entry in dataset.entries:
        with dataset.open_shard(entry) as shard:
            keep = np.array([wanted(int(episode)) for episode in shard.episode_ids])
            rows = np.repeat(keep, shard.ep_len)
            lengths.append(shard.ep_len[keep])
            for name in names:
                parts[name].append(shard.rows(name)[rows])
            _refuse_nan(shard, {name: arrays[-1] for name, arrays in parts.items()}, shard.ep_len[keep])
    columns = {name: torch.from_numpy(np.concatenate(arrays)) for name, arrays in parts.items()}
    for name in ("mu", "logvar"):
        columns[name] = columns[name].float()
    ep_len = np.concatenate(lengths).astype(np.int64)
    return columns, ep_len, np.cumsum(ep_len) - ep_len
