"""The whole run: list the episodes, choose, plan the shards, write those that are missing, commit each when it is done.

A shard of a source that is chosen as a whole becomes a shard of its own: its chunks are copied as they are stored, neither
decoded nor compressed again. It cannot be linked, because a shard carries its dataset's hash and the numbers of its episodes.
Episodes of shards that are chosen in part are read, checked and put together into new shards, in their order. So there are
never more shards than in the sources. Memory: the episodes of one shard.

The plan follows from the sources' indexes and from what was asked for. Both are in the new dataset's settings, so a rerun plans
the same shards, and continues.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.notebook import shown
from worldmodel_v.origins import Original
from worldmodel_v.progress import Progress, begin
from worldmodel_v.records import Episode
from worldmodel_v.selection.agreement import merge_originals, merged_spec, require_agreement
from worldmodel_v.selection.choice import choose
from worldmodel_v.selection.condition import ENDINGS
from worldmodel_v.selection.config import SelectConfig
from worldmodel_v.selection.episodes import EpisodeTable, Source, list_episodes
from worldmodel_v.spec import LatentSpec, RolloutSpec
from worldmodel_v.storage import DatasetWriter, Shard, build_shard, copy_shard, require_dataset
from worldmodel_v.storage.dataset import MAX_SPEC_BYTES
from worldmodel_v.telemetry import Tally


@dataclass(frozen=True, kw_only=True)
class SelectReport:
    """What a run of `select` found and did."""

    out: Path
    """The new dataset's directory."""

    episodes: int
    """Episodes in it."""

    chosen_from: int
    """Episodes in the datasets that were selected from."""

    rows: int
    """Rows in it: one more than the actions of each episode."""

    shards: int
    """Its shards."""

    copied_shards: int
    """Those of them whose chunks are a source's, as they were stored there."""

    new_episodes: int
    """Episodes that this run wrote; 0 if everything was there."""


@dataclass(frozen=True)
class PlannedShard:
    """A shard of the new dataset."""

    number: int
    first_episode: int

    places: np.ndarray
    """int64 (n,): its episodes, by their places in the table."""

    is_whole: bool
    """Whether they are all episodes of one shard of a source."""


def select(config: SelectConfig, progress: Progress | None = None) -> SelectReport:
    """Write the chosen episodes of `config.data` to `config.out`; continues where a run was interrupted.

    Raises UsageError (DatasetNotUsable, ConfigError, OutputNotUsable, ShardDamaged, …) before anything is written, and
    ShardDamaged, EpisodeFailed or WriteFailed later; everything committed by then stays.
    """
    progress = shown(progress)
    datasets: list[Source] = [require_dataset(path, RolloutSpec, LatentSpec) for path in config.data]  # type: ignore[misc]
    require_agreement(datasets)
    all_originals, numbers = merge_originals(datasets)
    condition = config.choice.condition
    endings = [name for name in ENDINGS if condition is not None and name in condition.names]
    table = list_episodes(datasets, numbers, endings, progress)
    places = choose(table, config.choice)
    _refuse_twice(table, places, all_originals)
    table, originals = _with_used_alone(table, places, all_originals)
    used = [datasets[source] for source in np.unique(table.source[places]).tolist()]
    spec = merged_spec(datasets, used, originals, config.record())
    if len(json.dumps(spec.to_json(), indent=2)) >= MAX_SPEC_BYTES:
        raise DatasetNotUsable(
            f"the settings of {len(originals)} collections do not fit into one dataset.json", remedy="merge fewer at once"
        )
    plan = list(_plan(datasets, table, places))
    with DatasetWriter(config.out, spec) as writer:
        committed = {entry.shard for entry in writer.entries}
        missing = [planned for planned in plan if planned.number not in committed]
        writer.announce("select", len(places))
        _write(config, datasets, table, missing, writer, progress)
        dataset = writer.dataset()
    report = SelectReport(
        out=config.out,
        episodes=dataset.num_episodes,
        chosen_from=len(table.episode),
        rows=dataset.num_rows,
        shards=len(dataset.entries),
        copied_shards=sum(planned.is_whole for planned in plan),
        new_episodes=sum(len(planned.places) for planned in missing),
    )
    message = f"select: {report.episodes} of {report.chosen_from} episodes ({report.new_episodes} new)"
    progress.event("finished", message, stage="select", **asdict(report))
    return report


