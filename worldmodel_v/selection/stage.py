"""The whole run: plan the new dataset, write the shards that are missing, commit each when it is done.

A shard of a source that is chosen as a whole becomes a shard of its own: its chunks are copied as they are stored, neither
decoded nor compressed again. It cannot be linked, because a shard carries its dataset's hash and the numbers of its episodes.
Episodes of shards that are chosen in part are read and checked. Memory: the episodes of one shard.
"""

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.interrupts import raised_again_if_lost
from worldmodel_v.notebook import shown
from worldmodel_v.progress import Progress, begin
from worldmodel_v.records import Episode
from worldmodel_v.selection.agreement import require_agreement
from worldmodel_v.selection.config import SelectConfig
from worldmodel_v.selection.episodes import Source
from worldmodel_v.selection.plan import Plan, PlannedShard, by_shard, make_plan
from worldmodel_v.spec import LatentSpec, RolloutSpec
from worldmodel_v.storage import DatasetWriter, Shard, build_shard, copy_shard, require_dataset
from worldmodel_v.telemetry import Tally
from worldmodel_v.words import counted


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


@raised_again_if_lost()
def select(config: SelectConfig, progress: Progress | None = None) -> SelectReport:
    """Write the chosen episodes of `config.data` to `config.out`; continues where a run was interrupted.

    Raises UsageError (DatasetNotUsable, ConfigError, OutputNotUsable, ShardDamaged, …) before anything is written, and
    ShardDamaged, EpisodeFailed or WriteFailed later; everything committed by then stays.
    """
    progress = shown(progress)
    datasets: list[Source] = [require_dataset(path, RolloutSpec, LatentSpec) for path in config.data]  # type: ignore[misc]
    require_agreement(datasets)
    plan = make_plan(datasets, config.choice, config.record(), progress)
    with DatasetWriter(config.out, plan.spec) as writer:
        committed = {entry.shard for entry in writer.entries}
        missing = [planned for planned in plan.shards if planned.number not in committed]
        writer.announce("select", len(plan.places))
        _write(config, plan, missing, writer, progress)
        dataset = writer.dataset()
    report = SelectReport(
        out=config.out,
        episodes=dataset.num_episodes,
        chosen_from=len(plan.table.episode),
        rows=dataset.num_rows,
        shards=len(dataset.entries),
        copied_shards=sum(planned.is_whole for planned in plan.shards),
        new_episodes=sum(len(planned.places) for planned in missing),
    )
    message = f"select: {report.episodes} of {counted(report.chosen_from, 'episode')} ({report.new_episodes} new)"
    progress.event("finished", message, stage="select", **asdict(report))
    return report


def _write(
    config: SelectConfig,
    plan: Plan,
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
            entry = writer.commit(planned.number, _image(plan, planned))
            tally.committed(entry)
            task.advance(entry.num_episodes, **tally.facts())


def _image(plan: Plan, planned: PlannedShard) -> bytes:
    """The bytes of a shard."""
    spec, table = plan.spec, plan.table
    attributes = {"vae_sha256": spec.vae_sha256} if isinstance(spec, LatentSpec) else {}
    if planned.is_whole:
        origins = [table.origin_of(place) for place in planned.places.tolist()]
        with _opened(plan, planned.places) as shard:
            return copy_shard(
                shard, first_episode=planned.first_episode, origins=origins, spec_hash=spec.hash, attributes=attributes
            )
    episodes: list[Episode] = []
    for group in by_shard(table, planned.places):
        with _opened(plan, group) as shard:
            for place in group.tolist():
                episode_id, origin = planned.first_episode + len(episodes), table.origin_of(place)
                episode = shard.episode(int(table.position[place]))
                episodes.append(dataclasses.replace(episode, episode_id=episode_id, origin=origin))
    return build_shard(episodes, spec_hash=spec.hash, attributes=attributes)


def _opened(plan: Plan, places: np.ndarray) -> Shard:
    """The shard that holds the episodes at the places; raises as `Dataset.open_own`."""
    dataset = plan.datasets[plan.table.source[places[0]]]
    return dataset.open_own(dataset.entries[plan.table.shard[places[0]]])
