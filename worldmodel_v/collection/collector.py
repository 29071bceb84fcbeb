"""The whole run: plan the missing blocks, let workers collect them, commit each as it comes.

Workers return the bytes of finished shards and this process alone commits them, so no filesystem is shared and a block
that ran twice cannot be counted twice.
"""

import dataclasses
import functools
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import gymnasium
import numpy as np

from worldmodel_v.collection.block import Block, Replay, block_collector, ended_after, missing_blocks
from worldmodel_v.collection.config import DEFAULT_MAX_STEPS, CollectConfig, CollectionConfig
from worldmodel_v.collection.one_by_one import TRIES_TOGETHER, WHY_A_PROCESS_ENDS, collect_one_by_one, too_long
from worldmodel_v.collection.replay import TwoPlays, replay_of
from worldmodel_v.collection.stacks import is_stack
from worldmodel_v.compiler import compilation_watched
from worldmodel_v.envs import FramePreprocessor, ImageEnv, make_image_env
from worldmodel_v.envs.engines import engines
from worldmodel_v.envs.options import EnvOptions
from worldmodel_v.envs.parts import RENDER, extra_columns
from worldmodel_v.envs.picture import AUTO
from worldmodel_v.envs.plugins import remedy
from worldmodel_v.envs.source import env_source
from worldmodel_v.errors import (
    EnvironmentNotUsable,
    EpisodeFailed,
    EpisodesSetAside,
    OutputNotUsable,
    WorkerLost,
    one_line,
    retold,
)
from worldmodel_v.execution import Apart, Executor, Failure
from worldmodel_v.interrupts import raised_again_if_lost
from worldmodel_v.notebook import shown
from worldmodel_v.policies import Policy, next_action, policy_maker, policy_source, policy_weights
from worldmodel_v.policies.checkpoint import torch_threads_kept
from worldmodel_v.process import output_to_stderr, process_kept
from worldmodel_v.progress import Progress, Silent, begin
from worldmodel_v.sources import EpisodeSource, GymSource, OwnSource, Source
from worldmodel_v.sources.base import episode_apart, episode_seeds
from worldmodel_v.sources.gym import import_all
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import Dataset, DatasetWriter, SetAside, Shard
from worldmodel_v.storage.layout import MAX_ROWS_PER_EPISODE
from worldmodel_v.storage.writer import require_dataset_or_empty
from worldmodel_v.surface import option, taken_along
from worldmodel_v.telemetry import Tally
from worldmodel_v.words import are, counted

SMALLEST_SHARD_BYTES_PER_PIXEL_BYTE = 1 / 100
"""CarRacing compresses to a tenth. A disk without room for even a hundredth of one shard is refused before any write."""

FAILURES_IN_TURN = 10
"""The run ends after this many failed shards in a row: the environment or the policy is broken."""

Stage = Literal["collect", "import"]

TRIALS = 3
"""How many episodes are tried before a run, until one begins."""

EPISODES_IN_REPORT = 3
FRAMES_LOOKED_AT = 50
"""At most this many frames are looked at, to tell a picture from a grid of symbols."""


@dataclass(frozen=True, kw_only=True)
class CollectReport:
    """What a run of `collect` found and did."""

    out: Path
    """The dataset's directory."""

    episodes: int
    """Episodes in the dataset now."""

    frames: int
    """Rows in the dataset now: one more than the actions of each episode."""

    new_episodes: int
    """Episodes that this run added; 0 if everything was there."""


@raised_again_if_lost()
def collect(
    config: CollectConfig, progress: Progress | None = None, executor: Executor | None = None, *, apart: Apart | None = None
) -> CollectReport:
    """Make `config.out` hold `config.episodes` episodes; continues what is there.

    Raises UsageError (EnvironmentNotUsable, PolicyNotUsable, OutputNotUsable, …) before anything is written,
    and EpisodesSetAside, EpisodeFailed, WorkerLost or WriteFailed later; everything committed by then stays, and a rerun
    continues. An episode that fails at every try is set aside, together with its shard. The rest is collected before
    EpisodesSetAside is raised.

    An `executor` of your own replaces `config.workers` and their cluster. Nothing ends its workers, so no episode is stopped
    after `config.episode_timeout`.

    With `apart`, as in `wm-collect`, environment and policy run in a process of their own, in the trial before the run and
    where there are no workers: it may crash, and `config.episode_timeout` holds there. Without it they run in this process,
    which a crash ends. What they change in the process is restored afterwards.

    During the run, prints go to standard error.
    """
    progress = shown(progress)
    require_dataset_or_empty(Path(config.out))
    with output_to_stderr(), _resting(apart) if apart else _kept(config, progress):
        spec = resolve_spec(config, progress, apart)
        if spec.frames == RENDER and config.frames == AUTO:
            note = "collect: the frames are render()'s, as a spectator sees the world: its observation holds no picture"
            progress.event("frames_rendered", note, stage="collect")
        executor = executor or (None if config.workers else apart)
        if apart is not None and executor is not apart:
            apart.rest()
        return collect_into(GymSource(spec), config, progress, executor, shard_bytes=_smallest_shard(spec))


