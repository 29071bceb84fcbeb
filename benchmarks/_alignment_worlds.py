"""Worlds and hand-written policies for `alignment_verdicts.py`: frames, actions and rewards in memory.

Each policy is a function (environment, observation) -> action that looks at the world's own state or observation. It drives
as it stands ("deterministic"), with noise on top ("noisy": a uniform action in four steps of ten, or Gaussian noise of a third
of the range), or not at all ("random": uniform actions).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

import worldmodel_v.envs  # noqa: F401  (registers CarRacing)
from worldmodel_v.envs.frames import frame_preprocessor
from worldmodel_v.policies import DriverPolicy
from worldmodel_v.preprocessing import Preprocessing

SIDE = 64
UNIFORM_SHARE, NOISE = 0.4, 1 / 3
DRIVERS = ("random", "noisy", "deterministic")
Act = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class World:
    """An environment, its policy, and whether thresholds were chosen on it."""

    env: str
    act: Act
    development: bool = False
    longest: int = 200


@dataclass(frozen=True)
class Played:
    """An episode of T actions: frames uint8 (T + 1, H, W, 3), numbers (T + 1, D), action (T, A) or (T,), reward (T,)."""

    frames: np.ndarray
    numbers: np.ndarray
    """The environment's own observation; D is 0 where that is a picture."""

    action: np.ndarray
    reward: np.ndarray


def cart_pole(env: Any, observation: np.ndarray) -> int:
    x, velocity, angle, turning = observation
    return int(angle + 0.4 * turning + 0.02 * x + 0.04 * velocity > 0)


def mountain_car(env: Any, observation: np.ndarray) -> int:
    return 2 if observation[1] >= 0 else 0


def mountain_car_continuous(env: Any, observation: np.ndarray) -> np.ndarray:
    return np.array([0.6 if observation[1] >= 0 else -0.6])


def acrobot(env: Any, observation: np.ndarray) -> int:
    return 0 if observation[4] > 0 else 2


def pendulum(env: Any, observation: np.ndarray) -> np.ndarray:
    cos, sin, turning = observation
    if cos < 0.7:
        return np.array([1.2 * np.sign(turning)])
    return np.array([-6 * math.atan2(sin, cos) - 1.5 * turning])


def lunar_lander(env: Any, observation: np.ndarray) -> Any:
    return importlib.import_module("gymnasium.envs.box2d.lunar_lander").heuristic(env.unwrapped, observation)


def walker(env: Any, observation: np.ndarray) -> np.ndarray:
    joints = observation[[4, 6, 9, 11]]
    return np.clip(0.5 - joints - 2 * observation[0], -1, 1)


def pong(env: Any, observation: np.ndarray) -> int:
    ram = env.unwrapped.ale.getRAM()
    return 2 if int(ram[54]) < int(ram[51]) + 8 else 3


def breakout(env: Any, observation: np.ndarray) -> int:
    ram = env.unwrapped.ale.getRAM()
    if ram[101] == 0:
        return 1
    return 2 if int(ram[99]) > int(ram[72]) + 8 else 3


def mini_grid(env: Any, observation: Any) -> int:
    """Forward; to the right where something is in the way."""
    world = env.unwrapped
    ahead = world.grid.get(*world.front_pos)
    return 1 if ahead is not None and not ahead.can_overlap() else 2


def frozen_lake(env: Any, observation: int) -> int:
    column = observation % 8
    return 2 if column < 7 else 1


def cliff_walking(env: Any, observation: int) -> int:
    row, column = divmod(int(observation), 12)
    if column == 11:
        return 2
    return 0 if row > 1 else 1


def drive(env: Any, observation: np.ndarray) -> np.ndarray:
    raise NotImplementedError("CarRacing's driver keeps state, and is made for each episode")


