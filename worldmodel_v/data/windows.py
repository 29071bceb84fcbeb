"""Which windows the episodes of a latent dataset hold, and on which rows they lie: a table of a few bytes an episode.

Legend: E episodes, B windows, L window length in transitions; T actions of an episode, which is T + 1 rows.

A window is L transitions inside one episode: rows t to t + L, for t = 0, stride, 2 stride, … as long as it fits. With
padding, the last window of an episode is the first that reaches its end, and may reach beyond. So no transition is left out
(for a stride of at most L), and an episode shorter than a window is one window. Without a length, each episode is one window.

Windows are numbered in the order of episodes and t, and a window's rows are computed from its number: a list of all starts
would take 80 MB for the paper's 10 million rows, in each worker of a DataLoader.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Ge

from worldmodel_v.data.split import Split, choose_holdout
from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.schema import ActionSpace, Schema
from worldmodel_v.settings import require_settings
from worldmodel_v.spec import LatentSpec
from worldmodel_v.storage import IndexEntry, Latents, Place, require_dataset
from worldmodel_v.surface import option

SPLITS = ("all", "train", "held-out")


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Which windows are wanted, and how; raises ConfigError if a setting is not valid."""

    length: int | None
    stride: Annotated[int, Ge(1)]
    pad: bool
    split: str
    holdout_every: Annotated[int | None, Ge(2)] = None

    sample: bool = True
    """Whether latents are drawn, or are their distribution's mean."""

    def __post_init__(self) -> None:
        require_settings(self)
        if self.length is not None and self.length < 1:
            raise ConfigError("a window needs at least one transition", field="length", got=self.length)
        if self.length is None and (self.stride, self.pad) != (1, False):
            raise ConfigError("length None means whole episodes, which have no stride and no pad: leave both out")
        if self.split not in SPLITS:
            raise ConfigError(field="split", expected=f"one of {', '.join(SPLITS)}", got=self.split)

    def num_windows(self, num_steps_E: np.ndarray) -> np.ndarray:
        """int64 (E,): how many windows episodes of so many actions hold."""
        if self.length is None:
            return np.ones_like(num_steps_E)
        if self.pad:
            to_the_end = 1 + np.maximum(_ceil_div(num_steps_E - self.length, self.stride), 0)
            return np.minimum(to_the_end, _ceil_div(num_steps_E, self.stride))
        return np.maximum((num_steps_E - self.length) // self.stride + 1, 0)


class Places(NamedTuple):
    """Where B windows are."""

    episode: np.ndarray
    """int64 (B,): which of the table's episodes."""

    t: np.ndarray
    """int64 (B,): the row in it where the window begins."""

    num_steps: np.ndarray
    """int64 (B,): how many transitions it has, at most L."""

    length: int
    """L; for whole episodes, that of the longest of them."""


@dataclass(frozen=True)
class WindowTable:
    """The wanted episodes of a latent dataset and their windows. It holds no open file, and is small enough to send."""

    dataset: Latents
    settings: WindowSettings

    entries: tuple[IndexEntry, ...]
    """The shards that hold wanted episodes."""

    shards: np.ndarray
    """int64 (E,): which of `entries` holds each episode."""

    offsets: np.ndarray
    """int64 (E,): the episode's first row there."""

    num_steps: np.ndarray
    """int64 (E,): T."""

    wants: Callable[[int], bool]
    """Whether the episode of this number is wanted."""

    @property
    def schema(self) -> Schema:
        return self.dataset.schema

    @property
    def length(self) -> int:
        """L; for whole episodes, that of the longest episode."""
        return self.settings.length or int(self.num_steps.max())

    @property
    def num_short_episodes(self) -> int:
        """Episodes that hold no window."""
        return int((self.counts == 0).sum())

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 (E,): windows of each episode."""
        return self.settings.num_windows(self.num_steps)

    @cached_property
    def ends(self) -> np.ndarray:
        """int64 (E,): one past the number of each episode's last window."""
        return np.cumsum(self.counts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def places(self, windows: np.ndarray) -> Places:
        """Where the windows with these numbers are."""
        episode = np.searchsorted(self.ends, windows, side="right")
        t = (windows - (self.ends - self.counts)[episode]) * self.settings.stride
        num_steps = self.num_steps[episode] - t
        if self.settings.length is None:
            return Places(episode, t, num_steps, int(num_steps.max(initial=0)))
        return Places(episode, t, np.minimum(num_steps, self.settings.length), self.settings.length)


class OverWindows:
    """The properties that both datasets of windows have."""

    _windows: WindowTable

    @property
    def num_short_episodes(self) -> int:
        """Episodes that hold no window."""
        return self._windows.num_short_episodes

    @property
    def schema(self) -> Schema:
        """What the latents hold."""
        return self._windows.schema

    @property
    def action_space(self) -> ActionSpace:
        """The space that the actions come from: how many there are, where they begin, and how they become vectors."""
        return self._windows.schema.actions


def find_windows(path: Place, settings: WindowSettings) -> WindowTable:
    """The windows of the latents at `path`, found by opening each shard once (2 ms).

    Raises DatasetNotUsable if they are no latents or hold no window, ShardDamaged.
    """
    dataset = require_dataset(path, LatentSpec)
    entries: list[IndexEntry] = []
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    episodes = {entry.shard: range(entry.first_episode, entry.end_episode) for entry in dataset.entries}
    wants = _wanted(dataset, settings)
    keep = {shard: np.array([wants(episode) for episode in numbers]) for shard, numbers in episodes.items()}
    for entry, shard in dataset.shards([entry for entry in dataset.entries if keep[entry.shard].any()]):
        offsets, num_steps = shard.ep_offset[keep[entry.shard]], shard.ep_len[keep[entry.shard]] - np.int64(1)
        parts.append((np.full(len(offsets), len(entries)), offsets, num_steps))
        entries.append(entry)
    if not parts:
        raise DatasetNotUsable(
            f"no episode is in the split {settings.split!r}",
            where=path,
            remedy=f"collect more, or lower {option('holdout_every')}",
        )
    shards, offsets, num_steps = (np.concatenate(part) for part in zip(*parts, strict=True))
    table = WindowTable(dataset, settings, tuple(entries), shards, offsets, num_steps, wants)
    if not len(table):
        raise DatasetNotUsable(
            f"no episode ({settings.split}) has {settings.length} actions (the longest has {table.num_steps.max()})",
            where=path,
            remedy=f"ask for a shorter window, set {option('pad')}, or collect longer episodes",
        )
    return table


def _wanted(dataset: Latents, settings: WindowSettings) -> Callable[[int], bool]:
    """Whether an episode is in the split; raises ConfigError if that is not known."""
    if settings.split == "all":
        return _any_episode
    split = Split(dataset, choose_holdout(settings.holdout_every, dataset))
    return split.is_held_out if settings.split == "held-out" else split.is_trained_on


def _any_episode(episode_id: int) -> bool:
    return True


def generator_of(*key: int) -> torch.Generator:
    """A generator seeded by whole numbers; other numbers give another generator."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


def _ceil_div(numerator: np.ndarray, denominator: int) -> np.ndarray:
    return -(-numerator // denominator)
