"""The table of all episodes of some datasets: what a condition may ask about them, and where they lie.

Legend: E episodes of all datasets together, in the order of the datasets and of their numbers.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldmodel_v.errors import ShardDamaged
from worldmodel_v.origins import is_selected
from worldmodel_v.progress import Progress
from worldmodel_v.records import Origin
from worldmodel_v.selection.condition import ENDINGS
from worldmodel_v.spec import LatentSpec, RolloutSpec
from worldmodel_v.storage import Dataset, IndexEntry, Shard

Source = Dataset[RolloutSpec] | Dataset[LatentSpec]


@dataclass(frozen=True, kw_only=True)
class EpisodeTable:
    """Each array is (E,)."""

    num_sources: int

    source: np.ndarray
    """int64: which of the datasets it is in."""

    shard: np.ndarray
    """int64: which of that dataset's `entries`."""

    position: np.ndarray
    """int64: its place in the shard."""

    episode: np.ndarray
    """int64: its number in that dataset."""

    origin: np.ndarray
    """int64: which of the merged list of original datasets it comes from."""

    origin_episode: np.ndarray
    """int64: its number there."""

    num_rows: np.ndarray
    """int64: T + 1."""

    returns: np.ndarray
    """float64"""

    seed: np.ndarray
    """int64"""

    policies: Sequence[str]

    endings: dict[str, np.ndarray]
    """bool: `terminated` and `truncated`, where they were asked for."""

    def facts(self, names: Collection[str]) -> Iterator[dict[str, Any]]:
        """For each episode, the facts of these names (those of `condition.KINDS`)."""
        columns: dict[str, Sequence[Any]] = {
            "episode": self.episode.tolist(),
            "return": self.returns.tolist(),
            "length": (self.num_rows - 1).tolist(),
            "seed": self.seed.tolist(),
            "policy": self.policies,
            "source": self.source.tolist(),
            **{name: ended.tolist() for name, ended in self.endings.items()},
        }
        for place in range(len(self.episode)):
            yield {name: columns[name][place] for name in names}

    def origin_of(self, place: int) -> Origin:
        """Where the episode at a place comes from."""
        return Origin(int(self.origin[place]), int(self.origin_episode[place]))


def list_episodes(
    datasets: Sequence[Source], origins: Sequence[Sequence[int]], endings: Collection[str], progress: Progress
) -> EpisodeTable:
    """Open every shard and list its episodes.

    `origins` has for each dataset the numbers of its own original datasets in the merged list. `endings` are the names of those
    that are needed: they have to be read from the rows. Raises ShardDamaged.
    """
    task = progress.task("read", sum(len(dataset.entries) for dataset in datasets), "shards")
    parts: list[dict[str, np.ndarray]] = []
    policies: list[str] = []
    names: dict[str, str] = {}
    for source, dataset in enumerate(datasets):
        for number, (entry, shard) in enumerate(dataset.shards()):
            parts.append(_of_shard(source, number, shard, _origins(dataset, entry, shard, origins[source]), endings))
            policies += [names.setdefault(policy, policy) for policy in shard.policies]
            task.advance()
    task.close()
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ended = {name: columns.pop(name) for name in ENDINGS if name in columns}
    return EpisodeTable(num_sources=len(datasets), **columns, policies=policies, endings=ended)


def _of_shard(source: int, number: int, shard: Shard, origins: np.ndarray, endings: Collection[str]) -> dict[str, np.ndarray]:
    count = shard.num_episodes
    lasts = shard.ep_offset + shard.ep_len - 2
    return {
        "source": np.full(count, source, np.int64),
        "shard": np.full(count, number, np.int64),
        "position": np.arange(count, dtype=np.int64),
        "episode": shard.episode_ids,
        "origin": origins[:, 0],
        "origin_episode": origins[:, 1],
        "num_rows": shard.ep_len.astype(np.int64),
        "returns": shard.returns,
        "seed": shard.seeds,
        **{name: shard.rows(name)[lasts] for name in endings},
    }


def _origins(dataset: Source, entry: IndexEntry, shard: Shard, numbers: Sequence[int]) -> np.ndarray:
    """int64 (n, 2): each episode's original dataset, in the merged list, and its number there."""
    if not is_selected(dataset.spec):
        return np.stack([np.full(shard.num_episodes, numbers[0]), shard.episode_ids], axis=1)
    if shard.origins is None or any(origin.dataset >= len(numbers) for origin in shard.origins):
        what = "does not say of each episode which of the datasets in dataset.json it was selected from"
        raise ShardDamaged(what, where=dataset.shard_path(entry), remedy="restore it from a copy")
    return np.array([(numbers[origin.dataset], origin.episode) for origin in shard.origins], np.int64)
