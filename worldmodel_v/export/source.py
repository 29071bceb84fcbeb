"""The dataset to export: its facts, which are known before anything is written, and its episodes, one in memory at a time.

Legend: E episodes, T actions of an episode (so T + 1 rows), A action size.
"""

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import numpy as np

from worldmodel_v.progress import Progress
from worldmodel_v.records import Episode, Origin
from worldmodel_v.spec import Spec
from worldmodel_v.storage import Dataset, Location, require_dataset

S = TypeVar("S", bound=Spec)


class Source(Generic[S]):
    """A dataset with a table of its episodes; every shard was verified against the index."""

    def __init__(self, path: Location, reads: tuple[type[Any], ...], progress: Progress) -> None:
        """Open the dataset at `path`, of one of the kinds `reads`.

        Raises DatasetNotUsable, also if a shard of latents was made by another VAE than the dataset; ShardDamaged if a shard's
        SHA-256 is not the index's.
        """
        self.dataset: Dataset[S] = require_dataset(path, *reads)
        schema = self.dataset.schema
        self.schema, self.state_names, self.actions_space = schema, schema.state_names, schema.actions
        tables: list[tuple[np.ndarray, ...]] = []
        self.policies: list[str] = []
        self.origins: list[Origin | None] = []
        """Where each episode was selected from, if it was."""
        task = progress.task("verify", len(self.dataset.entries), "shards")
        for entry in self.dataset.entries:
            with self.dataset.open_own(entry) as shard:
                self.policies += shard.policies
                self.origins += shard.origins or [None] * shard.num_episodes
                ended = shard.rows("terminated")[shard.ep_offset + shard.ep_len - 2]
                tables.append((shard.ep_len.astype(np.int64) - 1, shard.episode_ids, shard.seeds, ended))
            task.advance()
        task.close()
        self.num_steps, self.episode_ids, self.seeds, self.terminated = map(np.concatenate, zip(*tables, strict=True))
        """int64 (E,) T of each episode; int64 (E,); int64 (E,); bool (E,) whether it ended terminated."""

    @property
    def num_episodes(self) -> int:
        return len(self.num_steps)

    @property
    def num_rows(self) -> int:
        return int(self.num_steps.sum()) + self.num_episodes

    def episodes(self, keep: np.ndarray | None = None) -> Iterator[Episode]:
        """The episodes in order, or those that `keep`, bool (E,), picks; raises ShardDamaged or EpisodeFailed."""
        position = 0
        for _, shard in self.dataset.shards():
            for in_shard in range(shard.num_episodes):
                if keep is None or keep[position]:
                    yield shard.episode(in_shard)
                position += 1

    def actions(self, episode: Episode) -> np.ndarray:
        """The actions of an episode as vectors: float32 (T, A), one-hot if they are discrete."""
        return self.actions_space.vectors(episode.action[:-1])

    @property
    def action_size(self) -> int:
        """A of `actions`."""
        return self.actions_space.vector_size

    @property
    def latent_dim(self) -> int:
        """Z of latents."""
        return self.schema["mu"].row_shape[0]