@contextmanager
def _resting(apart: Apart) -> Iterator[None]:
    """Afterwards the process apart is gone."""
    try:
        yield
    finally:
        apart.rest()


@contextmanager
def _kept(config: CollectConfig, progress: Progress) -> Iterator[None]:
    """Around other people's code in this process."""
    with compilation_watched(progress), process_kept(), torch_threads_kept(config.policy):
        yield


@raised_again_if_lost()
def collect_source(
    source: EpisodeSource, config: CollectionConfig, progress: Progress | None = None, executor: Executor | None = None
) -> CollectReport:
    """`collect` for a user's own source: the same shards, resumption, workers and failures.

    Raises as `collect` does, and EnvironmentNotUsable if the source cannot make its episode 0.
    """
    with output_to_stderr(), process_kept():
        own = OwnSource.of(source, seed=config.seed, episodes_per_shard=config.episodes_per_shard)
        return collect_into(own, config, shown(progress), executor)


def collect_into(
    source: Source,
    config: CollectionConfig,
    progress: Progress,
    executor: Executor | None = None,
    *,
    shard_bytes: int = 0,
    stage: Stage = "collect",
) -> CollectReport:
    """The core of every collection: the missing blocks of any source, as shards of `config.out`.

    `shard_bytes` is the smallest size of a shard, `stage` how progress and events call the work. Raises as `collect` does.
    """
    spec = source.spec
    if not config.out.exists():
        _refuse_full_disk(config.out, shard_bytes)
    can_be_ended = config.workers > 0 if executor is None else isinstance(executor, Apart)
    timeout = config.episode_timeout if can_be_ended else 0.0
    if executor is not None:
        config = dataclasses.replace(config, workers=0, address=None)
    with DatasetWriter(config.out.absolute(), spec) as writer:
        blocks = missing_blocks(writer.entries, config.episodes, config.episodes_per_shard)
        new_episodes = sum(block.num_episodes for block in blocks)
        writer.announce(stage, sum(entry.num_episodes for entry in writer.entries) + new_episodes)
        if blocks:
            _refuse_full_disk(config.out, shard_bytes)
            setup = taken_along(functools.partial(block_collector, source, timeout))
            _collect_blocks(config, timeout, source, blocks, setup, executor, writer, progress, stage)
        writer.set_aside()
        dataset = writer.dataset()
        if set_aside := [episode for episode in dataset.set_aside() if episode.first_episode < config.episodes]:
            raise _some_set_aside(config, dataset, set_aside, stage)
    report = CollectReport(out=config.out, episodes=dataset.num_episodes, frames=dataset.num_rows, new_episodes=new_episodes)
    message = f"{stage}: {counted(report.episodes, 'episode')}, {report.frames} frames ({counted(new_episodes, 'new episode')})"
    progress.event("finished", message, stage=stage, **asdict(report))
    return report


def resolve_spec(config: CollectConfig, progress: Progress | None = None, apart: Apart | None = None) -> RolloutSpec:
    """The settings and the schema that determine the data, after trying environment, policy and crop.

    The trial begins the first episode, up to the policy's first action, or one of the next if that fails: it is then set
    aside as any other.
    Raises EnvironmentNotUsable, PolicyNotUsable or ConfigError.
    """
    failures: list[tuple[str, BaseException | None]] = []
    for episode in range(min(TRIALS, config.episodes)):
        start = time.monotonic()
        try:
            return apart.call(_trial, config, episode, progress=progress or Silent()) if apart else _try_once(config, episode)
        except EpisodeFailed as error:
            failures.append((str(error), error.__cause__))
        except WorkerLost as error:
            seconds = time.monotonic() - start
            code = ", ".join([config.env, *config.wrap, config.policy])
            ended = f"{error} in code of {code}: {WHY_A_PROCESS_ENDS}"
            failures.append((too_long(seconds, config.episode_timeout) or ended, None))
    where = f"{config.env} with {config.env_kwargs}" if config.env_kwargs else config.env
    reason, cause = failures[0]
    raise EnvironmentNotUsable(f"cannot begin an episode: {reason}", where=where) from cause


