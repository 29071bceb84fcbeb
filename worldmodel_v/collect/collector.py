"""The whole run: plan the missing blocks, have them collected, commit each as it comes.

Workers return the bytes of finished shards and this process alone commits them, so no filesystem is shared and a block
that ran twice cannot be counted twice.
"""

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

import gymnasium

from worldmodel_v.collect.block import Block, block_collector, missing_blocks
from worldmodel_v.collect.config import AUTO, CollectConfig
from worldmodel_v.collect.rollout import episode_seeds
from worldmodel_v.envs import FramePreprocessor, make_image_env
from worldmodel_v.errors import DiskFull, EnvironmentNotUsable, WorldModelError, one_line
from worldmodel_v.policies import make_policy, policy_weights
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.ray_pool import WorkerSettings, map_tasks
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import DatasetWriter
from worldmodel_v.storage.writer import refuse_foreign_directory

SMALLEST_SHARD_BYTES_PER_PIXEL_BYTE = 1 / 100
"""CarRacing shrinks to a tenth; a disk that lacks even a hundredth of one shard is refused before anything is written."""


@dataclass(frozen=True, kw_only=True)
class CollectReport:
    """What a run of `collect` found and did."""

    out: Path
    episodes: int
    """Episodes in the dataset now."""

    frames: int
    """Rows in the dataset now: one more than the actions of each episode."""

    new_episodes: int
    """Episodes that this run added; 0 if everything was there."""


def collect(config: CollectConfig, progress: Progress | None = None) -> CollectReport:
    """Make `config.out` hold `config.episodes` episodes; continues what is there.

    Raises UsageError (EnvironmentNotUsable, PolicyNotUsable, NotADataset, SettingsDiffer, …) before anything is written,
    and EpisodeFailed, WorkerLost or WriteFailed later; everything committed by then stays, and a rerun continues.
    """
    progress = progress or Silent()
    spec = resolve_spec(config)
    refuse_foreign_directory(config.out, spec)
    if not config.out.exists():
        _refuse_full_disk(config)
    with DatasetWriter(config.out, spec) as writer:
        blocks = missing_blocks(writer.entries, config.episodes, config.episodes_per_shard)
        new_episodes = sum(block.num_episodes for block in blocks)
        if blocks:
            _refuse_full_disk(config)
            _collect_blocks(config, spec, blocks, writer, progress)
        dataset = writer.dataset()
    return CollectReport(out=config.out, episodes=dataset.num_episodes, frames=dataset.num_rows, new_episodes=new_episodes)


def resolve_spec(config: CollectConfig) -> RolloutSpec:
    """The settings that determine the data, after trying environment, policy and crop once.

    Raises EnvironmentNotUsable, PolicyNotUsable or ConfigError.
    """
    env_kwargs = config.parsed_env_kwargs()
    env = make_image_env(config.env, env_kwargs)
    try:
        crop = env.default_crop if config.crop == AUTO else config.crop
        seed, policy_rng = episode_seeds(config.seed, 0)
        raw = env.reset(seed)
        FramePreprocessor(raw.shape, crop, config.frame_size)(raw)
        make_policy(config.policy, env.gym).reset(policy_rng)
    except WorldModelError:
        raise
    except Exception as error:
        raise EnvironmentNotUsable(f"{config.env} with {env_kwargs}: cannot begin an episode: {one_line(error)}") from error
    finally:
        env.close()
    return RolloutSpec(
        env=config.env,
        env_kwargs=env_kwargs,
        policy=config.policy,
        seed=config.seed,
        max_steps=config.max_steps,
        frame_size=config.frame_size,
        crop=crop,
        episodes_per_shard=config.episodes_per_shard,
        gymnasium=gymnasium.__version__,
        policy_weights=policy_weights(config.policy),
    )


def _collect_blocks(
    config: CollectConfig, spec: RolloutSpec, blocks: list[Block], writer: DatasetWriter, progress: Progress
) -> None:
    done = sum(entry.num_episodes for entry in writer.entries)
    total = done + sum(block.num_episodes for block in blocks)
    task = progress.task("collect", total, "episodes", done=done)
    settings = WorkerSettings(num_workers=min(config.workers, len(blocks)), address=config.address)
    frames = 0
    try:
        for block, image in map_tasks(functools.partial(block_collector, spec), blocks, settings, progress):
            entry = writer.commit(block.shard, image)
            frames += entry.num_rows
            task.advance(entry.num_episodes, frames=frames)
    finally:
        task.close()


def _refuse_full_disk(config: CollectConfig) -> None:
    folder = next(parent for parent in (config.out, *config.out.absolute().parents) if parent.exists())
    raw_bytes = config.episodes_per_shard * config.max_steps * config.frame_size**2 * 3
    needed = int(raw_bytes * SMALLEST_SHARD_BYTES_PER_PIXEL_BYTE) + 65536
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"{config.out}: no disk space: {free / 1e6:.1f} MB are free, one shard needs at least {needed / 1e6:.1f} MB; "
            "free some space, or give a directory on another disk"
        )
