"""Several datasets of rollouts, read as the one dataset that `wm-select` would write of them, without writing it.

Its settings, their hash, the numbers of its episodes and the order of its frames are those of that dataset. So a training holds
out the same episodes and gives the same weights, and the latents have the same bytes.

What it costs: every shard is opened once, which takes 2 ms each. A training then reads chunks from the datasets' own files.
Encoding records the SHA-256 of each rollout shard, so it puts together the bytes that `wm-select` would publish, one shard at a
time: chunks are copied as they are compressed.
Rejected: the SHA-256 of the datasets' own shards, by which latents of several datasets and of their merge would differ.
"""

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from worldmodel_v.notebook import shown
from worldmodel_v.progress import Progress
from worldmodel_v.records import Origin
from worldmodel_v.selection.agreement import require_agreement
from worldmodel_v.selection.choice import Choice
from worldmodel_v.selection.plan import Plan, PlannedShard, make_plan
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import (
    Dataset,
    IndexEntry,
    Location,
    OpenFile,
    Place,
    Rollouts,
    SetAside,
    Shard,
    copy_shard,
    require_dataset,
    to_places,
)

TOGETHER = " + "
"""Between the paths, where a message names all."""


@dataclass(frozen=True)
class SourceShard:
    """Where a shard is read from."""

    dataset: Rollouts
    entry: IndexEntry

    origins: np.ndarray
    """int64 (E, 2): of each episode its place in the list of collections, and its number there."""

    def origins_of_episodes(self) -> list[Origin]:
        return [Origin(*pair) for pair in self.origins.tolist()]


@dataclass(frozen=True, repr=False, eq=False)
class Several(Dataset[RolloutSpec]):
    """Datasets as one. `path` is that of the first; an entry's bytes and SHA-256 are those of the file that it is read from."""

    sources: tuple[SourceShard, ...]
    """For each entry, by its number."""

    paths: tuple[Place, ...]
    """Of the datasets, in their order."""

    _hashes: dict[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """All paths."""
        return TOGETHER.join(map(str, self.paths))

    @property
    def is_remote(self) -> bool:
        """Whether one of them is read from a URL."""
        return any(source.dataset.is_remote for source in self.sources)

    def set_aside(self) -> list[SetAside]:
        """None: what failed in a collection is no part of what is selected from it."""
        return []

    def shard_path(self, entry: IndexEntry) -> Place:
        """Where the file is that a shard is read from."""
        source = self.sources[entry.shard]
        return source.dataset.shard_path(source.entry)

    def open_file(self, entry: IndexEntry) -> OpenFile:
        """That file; raises as `Dataset.open_file`."""
        source = self.sources[entry.shard]
        return source.dataset.open_file(source.entry)

    def open_shard(self, entry: IndexEntry, image: bytes | None = None) -> Shard:
        """A shard with the numbers that its episodes have here; raises ShardDamaged."""
        if image is not None:
            return super().open_shard(dataclasses.replace(entry, bytes=len(image)), image)
        source = self.sources[entry.shard]
        return source.dataset.open_shard(source.entry).numbered(entry.first_episode, source.origins_of_episodes())

    def open_verified(self, entry: IndexEntry) -> Shard:
        """The same from memory, after a check of the file's SHA-256; raises ShardDamaged."""
        return self.open_shard(entry, self.image(entry))

    def image(self, entry: IndexEntry) -> bytes:
        """The bytes that `wm-select` would publish; raises ShardDamaged if the file's SHA-256 differs from its index."""
        source = self.sources[entry.shard]
        with source.dataset.open_verified(source.entry) as shard:
            origins = source.origins_of_episodes()
            image = copy_shard(shard, first_episode=entry.first_episode, origins=origins, spec_hash=self.spec_hash)
        self._hashes[entry.shard] = hashlib.sha256(image).hexdigest()
        return image

    def hashed(self, entry: IndexEntry) -> IndexEntry:
        """The entry with the SHA-256 of `image`, which is made for that unless it was made before."""
        if entry.shard not in self._hashes:
            self.image(entry)
        return dataclasses.replace(entry, sha256=self._hashes[entry.shard])


def open_rollouts(data: Location | Iterable[Location], progress: Progress | None = None) -> Rollouts:
    """One or several datasets of rollouts, at paths or URLs, as one: their episodes are numbered in the order given.

    Raises as `require_dataset`; DatasetNotUsable if several do not agree in what a row means, or if an episode is in two of
    them; ShardDamaged.
    """
    paths = to_places(data)
    datasets = [require_dataset(path, RolloutSpec) for path in paths]
    if len(datasets) == 1:
        return datasets[0]
    require_agreement(datasets, remedy="give datasets that agree in them")
    plan = make_plan(datasets, Choice(), {}, shown(progress))
    assert isinstance(plan.spec, RolloutSpec), "all sources are rollouts"
    sources = tuple(_source(plan, planned) for planned in plan.shards)
    entries = tuple(_entry(planned, source) for planned, source in zip(plan.shards, sources, strict=True))
    return Several(paths[0], plan.spec, entries, sources, paths)


def _source(plan: Plan, planned: PlannedShard) -> SourceShard:
    table, places = plan.table, planned.places
    dataset = plan.datasets[table.source[places[0]]]
    origins = np.stack([table.origin[places], table.origin_episode[places]], axis=1)
    return SourceShard(dataset, dataset.entries[table.shard[places[0]]], origins)


def _entry(planned: PlannedShard, source: SourceShard) -> IndexEntry:
    return dataclasses.replace(source.entry, shard=planned.number, first_episode=planned.first_episode)
