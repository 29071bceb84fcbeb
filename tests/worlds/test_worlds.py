"""Worlds that people use, whole: collected with and without workers, trained on, encoded, and read back with what was done.

Each is collected by the command, as people do it. What was recorded is held against the world itself: stepped again with the
recorded seed and actions, by this file's own loop, it must give the recorded rewards and ends.
"""

import importlib.util
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.builders import digests
from tests.commands import BIN, run
from worldmodel_v.data.sequences import LatentSequences
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.envs import make_image_env
from worldmodel_v.envs.options import EnvOptions
from worldmodel_v.records import Episode
from worldmodel_v.sources.base import episode_apart
from worldmodel_v.storage import open_dataset, verify
from worldmodel_v.training import TrainConfig, train


@dataclass(frozen=True)
class World:
    """An environment, the package that it comes with, and what its pictures are."""

    env: str
    package: str
    frames: str
    options: tuple[str, ...] = ()


PARTIAL_VIEW = ("--wrap", "minigrid.wrappers:RGBImgPartialObsWrapper")
SKIPPED = ("--frame-skip", "2", "--frame-skip-pool", "max")
WORLDS = [
    World("ALE/Pong-v5", "ale_py", "observation"),
    World("ALE/Breakout-v5", "ale_py", "observation", SKIPPED),
    World("MiniGrid-Empty-5x5-v0", "minigrid", "observation.image", PARTIAL_VIEW),
    World("LunarLander-v3", "Box2D", "render"),
    World("CarRacing-v3", "Box2D", "observation"),
    World("Pendulum-v1", "pygame", "render"),
    World("FrozenLake-v1", "pygame", "render"),
    World("HalfCheetah-v5", "mujoco", "render"),
    World("dm_control/cartpole-balance-v0", "dm_control", "render"),
    World("VizdoomBasic-v1", "vizdoom", "observation.screen"),
    World("MiniWorld-Hallway-v0", "miniworld", "observation"),
    World("procgen_world:Procgen/coinrun-v0", "procgen", "observation"),
]
EXAMPLES = Path(__file__).parents[2] / "examples"
EPISODES, SEED = 4, 3
COUNTS = f"--episodes {EPISODES} --episodes-per-shard 2 --max-steps 25 --frame-size 32 --policy random --seed {SEED}".split()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file .*procgen:ResourceWarning")
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: re.sub("[/:]", "-", world.env))
def test_a_world_becomes_latents_of_what_happened_in_it(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where MuJoCo and ViZDoom leave files of their own
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    monkeypatch.syspath_prepend(EXAMPLES)  # where Procgen's adapter is
    if importlib.util.find_spec(world.package) is None:
        pytest.skip(f"{world.package} is not installed")
    rollouts, vae, latents = (tmp_path / name for name in ("rollouts", "vae", "latents"))
    command = ["wm-collect", "--env", world.env, *COUNTS, *world.options]
    subprocess.run([BIN / command[0], *command[1:], "--workers", "0", "--out", rollouts], check=True, cwd=tmp_path)
    run(*command, "--workers", 2, "--out", tmp_path / "by workers", folder=tmp_path)  # a Ray of its own, as a user has
    assert digests(rollouts) == digests(tmp_path / "by workers")
    dataset = open_dataset(rollouts)
    assert dataset.spec.frames == world.frames
    for episode_id in range(EPISODES):
        require_what_happened(dataset.episode(episode_id), world)

    train(TrainConfig(data=rollouts, out=vae, steps=20, batch_size=16, latent_dim=4, holdout_every=4, architecture="conv"))
    encode(EncodeConfig(data=rollouts, vae=vae, out=latents))
    assert verify(open_dataset(latents)) == []
    windows = LatentSequences(latents, length=None, sample=False)
    for episode_id in range(EPISODES):
        episode, window = dataset.episode(episode_id), windows[episode_id]
        assert window["mask"].sum() == episode.num_steps
        np.testing.assert_array_equal(window["action"][: episode.num_steps].numpy(), episode.action[: episode.num_steps])
        np.testing.assert_array_equal(window["reward"][: episode.num_steps].numpy(), episode.reward[: episode.num_steps])


def require_what_happened(episode: Episode, world: World) -> None:
    """Step the world again with the episode's seed and actions: its rewards and ends are the recorded ones."""
    with episode_apart(SEED, episode.episode_id):
        wrap = world.options[1:] if world.options == PARTIAL_VIEW else ()
        env = make_image_env(world.env, {}, EnvOptions(frames=world.frames, wrap=wrap)).gym
        env.reset(seed=episode.seed)
        for t in range(episode.num_steps):
            reward, terminated, truncated = 0.0, False, False
            for _ in range(2 if world.options == SKIPPED else 1):
                _, step_reward, terminated, truncated, _ = env.step(as_the_space_has_it(env.action_space, episode.action[t]))
                reward += float(step_reward)
                if terminated or truncated:
                    break
            assert np.float32(reward) == episode.reward[t], t
            assert bool(terminated) == bool(episode.terminated[t]), t
        env.close()


def as_the_space_has_it(space: gymnasium.Space, action: np.ndarray) -> Any:
    return int(action) if isinstance(space, gymnasium.spaces.Discrete) else np.asarray(action, space.dtype)