def _trial(config: CollectConfig, episode: int) -> RolloutSpec:
    """In a process that may end."""
    with ended_after(config.episode_timeout):
        return _try_once(config, episode)


def _try_once(config: CollectConfig, episode: int) -> RolloutSpec:
    """`resolve_spec` by one episode; raises EpisodeFailed if this one cannot be begun."""
    env_kwargs = config.env_kwargs
    options = EnvOptions.of(vars(config))
    import_all(config.env, env_kwargs, options.wrap, config.policy)
    build_policy, weights = policy_maker(config.policy), policy_weights(config.policy)
    told = retold(lambda error: EpisodeFailed(f"{one_line(error)}{remedy(config.env, error)}"))
    with told, episode_apart(config.seed, episode), make_image_env(config.env, env_kwargs, options) as env:
        preprocessing = config.preprocessing(env.default_crop)
        seed, policy_rng = episode_seeds(config.seed, episode)
        policy = build_policy(env.gym)  # first, because the preprocessing may have to be compiled
        raw = env.reset(seed)
        FramePreprocessor(raw.shape, preprocessing)(raw)
        extras = [[value] for value in env.extras()]
        raw = env.begin(policy, policy_rng, raw, config.policy)
        action = env.record_action(next_action(policy, raw, env.seen[0]))
        if extras:
            env.step(action)
            extras = [[*values, value] for values, value in zip(extras, env.extras(), strict=True)]
        columns = extra_columns(config.record, extras, env.seen)
        schema = env.schema(preprocessing.frame_shape, columns)
        _require_picture(config.env, env, policy, seed)
        source = env_source(env.gym, config.env, *config.wrap) | engines(env.gym)
        max_steps = config.max_steps or min(_own_limit(env.gym) or DEFAULT_MAX_STEPS, MAX_ROWS_PER_EPISODE - 1)
    return RolloutSpec(
        schema=schema,
        env=config.env,
        env_kwargs=env_kwargs,
        policy=config.policy,
        seed=config.seed,
        max_steps=max_steps,
        **asdict(preprocessing),
        episodes_per_shard=config.episodes_per_shard,
        **vars(options) | {"frames": env.frames, "layout": env.layout},
        render_shape=env.render_shape,
        gymnasium=gymnasium.__version__,
        policy_weights=weights,
        env_source=source,
        policy_source=policy_source(config.policy),
    )


def _own_limit(env: gymnasium.Env) -> int | None:
    return env.spec.max_episode_steps if env.spec else None


def _require_picture(name: str, env: ImageEnv, policy: Policy, seed: int) -> None:
    """Raise EnvironmentNotUsable if the space leaves a doubt and the values of the first frames are no picture."""
    if env.picture is None or env.picture.doubtful < 0:
        return
    frame, ended, num_seen = env.reset(seed), False, 1
    highest, is_varied = int(frame.max()), bool(np.ptp(frame))
    while highest <= env.picture.doubtful and not ended and num_seen < FRAMES_LOOKED_AT:
        frame, _, terminated, truncated = env.step(env.record_action(next_action(policy, frame, env.seen[0])))
        ended, num_seen = terminated or truncated, num_seen + 1
        highest, is_varied = max(highest, int(frame.max())), is_varied or bool(np.ptp(frame))
    if env.picture.is_refuted_by(highest, is_varied=is_varied):
        raise EnvironmentNotUsable(
            f"{env.frames} is no picture: nothing in its first {num_seen} frames is above {highest} of 255, as in a grid "
            "of symbols, or in floats of other bounds than their space's",
            where=name,
            remedy="wrap it, or record another picture",
        )


