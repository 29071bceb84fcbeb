"""Fixtures that many tests share: small datasets of the toy world, made once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import environment_here
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.envs import STAMP_ENV_ID
from worldmodel_v.evaluation import completion
from worldmodel_v.training import TrainConfig, train

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


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations search for the most probable latents in 3 steps. With 60, they do little else."""
    monkeypatch.setattr(completion, "STEPS", 3)


CLUSTER = """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
print(cluster.address, flush=True)
input()
cluster.shutdown()
"""


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a cluster of one node of two CPUs, in processes of its own, for the commands that need workers."""
    command = [sys.executable, "-c", CLUSTER]
    folder = tmp_path_factory.mktemp("cluster")
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment_here()
    ) as head:
        assert head.stdout is not None
        yield head.stdout.readline().strip()
        head.communicate("\n")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for the tests that need workers."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
