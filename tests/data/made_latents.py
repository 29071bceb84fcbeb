"""Latents made by hand, and their windows cut out by hand: what the datasets of windows are compared with."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.builders import action_space
from worldmodel_v.autoencoders.gaussian import gaussian_latents
from worldmodel_v.records import Episode
from worldmodel_v.schema import Schema, latent_schema, rollout_schema
from worldmodel_v.spec import LatentSpec
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset

COPIED = ("action", "reward", "terminated", "truncated")


def starts_of(num_steps: int, length: int, stride: int, pad: bool) -> list[int]:
    """Where the windows of an episode begin, found by walking along it."""
    starts, t = [], 0
    while t < num_steps and (pad or t + length <= num_steps):
        starts.append(t)
        if t + length >= num_steps:
            break
        t += stride
    return starts


def window_of(episode: Episode, t: int, length: int) -> dict[str, np.ndarray]:
    """One window, cut out of an episode's record; z is mu."""
    count = min(length, episode.num_steps - t)
    columns = {"z": episode.mu[t : t + count], "next_z": episode.mu[t + 1 : t + 1 + count]}
    columns |= {name: getattr(episode, name)[t : t + count] for name in COPIED}
    columns |= {"mask": np.ones(count, np.bool_), "is_first": np.arange(t, t + count) == 0}
    return {
        name: np.concatenate([rows, np.zeros((length - count, *rows.shape[1:]), rows.dtype)]) for name, rows in columns.items()
    }


def expected_windows(
    path: Path, episodes: Iterable[int], length: int, *, stride: int = 1, pad: bool = False
) -> dict[str, np.ndarray]:
    """Every window of some episodes; each column has B in front."""
    records = [open_dataset(path).episode(episode) for episode in episodes]
    windows = [window_of(record, t, length) for record in records for t in starts_of(record.num_steps, length, stride, pad)]
    return {name: np.stack([window[name] for window in windows]) for name in windows[0]}


def assert_same_windows(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        assert found[name].dtype == column.dtype, name
        np.testing.assert_array_equal(found[name], column, err_msg=name)


def write_latents(
    path: Path,
    steps: list[int],
    *,
    discrete: bool = False,
    dtype: str = "float32",
    per_shard: int = 1,
    has_reward: bool = True,
) -> Path:
    """A made-up latent dataset: row t of episode e has mu 100 e + t and logvar -6, 0 and 2 (Z = 3), action and reward t.

    Even episodes end terminated, odd ones truncated.
    """
    schema = _schema(discrete, dtype, has_reward)
    spec = LatentSpec(
        schema=schema,
        vae_sha256="0" * 64,
        source_spec_hash="0" * 64,
        dtype=dtype,
        precision="fp32",
        source={"env": "made up"},
    )
    records = [_record(schema, episode_id, num_steps) for episode_id, num_steps in enumerate(steps)]
    attributes = {"vae_sha256": "0" * 64, "source_sha256": "0" * 64}
    with DatasetWriter(path, spec) as writer:
        for number, first in enumerate(range(0, len(records), per_shard)):
            image = build_shard(records[first : first + per_shard], spec_hash=spec.hash, attributes=attributes)
            writer.commit(number, image)
    return path


def _schema(discrete: bool, dtype: str, has_reward: bool) -> Schema:
    actions = {"type": "Discrete", "dtype": "int64", "n": 10**6, "start": 0} if discrete else action_space(1)
    rollouts = rollout_schema(frame_shape=(8, 8), action_space=actions, observation_space={}, has_reward=has_reward)
    return latent_schema(rollouts, *gaussian_latents(3, dtype))


def _record(schema: Schema, episode_id: int, num_steps: int) -> Episode:
    ends = np.arange(num_steps + 1) == num_steps - 1
    row = np.arange(num_steps + 1, dtype=np.float32)
    action = np.append(row[:-1], schema.action.fill_value).reshape(-1, *schema.action.row_shape)
    columns = {
        "mu": np.repeat(100 * episode_id + row[:, None], 3, axis=1),
        "logvar": np.tile([-6.0, 0.0, 2.0], (num_steps + 1, 1)),
        "action": action,
        "reward": np.full_like(row, np.nan) if schema["reward"].absent else np.append(row[:-1], np.nan),
        "terminated": ends & (episode_id % 2 == 0),
        "truncated": ends & (episode_id % 2 == 1),
    }
    return Episode(
        schema=schema,
        episode_id=episode_id,
        seed=0,
        columns={name: rows.astype(schema[name].dtype) for name, rows in columns.items()},
    )