WORLDS = (
    World("CartPole-v1", cart_pole, development=True),
    World("Pendulum-v1", pendulum, development=True),
    World("LunarLander-v3", lunar_lander, development=True),
    World("ALE/Pong-v5", pong, development=True),
    World("FrozenLake8x8-v1", frozen_lake, development=True),
    World("MiniGrid-Empty-8x8-v0", mini_grid, development=True),
    World("MountainCar-v0", mountain_car),
    World("MountainCarContinuous-v0", mountain_car_continuous),
    World("Acrobot-v1", acrobot),
    World("worldmodel_v/CarRacing-v3", drive),
    World("BipedalWalker-v3", walker),
    World("ALE/Breakout-v5", breakout),
    World("MiniGrid-Dynamic-Obstacles-8x8-v0", mini_grid),
    World("CliffWalking-v1", cliff_walking),
)


def play(world: World, driver: str, seed: int, rows: int) -> list[Played]:
    """Episodes until they have so many rows."""
    if world.env.startswith("MiniGrid"):
        importlib.import_module("minigrid")
    if world.env.startswith("ALE"):
        gymnasium.register_envs(importlib.import_module("ale_py"))
    env = gymnasium.make(world.env, render_mode="rgb_array", disable_env_checker=True)
    rng = np.random.default_rng([seed, 7])
    episodes: list[Played] = []
    while sum(len(episode.frames) for episode in episodes) < rows:
        episodes.append(_episode(world, env, driver, seed * 1000 + len(episodes), rng))
    env.close()
    return [episode for episode in episodes if len(episode.action)]


def _episode(world: World, env: gymnasium.Env, driver: str, seed: int, rng: np.random.Generator) -> Played:
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    act = world.act
    if world.act is drive and driver != "random":
        policy = DriverPolicy(env, noise=0.3 if driver == "noisy" else 0.0)
        policy.reset(rng)
        act = lambda env, observation: policy.act(observation)  # noqa: E731
    frames, numbers, actions, rewards = [_shrunk(env)], [_numbers(env, observation)], [], []
    for _ in range(world.longest):
        action = _chosen(act, env, observation, driver, rng, own_noise=world.act is drive)
        observation, reward, terminated, truncated, _ = env.step(action)
        frames.append(_shrunk(env))
        numbers.append(_numbers(env, observation))
        actions.append(np.asarray(action))
        rewards.append(float(reward))
        if terminated or truncated:
            break
    return Played(np.stack(frames), np.stack(numbers), np.stack(actions), np.array(rewards))


def _chosen(act: Act, env: gymnasium.Env, observation: Any, driver: str, rng: np.random.Generator, own_noise: bool) -> Any:
    space = env.action_space
    if driver == "random":
        return space.sample()
    if driver == "noisy" and isinstance(space, Discrete) and rng.random() < UNIFORM_SHARE:
        return int(rng.integers(space.n))
    action = act(env, observation)
    if isinstance(space, Discrete):
        return int(action)
    if driver == "noisy" and not own_noise:
        action = action + NOISE * (space.high - space.low) * rng.standard_normal(space.shape)
    return np.clip(action, space.low, space.high).astype(space.dtype)


def _shrunk(env: gymnasium.Env) -> np.ndarray:
    frame = env.render()
    return frame_preprocessor(frame.shape, Preprocessing(frame_height=SIDE, frame_width=SIDE))(frame)


def _numbers(env: gymnasium.Env, observation: Any) -> np.ndarray:
    """float64 (D,)."""
    space = env.observation_space
    is_numbers = isinstance(space, Discrete) or (isinstance(space, Box) and len(space.shape) == 1)
    return np.asarray(observation, np.float64).ravel() if is_numbers else np.zeros(0)


def shifted(episodes: list[Played], by: int) -> Iterator[Played]:
    """The same rows with a_t-by in row t: late for by > 0. Rows that get no action are cut off."""
    for played in episodes:
        steps = len(played.action)
        first, last = max(0, by), steps + min(0, by)
        if last - first >= 1:
            action = played.action[first - by : last - by]
            rows = slice(first, last + 1)
            yield Played(played.frames[rows], played.numbers[rows], action, played.reward[first:last])
