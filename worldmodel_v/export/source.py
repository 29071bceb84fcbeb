"""The dataset that is exported: its facts, known before anything is written, and its episodes, one in memory at a time.

Legend: E episodes, T actions of an episode (so T + 1 rows), A action size.
"""

from collections.abc import Iterator

import numpy as np

from worldmodel_v.errors import StaleLatents
from worldmodel_v.progress import Progress
from worldmodel_v.records import Episode
from worldmodel_v.storage import Dataset, Location, Shard, open_dataset, require_format


class Source:
    """A dataset whose every shard was found to be what the index says, with a table of its episodes."""

    def __init__(self, path: Location, reads: tuple[str, ...], progress: Progress) -> None:
        """Open the dataset at `path`, of one of the formats `reads`.

        Raises NotADataset or DatasetTooSmall; ShardDamaged if a shard's SHA-256 is not the index's; StaleLatents if a
        shard of latents was made by another VAE than the dataset.
        """
        found = open_dataset(path, reads[0] if len(reads) == 1 else None)
        self.dataset: Dataset = require_format(path, found.format if found.format in reads else reads[0])
        schema = self.dataset.schema
        self.schema, self.state_names, self.actions_space = schema, schema.state_names, schema.actions
        tables: list[tuple[np.ndarray, ...]] = []
        self.policies: list[str] = []
        task = progress.task("verify", len(self.dataset.entries), "shards")
        for shard in self._verified_shards():
            self.policies += shard.policies
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

    def _verified_shards(self) -> Iterator[Shard]:
        vae_sha256 = self.dataset.spec.get("vae_sha256")
        for entry in self.dataset.entries:
            with self.dataset.open_verified(entry) as shard:
                if shard.attributes.get("vae_sha256") != vae_sha256:
                    path = self.dataset.shard_path(entry)
                    raise StaleLatents(f"{path}: was not made by the VAE that dataset.json names; encode into a new directory")
                yield shard
