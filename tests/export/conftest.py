"""Latents whose mu says what the toy world's frame says, so that a reader of an export can check each row against itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.builders import latent_spec
from tests.conftest import stamp_config
from worldmodel_v.autoencoders.gaussian import gaussian_latents
from worldmodel_v.collection import collect
from worldmodel_v.envs.stamp import read_stamps
from worldmodel_v.records import Episode
from worldmodel_v.schema import Schema, latent_schema
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset

STEP, ACTION = 0, 1
"""Which mu holds the number of actions so far, and which the stamp of the action that led to the row."""


def write_stamp_latents(rollouts: Path, out: Path, reward: Callable[[Episode], np.ndarray] = lambda e: e.reward) -> Path:
    """Latents of toy rollouts with mu (rows, 4) = step, action, episode and return stamps, and logvar = -1, -2, -3, -4."""
    source = open_dataset(rollouts)
    schema = latent_schema(source.schema, *gaussian_latents(4, "float32"))
    spec = latent_spec(schema, source_spec_hash=source.spec_hash, source=source.spec.settings())
    with DatasetWriter(out, spec) as writer:
        for entry in source.entries:
            with source.open_shard(entry) as shard:
                sequences = [_sequence(schema, shard.episode(position), reward) for position in range(shard.num_episodes)]
            attributes = {"vae_sha256": spec.vae_sha256, "source_sha256": entry.sha256}
            writer.commit(entry.shard, build_shard(sequences, spec_hash=spec.hash, attributes=attributes))
    return out


def _sequence(schema: Schema, episode: Episode, reward: Callable[[Episode], np.ndarray]) -> Episode:
    mu = np.array([read_stamps(frame) for frame in episode.pixels], dtype=np.float32)
    logvar = np.broadcast_to(-np.arange(1, 5, dtype=np.float32), mu.shape).copy()
    others = {name: rows for name, rows in episode.columns.items() if name != "pixels"}
    return replace(episode, schema=schema, columns={"mu": mu, "logvar": logvar, **others, "reward": reward(episode)})


@pytest.fixture(scope="session")
def unequal_latents(stamp_rollouts: Path) -> Path:
    """Stamp latents of 8 episodes of 20 to 23 actions, all terminated; read-only."""
    return write_stamp_latents(stamp_rollouts, stamp_rollouts.parent / "unequal")


@pytest.fixture(scope="session")
def equal_rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy rollouts of 8 episodes of 20 actions, most of them cut there; read-only."""
    out = tmp_path_factory.mktemp("equal") / "rollouts"
    collect(stamp_config(out, max_steps=20))
    return out


@pytest.fixture(scope="session")
def equal_latents(equal_rollouts: Path) -> Path:
    """Stamp latents of 8 episodes of 20 actions; read-only."""
    return write_stamp_latents(equal_rollouts, equal_rollouts.parent / "latents")


@pytest.fixture(scope="session")
def discrete_rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy rollouts of 8 episodes of 20 actions out of five; read-only."""
    out = tmp_path_factory.mktemp("discrete") / "rollouts"
    collect(stamp_config(out, max_steps=20, env_kwargs='{"discrete": true}'))
    return out


@pytest.fixture(scope="session")
def discrete_latents(discrete_rollouts: Path) -> Path:
    """Stamp latents with discrete actions; read-only."""
    return write_stamp_latents(discrete_rollouts, discrete_rollouts.parent / "latents")


def acted(action: np.ndarray, stamp: np.ndarray) -> np.ndarray:
    """Whether the stamp is that of the action (its last axis a vector of [-1, 1]), give or take float16's rounding."""
    return np.abs((action[..., 0].astype(np.float64) + 1) * 100 + 0.5 - stamp) < 0.6
