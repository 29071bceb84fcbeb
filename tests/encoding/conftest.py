"""Fixtures of the tests of encoding: tiny shards of very unequal sizes, a tiny VAE, and what they give."""

from pathlib import Path

import pytest

from tests.builders import make_episode, rollout_spec
from worldmodel_v.autoencoders import save
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.storage import DatasetWriter, build_shard

NUM_STEPS = ([1], [63], [64], [200], [2, 3, 1, 1], [128])
"""Of each episode of each shard: shards of 2 to 201 rows, with one-row tails after whole chunks (65, 129 rows)."""


@pytest.fixture(scope="session")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rollouts of 8x8 frames in six shards of very unequal sizes."""
    out, spec, first = tmp_path_factory.mktemp("unequal") / "rollouts", rollout_spec(), 0
    with DatasetWriter(out, spec) as writer:
        for number, lengths in enumerate(NUM_STEPS):
            episodes = [make_episode(first + i, num_steps) for i, num_steps in enumerate(lengths)]
            writer.commit(number, build_shard(episodes, spec_hash=spec.hash))
            first += len(lengths)
    return out


@pytest.fixture(scope="session")
def small_vae(unequal: Path) -> Path:
    """A small VAE with fresh weights."""
    out = unequal.parent / "vae"
    out.mkdir()
    (out / "vae.safetensors").write_bytes(save(VAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3, architecture="mlp"))))
    return out


@pytest.fixture(scope="session")
def alone(unequal: Path, small_vae: Path) -> Path:
    """Their latents, encoded in this process."""
    out = unequal.parent / "latents"
    encode(EncodeConfig(data=unequal, vae=small_vae, out=out, device="cpu"))
    return out
