"""Small worlds that are evaluated once for all tests of this package."""

import json
from pathlib import Path

import pytest
import torch

from tests.builders import made_rollout_schema, make_episode, rollout_spec
from tests.conftest import stamp_config
from worldmodel_v.autoencoders import Autoencoder, save
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.collection import collect
from worldmodel_v.evaluation import EvalConfig, EvaluationReport, evaluate
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset
from worldmodel_v.training import TrainConfig, train


@pytest.fixture(scope="session")
def small_rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world at 16x16, read-only: 8 episodes of 20 to 23 actions in 3 shards, with state."""
    out = tmp_path_factory.mktemp("small") / "rollouts"
    collect(stamp_config(out, frame_size=16))
    return out


@pytest.fixture(scope="session")
def small_vae(small_rollouts: Path) -> Path:
    """A VAE that has learned something of it, read-only: Z = 4, every 4th episode held out."""
    out = small_rollouts.parent / "vae"
    settings = {"steps": 150, "batch_size": 16, "latent_dim": 4, "holdout_every": 4, "device": "cpu", "checkpoint_every": 150}
    train(TrainConfig(data=small_rollouts, out=out, beta_warmup_steps=20, **settings))
    return out


@pytest.fixture(scope="session")
def small_evaluation(small_rollouts: Path, small_vae: Path) -> EvaluationReport:
    """Its evaluation, read-only."""
    out = small_rollouts.parent / "eval"
    return evaluate(EvalConfig(vae=small_vae, data=small_rollouts, out=out, device="cpu"))


def write_rollouts(path: Path, num_episodes: int = 4, *, spec: dict[str, object] | None = None, **episode: object) -> Path:
    """Random 8x8 rollouts made by hand, two episodes a shard; `episode` goes to `make_episode`."""
    shape = {"size": 8, **{name: episode[name] for name in ("size", "action_size", "num_factors") if name in episode}}
    recorded = rollout_spec(made_rollout_schema(**shape), **(spec or {}))
    with DatasetWriter(path, recorded) as writer:
        for first in range(0, num_episodes, 2):
            pair = [make_episode(first + i, **episode) for i in range(2)]
            writer.commit(first // 2, build_shard(pair, spec_hash=recorded.hash))
    return path


def write_vae(path: Path, data: Path, *, holdout_every: int = 2, model: Autoencoder | None = None, **config: object) -> Path:
    """What wm-train would leave of a VAE with random weights for 8x8 frames."""
    torch.manual_seed(0)
    model = model or VAE(VAEConfig(**{"frame_height": 8, "frame_width": 8, "latent_dim": 3, **config}))
    path.mkdir(parents=True, exist_ok=True)
    (path / "vae.safetensors").write_bytes(save(model))
    training = {"holdout_every": holdout_every, "data_spec_hash": open_dataset(data).spec_hash}
    (path / "config.json").write_text(json.dumps({"steps": 5, "training": training}))
    return path