def _refuse_twice(table: EpisodeTable, places: np.ndarray, originals: Sequence[Original]) -> None:
    """Raise DatasetNotUsable if one episode of one collection is chosen from two datasets."""
    pairs = np.stack([table.origin[places], table.origin_episode[places]], axis=1)
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    if (twice := kinds[counts > 1]).size:
        origin, episode = twice[0].tolist()
        spec_hash = originals[origin]["spec_hash"]
        raise DatasetNotUsable(
            f"{len(twice)} episodes are chosen twice, such as episode {episode} of the collection {spec_hash[:12]}…",
            remedy="name each dataset once, or choose other parts of them",
        )


def _with_used_alone(
    table: EpisodeTable, places: np.ndarray, originals: Sequence[Original]
) -> tuple[EpisodeTable, list[Original]]:
    """The original datasets that the chosen episodes come from, and the table with their numbers in this list."""
    used = np.unique(table.origin[places])
    numbers = np.full(len(originals), -1)
    numbers[used] = np.arange(len(used))
    return dataclasses.replace(table, origin=numbers[table.origin]), [originals[number] for number in used.tolist()]


def _plan(datasets: Sequence[Source], table: EpisodeTable, places: np.ndarray) -> Iterator[PlannedShard]:
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
    for group in _by_shard(table, places):
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


def _by_shard(table: EpisodeTable, places: np.ndarray) -> list[np.ndarray]:
    """The places, apart for each shard of a source."""
    changes = (np.diff(table.source[places]) != 0) | (np.diff(table.shard[places]) != 0)
    return np.split(places, np.flatnonzero(changes) + 1)


def _write(
    config: SelectConfig,
    datasets: Sequence[Source],
    table: EpisodeTable,
    missing: Sequence[PlannedShard],
    writer: DatasetWriter[Any],
    progress: Progress,
) -> None:
    if not missing:
        return
    done = sum(entry.num_episodes for entry in writer.entries)
    total = done + sum(len(planned.places) for planned in missing)
    task = begin(progress, "select", config.out, writer.spec.hash, total=total, unit="episodes", done=done)
    tally = Tally("select", config.out, progress, shards_left=len(missing))
    with closing(task):
        for planned in missing:
            entry = writer.commit(planned.number, _image(datasets, table, planned, writer.spec))
            tally.committed(entry)
            task.advance(entry.num_episodes, **tally.facts())


def _image(datasets: Sequence[Source], table: EpisodeTable, planned: PlannedShard, spec: RolloutSpec | LatentSpec) -> bytes:
    """The bytes of a shard."""
    attributes = {"vae_sha256": spec.vae_sha256} if isinstance(spec, LatentSpec) else {}
    if planned.is_whole:
        origins = [table.origin_of(place) for place in planned.places.tolist()]
        with _opened(datasets, table, planned.places, attributes) as shard:
            return copy_shard(
                shard, first_episode=planned.first_episode, origins=origins, spec_hash=spec.hash, attributes=attributes
            )
    episodes: list[Episode] = []
    for group in _by_shard(table, planned.places):
        with _opened(datasets, table, group, attributes) as shard:
            for place in group.tolist():
                episode_id, origin = planned.first_episode + len(episodes), table.origin_of(place)
                episode = shard.episode(int(table.position[place]))
                episodes.append(dataclasses.replace(episode, episode_id=episode_id, origin=origin))
    return build_shard(episodes, spec_hash=spec.hash, attributes=attributes)


def _opened(datasets: Sequence[Source], table: EpisodeTable, places: np.ndarray, attributes: dict[str, str]) -> Shard:
    """The shard that holds the episodes at the places; raises ShardDamaged, also if another VAE made its latents."""
    dataset = datasets[table.source[places[0]]]
    entry = dataset.entries[table.shard[places[0]]]
    shard = dataset.open_verified(entry)
    if shard.attributes.get("vae_sha256") != attributes.get("vae_sha256"):
        shard.close()
        raise DatasetNotUsable(
            "was not made by the VAE that dataset.json names",
            where=dataset.shard_path(entry),
            remedy="encode into a new directory",
        )
    return shard
