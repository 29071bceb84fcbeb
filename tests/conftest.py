"""Fixtures that many tests share: small datasets of the toy world, made once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from worldmodel_v.collect import CollectConfig, collect
from worldmodel_v.encode import EncodeConfig, encode
from worldmodel_v.envs import STAMP_ENV_ID
from worldmodel_v.train import TrainConfig, train

os.environ.pop("RAY_ADDRESS", None)  # the tests' Ray is their own


def stamp_config(out: Path, **changes: object) -> CollectConfig:
    """A collection of 8 short toy episodes in 3 shards, in this process."""
    settings = {"env": STAMP_ENV_ID, "episodes": 8, "episodes_per_shard": 3, "workers": 0, "policy": "random", "seed": 7}
    return CollectConfig(out=out, **{**settings, **changes})


@pytest.fixture(scope="session")
def stamp_rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy rollouts, read-only: 8 episodes of 20 to 23 actions in 3 shards."""
    out = tmp_path_factory.mktemp("stamp") / "rollouts"
    collect(stamp_config(out))
    return out


@pytest.fixture(scope="session")
def stamp_vae(stamp_rollouts: Path) -> Path:
    """A VAE that saw the toy world for three steps, read-only."""
    out = stamp_rollouts.parent / "vae"
    train(TrainConfig(data=stamp_rollouts, out=out, steps=3, batch_size=16, latent_dim=8, holdout_every=4, device="cpu"))
    return out


@pytest.fixture(scope="session")
def stamp_latents(stamp_rollouts: Path, stamp_vae: Path) -> Path:
    """The toy rollouts as latents, read-only."""
    out = stamp_rollouts.parent / "latents"
    encode(EncodeConfig(data=stamp_rollouts, vae=stamp_vae, out=out, device="cpu"))
    return out


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for the tests that need workers."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
