"""Which episodes are held out: every k-th, by its number in the collection that made it.

Episodes are independent draws, so any fixed choice of numbers is as random as another. This choice needs no file, is the
same in training, evaluation and the MDN-RNN, and does not change when a dataset is extended. The split is by episode
because neighbouring frames are nearly equal: a split by frame would test on the training set.

`wm-select` gives episodes new numbers. The number in the collection stays, so an episode is on the same side in every
selection, and in the latents of each. What this costs: a selection may hold out more or fewer than one in k. Rejected: the new
numbers, by which an autoencoder could be tested on episodes that it was trained on.
"""

from typing import Any

from worldmodel_v.errors import ConfigError, DatasetNotUsable, ShardDamaged
from worldmodel_v.origins import collections_of, is_selected
from worldmodel_v.spec import LatentSpec
from worldmodel_v.storage import Dataset, Latents, Location
from worldmodel_v.surface import option
from worldmodel_v.words import counted, ordinal


class Split:
    """The two sides of a dataset. It holds no open file, and can be sent to a worker."""

    def __init__(self, dataset: Dataset[Any], holdout_every: int) -> None:
        """Opens every shard of a dataset that was selected (2 ms each), else none; raises ShardDamaged."""
        self.holdout_every = holdout_every
        self._dataset = dataset
        self._numbers = _numbers_before_selection(dataset) if is_selected(dataset.spec) else None

    def is_held_out(self, episode_id: int) -> bool:
        """Whether the episode of this number in the dataset is held out."""
        return is_held_out(episode_id if self._numbers is None else self._numbers[episode_id], self.holdout_every)

    def is_trained_on(self, episode_id: int) -> bool:
        """Whether the episode of this number in the dataset is not held out."""
        return not self.is_held_out(episode_id)

    def require_both(self) -> None:
        """Raise DatasetNotUsable if one side would have no episode."""
        if self._numbers is None:
            require_split(self._dataset.path, self._dataset.num_episodes, self.holdout_every)
            return
        held_out = sum(map(self.is_held_out, self._numbers))
        if held_out in (0, len(self._numbers)):
            raise DatasetNotUsable(
                f"is made of other datasets; with every {ordinal(self.holdout_every)} episode of those held out, "
                f"{held_out} of its {len(self._numbers)} episodes are, and both sides need some",
                where=self._dataset.name,
                remedy=f"choose another {option('holdout_every')}, or give more episodes",
            )


def is_held_out(episode_id: int, holdout_every: int) -> bool:
    """Whether an episode is held out: numbers k - 1, 2k - 1, 3k - 1, … for `holdout_every` = k."""
    return episode_id % holdout_every == holdout_every - 1


def require_split(path: Location, num_episodes: int, holdout_every: int) -> None:
    """Raise DatasetNotUsable if one side of the split would have no episode."""
    if num_episodes < holdout_every or num_episodes < 2:
        raise DatasetNotUsable(
            f"has {counted(num_episodes, 'episode')}; holding out every {ordinal(holdout_every)} needs at least "
            f"{max(2, holdout_every)}",
            where=path,
            remedy=f"collect more, or lower {option('holdout_every')} (2 or more)",
        )


def choose_holdout(asked: int | None, latents: Latents) -> int:
    """The k that latents record, or the one that is asked for if they record none, or if their VAE saw none of their episodes.

    Raises ConfigError if there is none, or if by the one asked for episodes that the VAE was trained on would be held out.
    """
    spec: LatentSpec = latents.spec
    recorded = spec.holdout_every
    every = recorded if asked is None else asked
    if every is None:
        raise ConfigError(
            f"{latents.path} does not say which episodes the training of its VAE held out",
            field="holdout_every",
            remedy="give that of the training",
        )
    if recorded not in (None, every) and not {*spec.trained_on}.isdisjoint(collections_of(spec)):
        raise ConfigError(
            f"the VAE of {latents.path} was trained on these episodes with every {ordinal(recorded)} held out, so others are "
            "no test",
            field="holdout_every",
            got=every,
            remedy="leave it out",
        )
    return every


def _numbers_before_selection(dataset: Dataset[Any]) -> dict[int, int]:
    """Each episode's number in its collection."""
    numbers: dict[int, int] = {}
    for entry, shard in dataset.shards():
        if shard.origins is None:
            what = "does not say of each episode where it was selected from"
            raise ShardDamaged(what, where=dataset.shard_path(entry), remedy="restore it from a copy")
        numbers |= zip(shard.episode_ids.tolist(), (origin.episode for origin in shard.origins), strict=True)
    return numbers
