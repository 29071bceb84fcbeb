"""What a new dataset is to hold, before any of it is written: its episodes, its settings, its shards.

A shard of a source that is chosen as a whole becomes a shard of its own. Episodes of shards that are chosen in part are put
together into new shards, in their order. So there are never more shards than in the sources.

The plan follows from the sources' indexes and from what was asked for. Both are in the new dataset's settings, so a rerun plans
the same shards, and continues.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.origins import Original
from worldmodel_v.progress import Progress
from worldmodel_v.selection.agreement import merge_originals, merged_spec
from worldmodel_v.selection.choice import Choice, choose
from worldmodel_v.selection.condition import ENDINGS
from worldmodel_v.selection.episodes import EpisodeTable, Source, list_episodes
from worldmodel_v.spec import LatentSpec, RolloutSpec
from worldmodel_v.storage.dataset import MAX_SPEC_BYTES
from worldmodel_v.words import are, counted


@dataclass(frozen=True)
class PlannedShard:
    """A shard of the new dataset."""

    number: int
    first_episode: int

    places: np.ndarray
    """int64 (n,): its episodes, by their places in the table."""

    is_whole: bool
    """Whether they are all episodes of one shard of a source."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A new dataset."""

    datasets: Sequence[Source]
    """The sources."""

    table: EpisodeTable
    """All of their episodes."""

    places: np.ndarray
    """int64 (n,): the chosen episodes, by their places in the table."""

    spec: RolloutSpec | LatentSpec
    shards: Sequence[PlannedShard]


def make_plan(datasets: Sequence[Source], choice: Choice, record: dict[str, Any], progress: Progress) -> Plan:
    """The dataset of the chosen episodes; the datasets agree (`require_agreement`). `record` is the choice for `dataset.json`.

    Opens every shard. Raises DatasetNotUsable if an episode is in two of the datasets, or as `choose` and `merged_spec` do;
    ConfigError if the condition asks for a return that is not there; ShardDamaged.
    """
    all_originals, numbers = merge_originals(datasets)
    condition = choice.condition
    if condition is not None and "return" in condition.names and datasets[0].schema["reward"].absent:
        raise ConfigError("asks for the return, and nobody recorded rewards", field="where", got=condition.text)
    endings = [name for name in ENDINGS if condition is not None and name in condition.names]
    table = list_episodes(datasets, numbers, endings, progress)
    places = choose(table, choice)
    _refuse_twice(datasets, table, places, all_originals)
    table, originals = _with_used_alone(table, places, all_originals)
    used = [datasets[source] for source in np.unique(table.source[places]).tolist()]
    spec = merged_spec(datasets, used, originals, record)
    if len(json.dumps(spec.to_json(), indent=2)) >= MAX_SPEC_BYTES:
        raise DatasetNotUsable(
            f"the settings of {len(originals)} collections do not fit into one dataset.json", remedy="merge fewer at once"
        )
    return Plan(datasets=datasets, table=table, places=places, spec=spec, shards=list(_shards(datasets, table, places)))


def by_shard(table: EpisodeTable, places: np.ndarray) -> list[np.ndarray]:
    """The places, apart for each shard of a source."""
    changes = (np.diff(table.source[places]) != 0) | (np.diff(table.shard[places]) != 0)
    return np.split(places, np.flatnonzero(changes) + 1)


def _refuse_twice(datasets: Sequence[Source], table: EpisodeTable, places: np.ndarray, originals: Sequence[Original]) -> None:
    """Raise DatasetNotUsable if one episode of one collection is chosen from two datasets, or one that only lies in shards of
    another size: of collections that differ in nothing else, episodes of one number, length and return are the same."""
    settings = [json.dumps(original["settings"] | {"episodes_per_shard": None}, sort_keys=True) for original in originals]
    alike = np.array([settings.index(each) for each in settings])
    origin, episode = table.origin[places], table.origin_episode[places]
    found = (table.num_rows[places], table.returns[places].view(np.int64))
    for facts in ((origin, episode), (alike[origin], episode, *found)):
        keys = np.stack(facts, axis=1)
        kinds, counts = np.unique(keys, axis=0, return_counts=True)
        if not (twice := kinds[counts > 1]).size:
            continue
        spec_hash = originals[twice[0, 0]]["spec_hash"]
        paths = [str(datasets[source].path) for source in table.source[places[(keys == twice[0]).all(axis=1)]].tolist()]
        raise DatasetNotUsable(
            f"{counted(len(twice), 'episode')} {are(len(twice))} chosen twice, such as episode {twice[0, 1]} of the collection "
            f"{spec_hash[:12]}…, which is in {' and in '.join(paths)}",
            remedy="name each dataset once, or choose other parts of them with wm-select",
        )


def _with_used_alone(
    table: EpisodeTable, places: np.ndarray, originals: Sequence[Original]
) -> tuple[EpisodeTable, list[Original]]:
    """The original datasets that the chosen episodes come from, and the table with their numbers in this list."""
    used = np.unique(table.origin[places])
    numbers = np.full(len(originals), -1)
    numbers[used] = np.arange(len(used))
    return dataclasses.replace(table, origin=numbers[table.origin]), [originals[number] for number in used.tolist()]


def _shards(datasets: Sequence[Source], table: EpisodeTable, places: np.ndarray) -> Iterator[PlannedShard]:
    """The shards: whole ones of the sources as they are; the rest in their order, at most as many as the largest has."""
    most = max(entry.num_episodes for dataset in datasets for entry in dataset.entries)
    number = first_episode = 0
    for group, is_whole in _groups(datasets, table, places, most):
        yield PlannedShard(number, first_episode, group, is_whole)
        number, first_episode = number + 1, first_episode + len(group)


def _groups(
    datasets: Sequence[Source], table: EpisodeTable, places: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, bool]]:
    waiting: list[int] = []
    for group in by_shard(table, places):
        entry = datasets[table.source[group[0]]].entries[table.shard[group[0]]]
        if is_whole := len(group) == entry.num_episodes:
            if waiting:
                yield np.array(waiting), False
                waiting = []
            yield group, is_whole
            continue
        waiting += group.tolist()
        while len(waiting) >= most:
            yield np.array(waiting[:most]), False
            waiting = waiting[most:]
    if waiting:
        yield np.array(waiting), False
