"""Latents made by hand, and their windows cut out by hand: what the datasets of windows are compared with."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from worldmodel_v.records import Episode
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


def write_latents(path: Path, steps: list[int], *, discrete: bool = False, dtype: str = "float32", per_shard: int = 1) -> Path:
    """A made-up latent dataset: row t of episode e has mu 100 e + t and logvar -6, 0 and 2 (Z = 3), action and reward t.

    Even episodes end terminated, odd ones truncated.
    """
    spec = LatentSpec(
        vae_sha256="0" * 64, source_spec_hash="0" * 64, latent_dim=3, dtype=dtype, precision="fp32", source={"env": "made up"}
    )
    records = [_record(episode_id, num_steps, discrete, dtype) for episode_id, num_steps in enumerate(steps)]
    attributes = {"vae_sha256": "0" * 64, "source_sha256": "0" * 64}
    with DatasetWriter(path, spec) as writer:
        for number, first in enumerate(range(0, len(records), per_shard)):
            image = build_shard(records[first : first + per_shard], spec_hash=spec.hash, attributes=attributes)
            writer.commit(number, image)
    return path


def _record(episode_id: int, num_steps: int, discrete: bool, dtype: str) -> Episode:
    ends = np.arange(num_steps + 1) == num_steps - 1
    row = np.arange(num_steps + 1, dtype=np.float32)
    action = np.append(row[:-1], -1).astype(np.int64) if discrete else np.append(row[:-1], np.nan)[:, None]
    return Episode(
        episode_id=episode_id,
        seed=0,
        mu=np.repeat(100 * episode_id + row[:, None], 3, axis=1).astype(dtype),
        logvar=np.tile([-6.0, 0.0, 2.0], (num_steps + 1, 1)).astype(dtype),
        action=action if discrete else action.astype(np.float32),
        reward=np.append(row[:-1], np.nan).astype(np.float32),
        terminated=ends & (episode_id % 2 == 0),
        truncated=ends & (episode_id % 2 == 1),
    )