def _collect_blocks(
    config: CollectionConfig,
    timeout: float,
    source: Source,
    blocks: list[Block],
    setup: Callable[[], Callable[[Block], bytes]],
    executor: Executor | None,
    writer: DatasetWriter,
    progress: Progress,
    stage: Stage,
) -> None:
    """Let workers collect blocks, and commit them; blocks that fail are tried once more at the end, episode by episode."""
    spec, replay = source.spec, replay_of(source, writer.entries, blocks)
    earlier = writer.dataset().episode(replay.first) if replay and writer.entries else None
    plays = TwoPlays(source, progress, replay.num_steps if replay else 0, earlier)
    done = sum(entry.num_episodes for entry in writer.entries)
    total = done + sum(block.num_episodes for block in blocks)
    task = begin(progress, stage, config.out, spec.hash, total=total, unit="episodes", done=done)
    tally = Tally(stage, config.out, progress, shards_left=len(blocks))

    def commit(block: Block, image: bytes) -> None:
        tally.committed(writer.commit(block.shard, image))
        if block is blocks[0] and isinstance(source, GymSource):
            _warn_of_stack(image, spec, progress)
        if replay and block.first == replay.first:
            plays.committed(image)
        task.advance(block.num_episodes, **tally.facts())

    workers = executor or config.executor(len(blocks))
    failed: list[Block] = []
    in_turn = 0
    tasks = [*blocks[:1], *([replay] if replay else []), *blocks[1:]]
    tries = workers.try_tasks(setup, tasks, attempts=TRIES_TOGETHER, progress=progress, tally=tally)
    with closing(task), closing(tries):
        for block, outcome in tries:
            if isinstance(block, Replay):
                plays.replayed(outcome)
            elif isinstance(outcome, Failure):
                failed.append(block)
                in_turn += 1
                _refuse_to_go_on(in_turn, outcome)
                message = f"{block} failed {outcome.attempts} times; its episodes are tried one by one when the rest is done"
                progress.event("shard_failed", message, warning=True, stage=stage, shard=block.shard)
            else:
                in_turn = 0
                commit(block, outcome)
        alone = collect_one_by_one(setup, failed, executor, spec, config, timeout, progress, tally)
        for block, result in alone if failed else ():
            if isinstance(result, bytes):
                commit(block, result)
            else:
                writer.set_aside(result)
                episodes = [episode.episode for episode in result]
                message = f"{block} is set aside"
                progress.event("shard_set_aside", message, warning=True, stage=stage, shard=block.shard, episodes=episodes)


def _warn_of_stack(image: bytes, spec: RolloutSpec, progress: Progress) -> None:
    """Warn if what was taken for RGB, as the first episode shows, is three successive grey frames."""
    with Shard.from_bytes(image, spec.schema) as shard:
        if not is_stack(shard.episode(0).pixels):
            return
    message = (
        f"collect: the three channels of {spec.frames} were taken for RGB, and are three grey frames one after another; "
        f"collect anew with {option('layout', 'THW')} or {option('layout', 'HWT')}, by its shape: the last is recorded"
    )
    progress.event("frames_stacked", message, warning=True, stage="collect", frames=spec.frames, layout=spec.layout)


def _refuse_to_go_on(failures_in_turn: int, failure: Failure) -> None:
    if failures_in_turn == FAILURES_IN_TURN:
        raise type(failure.error)(
            f"{failures_in_turn} shards in turn failed, each {failure.attempts} times, so it is no matter of single episodes; "
            f"the last one: {failure.reason}",
            remedy="mend the cause and run the same command again: what is committed is kept",
        )


def _some_set_aside(config: CollectionConfig, dataset: Dataset, set_aside: list[SetAside], stage: Stage) -> EpisodesSetAside:
    """What is there, what is missing and why, and what can be done about it."""
    missing = {episode.shard: episode.num_episodes for episode in set_aside}
    there, absent = dataset.num_episodes, sum(missing.values())
    shown = [
        f"episode {episode.episode} (seed {episode.seed}, tried {counted(episode.tries, 'time')}): {episode.reason}"
        for episode in set_aside[:EPISODES_IN_REPORT]
    ]
    more = [f"and {len(set_aside) - len(shown)} more, which wm-inspect lists"] if len(shown) < len(set_aside) else []
    elsewhere = f"; or collect with another {option('seed')} into another directory" if stage == "collect" else ""
    return EpisodesSetAside(
        f"{counted(there, 'episode')} {are(there)} committed, {absent} {are(absent)} set aside with "
        f"{counted(len(missing), 'shard')}: {'; '.join(shown + more)}",
        where=config.out,
        remedy=f"mend the cause and run the same command again: it tries what is set aside anew{elsewhere}",
    )


def _smallest_shard(spec: RolloutSpec) -> int:
    """The least bytes that a shard of full episodes takes, even if its frames compress very well."""
    raw_bytes = spec.episodes_per_shard * spec.max_steps * math.prod(spec.preprocessing.frame_shape) * 3
    return int(raw_bytes * SMALLEST_SHARD_BYTES_PER_PIXEL_BYTE)


def _refuse_full_disk(out: Path, shard_bytes: int) -> None:
    folder = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    needed = shard_bytes + 65536
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputNotUsable(
            f"no disk space: {free / 1e6:.1f} MB are free, one shard needs at least {needed / 1e6:.1f} MB",
            where=out,
            remedy="free some space, or give a directory on another disk",
        )
