"""Recorded episodes for the page: which ones, how much of each, and what the autoencoder makes of them.

Legend: T rows, A action, H, W, K size of the condition.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from worldmodel_v.autoencoders.artifact import Training
from worldmodel_v.data import Split
from worldmodel_v.evaluation.coder import Coder
from worldmodel_v.evaluation.conditions import condition_rows
from worldmodel_v.evaluation.sample import as_seen, has_trained_on
from worldmodel_v.evenly import evenly_spaced
from worldmodel_v.progress import Progress
from worldmodel_v.storage import Rollouts, Shard
from worldmodel_v.view.packing import numbers, strips

Kind = Literal["held out", "trained on", "not from its training"]
"""What an episode was in the training of the autoencoder; the last is for other rollouts than those that it was trained on."""


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """The first rows of an episode, and what the autoencoder makes of them."""

    episode: int
    kind: Kind
    num_rows: int
    """Of the whole episode."""

    frames: np.ndarray
    """uint8 (T, H, W, 3), as the autoencoder sees them."""

    decoded: np.ndarray
    """uint8 (T, H, W, 3)"""

    latents: Mapping[str, np.ndarray]
    """By column: (T, …)."""

    action: np.ndarray
    """float32 (T, A), or whole numbers (T, A); the last row of an episode has no action."""

    reward: np.ndarray
    """float32 (T,); NaN where there is none."""

    terminated: bool
    truncated: bool
    """How the whole episode ended."""

    condition: np.ndarray
    """float32 (T, K)"""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def errors(self) -> np.ndarray:
        """Root mean square difference of each frame in grey levels: float64 (T,)."""
        difference = self.frames.astype(np.float32) - self.decoded
        return np.sqrt(np.square(difference).mean(axis=(1, 2, 3)))

    def first(self, rows: int) -> "Excerpt":
        """Its first rows alone."""
        by_row = {name: getattr(self, name)[:rows] for name in ("frames", "decoded", "action", "reward", "condition")}
        return replace(self, **by_row, latents={name: values[:rows] for name, values in self.latents.items()})

    def for_page(self, fill: float, *, with_decoded: bool) -> dict[str, Any]:
        """The frames and figures as text; `fill` is the value of an action that was not taken. A page that runs the decoder
        needs no decoded frames."""
        is_whole = len(self) == self.num_rows
        ending = "terminated" if self.terminated else "truncated" if self.truncated else "open"
        return {
            "episode": self.episode,
            "kind": self.kind,
            "rows": len(self),
            "allRows": self.num_rows,
            "ending": ending if is_whole else "cut",
            "recorded": strips(self.frames),
            "decoded": strips(self.decoded) if with_decoded else [],
            "error": numbers(self.errors),
            "action": numbers(np.where(self.action == fill, np.nan, self.action.astype(np.float32))),
            "reward": numbers(self.reward),
        }


def read_excerpts(
    dataset: Rollouts, coder: Coder, kind_of: Callable[[int], Kind], num_episodes: int, num_frames: int, progress: Progress
) -> list[Excerpt]:
    """At most so many episodes, those first that were not trained on, and frames in all; raises ShardDamaged or
    ModelNotUsable."""
    chosen = choose_episodes(dataset, kind_of, num_episodes)
    lengths = {episode: _num_rows(dataset, episode) for episode in chosen}
    rows = shares(lengths, num_frames)
    task = progress.task("decode", sum(rows.values()), "frames")
    excerpts = []
    for episode in chosen:
        excerpts.append(_read(dataset, episode, rows[episode], coder, kind_of(episode)))
        task.advance(rows[episode])
    task.close()
    return excerpts


def kinds(dataset: Rollouts, training: Training) -> Callable[[int], Kind]:
    """What each episode of a dataset was in a training."""
    if not has_trained_on(training, dataset):
        return lambda episode: "not from its training"
    split = Split(dataset, training.holdout_every)
    return lambda episode: "held out" if split.is_held_out(episode) else "trained on"


def choose_episodes(dataset: Rollouts, kind_of: Callable[[int], Kind], wanted: int) -> list[int]:
    """Numbers of episodes, evenly spaced over those that were not trained on, then over the others."""
    everyone = [episode for entry in dataset.entries for episode in range(entry.first_episode, entry.end_episode)]
    unseen = [episode for episode in everyone if kind_of(episode) != "trained on"]
    seen = [episode for episode in everyone if kind_of(episode) == "trained on"]
    chosen = [unseen[i] for i in evenly_spaced(len(unseen), wanted)]
    return [*chosen, *(seen[i] for i in evenly_spaced(len(seen), wanted - len(chosen)))]


def shares(lengths: Mapping[int, int], total: int) -> dict[int, int]:
    """How many rows of each episode are shown: equally many, but what short episodes leave goes to longer ones."""
    left, rows = total, {}
    for done, (episode, length) in enumerate(sorted(lengths.items(), key=lambda item: item[1])):
        rows[episode] = min(length, left // (len(lengths) - done))
        left -= rows[episode]
    return {episode: rows[episode] for episode in lengths}


def shortened(excerpts: Sequence[Excerpt], share: float) -> list[Excerpt]:
    """The same with this share of their frames in all."""
    lengths = {excerpt.episode: len(excerpt) for excerpt in excerpts}
    rows = shares(lengths, int(share * sum(lengths.values())))
    return [excerpt.first(rows[excerpt.episode]) for excerpt in excerpts]


def _shard_of(dataset: Rollouts, episode: int) -> Shard:
    entry = next(each for each in dataset.entries if each.first_episode <= episode < each.end_episode)
    return dataset.open_shard(entry)


def _place(shard: Shard, episode: int) -> tuple[int, int]:
    """Where an episode begins in its shard, and how many rows it has."""
    position = shard.episode_ids.tolist().index(episode)
    return int(shard.ep_offset[position]), int(shard.ep_len[position])


def _num_rows(dataset: Rollouts, episode: int) -> int:
    with _shard_of(dataset, episode) as shard:
        return _place(shard, episode)[1]


def _read(dataset: Rollouts, episode: int, rows: int, coder: Coder, kind: Kind) -> Excerpt:
    with _shard_of(dataset, episode) as shard:
        start, length = _place(shard, episode)
        stop = start + rows
        frames, condition = shard.rows("pixels", start, stop), condition_rows(shard, coder.model, start, stop)
        latents = coder.encode(frames, condition)
        return Excerpt(
            episode=episode,
            kind=kind,
            num_rows=length,
            frames=as_seen(frames, coder.model),
            decoded=coder.decode(latents, condition),
            latents=latents,
            action=shard.rows("action", start, stop).reshape(rows, -1),
            reward=_reward(shard, start, stop),
            terminated=bool(shard.rows("terminated", start, start + length).any()),
            truncated=bool(shard.rows("truncated", start, start + length).any()),
            condition=condition,
        )


def _reward(shard: Shard, start: int, stop: int) -> np.ndarray:
    columns = shard.schema.by_role("reward")
    return shard.rows(columns[0].name, start, stop) if columns else np.full(stop - start, np.nan, np.float32)
