"""How fast CarRacing is collected, from the bare environment to committed shards, compared in one run.

    python benchmarks/collect.py [--rounds N] [--episodes N]

Contestants take turns in short rounds on the same recorded actions, so that other work on the machine affects all of them
equally. Use a quiet machine. EnvPool is included if it is installed (`pip install envpool`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numpy as np
import ray
from _machine import describe_machine
from _quickstart import quickstart_policy
from gymnasium.envs.box2d.car_racing import CarRacing

from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.collection.collector import resolve_spec
from worldmodel_v.envs import FramePreprocessor, make_image_env
from worldmodel_v.envs.fast_car_racing import FastCarRacing, kernels, warm_up
from worldmodel_v.envs.fast_car_racing import env as fast_env
from worldmodel_v.policies import DriverPolicy, make_policy
from worldmodel_v.progress import Silent
from worldmodel_v.sources.gym import episode_seeds, rollout
from worldmodel_v.storage import build_shard, open_dataset

SEED = 3
PARTS_OF_A_LAP = 12
PACKAGES = ("gymnasium", "pygame-ce", "Box2D", "numpy", "numba", "h5py", "hdf5plugin", "ray", "envpool")


class PhysicsOnly(CarRacing):
    """Gymnasium's environment without any drawing."""

    def _render(self, mode: str) -> None:
        return None


# The environment alone


def record_lap() -> list[np.ndarray]:
    """The actions of a lap on the track of `SEED`."""
    env = PhysicsOnly()
    env.reset(seed=SEED)
    driver = DriverPolicy(env)
    driver.reset(np.random.default_rng(0))
    actions: list[np.ndarray] = []
    terminated = False
    while not terminated and len(actions) < 1000:
        actions.append(driver.act(np.zeros(0)))
        terminated = env.step(actions[-1])[2]
    return actions


class Runner:
    """Repeats the recorded lap, a few steps at a time."""

    def __init__(self, make: Callable[[], CarRacing], actions: list[np.ndarray]) -> None:
        self.env, self.actions, self.at = make(), actions, 0
        self.env.reset(seed=SEED)

    def run(self, steps: int) -> float:
        """Seconds per step, resets not counted."""
        spent = 0.0
        for _ in range(steps):
            if self.at == len(self.actions):
                self.env.reset(seed=SEED)
                self.at = 0
            action = self.actions[self.at]
            self.at += 1
            start = time.perf_counter()
            self.env.step(action)
            spent += time.perf_counter() - start
        return spent / steps


class EnvPoolRunner:
    """EnvPool's CarRacing, one environment, with the same actions."""

    def __init__(self, actions: list[np.ndarray]) -> None:
        import envpool

        self.env = envpool.make_gymnasium("CarRacing-v3", num_envs=1, seed=SEED)
        self.env.reset()
        self.actions, self.at = actions, 0

    def run(self, steps: int) -> float:
        """Seconds per step."""
        start = time.perf_counter()
        for _ in range(steps):
            self.env.step(self.actions[self.at % len(self.actions)][None])
            self.at += 1
        return (time.perf_counter() - start) / steps


def compare_environments(rounds: int) -> None:
    """Print steps per second and ratios."""
    actions = record_lap()
    runners: dict[str, Runner | EnvPoolRunner] = {
        "Gymnasium": Runner(CarRacing, actions),
        "fast": Runner(FastCarRacing, actions),
        "physics only": Runner(PhysicsOnly, actions),
    }
    try:
        runners["EnvPool"] = EnvPoolRunner(actions)
    except ImportError:
        print("EnvPool is not installed")
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds * PARTS_OF_A_LAP):
        for name, runner in runners.items():
            times[name].append(runner.run(len(actions) // PARTS_OF_A_LAP))
    whole = {name: statistics.fmean(values) for name, values in times.items()}
    print(f"\nThe environment alone, one core, {rounds} laps of {len(actions)} steps")
    print(f"{'':14}{'steps/s':>10}{'us/step':>10}{'fast is faster by':>20}")
    for name, seconds in whole.items():
        print(f"{name:14}{1 / seconds:10.0f}{1e6 * seconds:10.1f}{seconds / whole['fast']:20.2f}")
    per_round = [g / f for g, f in zip(times["Gymnasium"], times["fast"], strict=True)]
    low, middle, high = np.percentile(per_round, [10, 50, 90])
    print(f"over Gymnasium by twelfths of a lap: median {middle:.1f}, 10..90 % {low:.1f}..{high:.1f}")


def time_resets() -> None:
    """Print the time of `reset`."""
    print("\nreset, milliseconds: ", end="")
    for make in (CarRacing, PhysicsOnly, FastCarRacing):
        env = make()
        print(f"{make.__name__} {microseconds(lambda e=env: e.reset(seed=SEED), 20) / 1000:.1f}   ", end="")
    print()


# wm-collect, end to end


def compare_collecting(policy: str, episodes: int, rounds: int) -> None:
    """Print the rate of one worker over that of the bare environment on the same episodes, and of two workers over one."""
    rates: dict[str, list[float]] = {"bare": [], "one": [], "two": []}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds):
            one = collect_config(Path(folder) / f"{i}-one", policy=policy, episodes=episodes, workers=1)
            two = collect_config(Path(folder) / f"{i}-two", policy=policy, episodes=episodes, workers=2)
            rates["one"].append(committed_rate(one))
            rates["bare"].append(replayed_rate(one))
            rates["two"].append(committed_rate(two))
    mean = {name: statistics.fmean(values) for name, values in rates.items()}
    print(f"\nwm-collect, {rounds} rounds of {episodes} episodes of up to 1,000 steps, {policy}")
    print(f"  frames/s: bare environment {mean['bare']:.0f}, one worker {mean['one']:.0f}, two workers {mean['two']:.0f}")
    for title, above, below in (
        ("one worker over the bare environment", "one", "bare"),
        ("two workers over one", "two", "one"),
    ):
        by_round = ", ".join(f"{a / b:.2f}" for a, b in zip(rates[above], rates[below], strict=True))
        print(f"  {title}: {mean[above] / mean[below]:.2f} (by round: {by_round})")


def collect_config(out: Path, **changes: Any) -> CollectConfig:
    return CollectConfig(out=out, seed=SEED, episodes_per_shard=2, **changes)


def committed_rate(config: CollectConfig) -> float:
    """Frames per second of a collection while all its workers are busy."""
    commits = Timestamps()
    collect(config, commits)
    return commits.rate_while_busy(config.workers)


def replayed_rate(config: CollectConfig) -> float:
    """Frames per second of playing a dataset's recorded actions in bare environments, a new one for each episode."""
    dataset = open_dataset(config.out)
    spent, frames = 0.0, 0
    for episode in map(dataset.episode, range(dataset.num_episodes)):
        _, policy_rng = episode_seeds(config.seed, episode.episode_id)
        start = time.perf_counter()
        env = gymnasium.make(config.env)
        env.reset(seed=episode.seed)
        make_policy(episode.policy, env).reset(policy_rng)  # a random start moves the car
        for action in episode.action[:-1].astype(np.float64):
            env.step(action)
        env.close()
        spent += time.perf_counter() - start
        frames += episode.num_rows
    return frames / spent


class Timestamps(Silent):
    """A progress that notes how many frames were committed, and when."""

    def __init__(self) -> None:
        self.commits: list[tuple[float, int]] = []

    def advance(self, amount: int = 1, **facts: Any) -> None:
        self.commits.append((time.perf_counter(), facts["frames"]))

    def task(self, title: str, total: int, unit: str, done: int = 0) -> Timestamps:
        return self

    def rate_while_busy(self, workers: int) -> float:
        """Frames per second once every worker has committed: the slope of a line through the commits.

        The time between two of them would depend on whether workers that do equal work commit at the same moment or in turn.
        """
        seconds, frames = np.array(self.commits[workers - 1 :]).T
        return float(np.polyfit(seconds, frames, deg=1)[0])


# Where the time goes


def microseconds(work: Callable[[], object], repeats: int = 200) -> float:
    """The median time of `work`."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def take_a_frame_apart(policy: str, steps: int = 1000) -> None:
    """Print where the time of one frame of an episode goes, step by step."""
    config = CollectConfig(out=Path("unused"), policy=policy, seed=SEED, max_steps=steps, episodes_per_shard=1)
    spec = resolve_spec(config)
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = work(*arguments)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
        return result

    seed, policy_rng = episode_seeds(SEED, 0)
    env = timed("build and reset the environment", make_image_env, spec.env, {})
    raw = timed("build and reset the environment", env.reset, seed)
    driver = make_policy(policy, env.gym)
    driver.reset(policy_rng)
    preprocess = FramePreprocessor(raw.shape, spec.preprocessing)
    world, draw = env.gym.unwrapped, env.gym.unwrapped._render
    world._render = lambda mode: timed("draw the observation", draw, mode)
    for _ in range(steps):
        action = env.record_action(timed("policy", driver.act, raw))
        timed("crop and resize to 64x64", preprocess, raw)
        timed("read the state", env.state)
        raw = timed("step", env.step, action)[0]
    episode = rollout(spec, 0)
    timed("compress and build the shard", lambda: build_shard([episode], spec_hash="0" * 64))
    spent["physics, rewards, wrappers (Gymnasium's own)"] = spent.pop("step") - spent["draw the observation"]
    total = sum(spent.values())
    print(f"\nWhere one frame's time goes, {policy}, {steps} steps")
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {name:46}{1e6 * seconds / steps:8.1f} us{100 * seconds / total:6.1f} %")


def take_drawing_apart(step_count: int, title: str) -> None:
    """Print where the time of drawing one frame goes."""
    env = FastCarRacing()
    env.reset(seed=SEED)
    driver = DriverPolicy(env)
    driver.reset(np.random.default_rng(0))
    for _ in range(step_count):
        env.step(driver.act(np.zeros(0)))
    scene = env._scene
    score = fast_env._score(env.reward)
    scene.observe(env.car, env.t)
    work = fast_env.workspace(len(scene.world.quads))
    arguments = (work, scene.world, scene.car_shape, scene.state)
    listed = kernels.list_polygons(*arguments)
    frame_HWC = np.empty((kernels.FRAME_H, kernels.FRAME_W, 3), dtype=np.uint8)
    text = (score.grey_HW, score.left, score.top, frame_HWC)
    rows = {
        "take down the car's state (Python)": microseconds(lambda: scene.observe(env.car, env.t)),
        "format and look up the score": microseconds(lambda: fast_env._score(env.reward)),
        "transform, cull, scan convert": microseconds(lambda: kernels.list_polygons(*arguments)),
        "paint and filter the cells": microseconds(lambda: kernels.draw_bands(work, *text)),
        "whole observation": microseconds(lambda: env._render("state_pixels")),
    }
    print(f"\nDrawing the same frame again, {title} ({listed} polygons in sight), microseconds")
    for name, value in rows.items():
        print(f"  {name:46}{value:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="laps to time, and rounds of collecting")
    parser.add_argument("--episodes", type=int, default=48, help="episodes of 1,000 steps to collect in a round")
    arguments = parser.parse_args()
    print(describe_machine(*PACKAGES))
    warm_up()
    compare_environments(arguments.rounds)
    time_resets()
    take_a_frame_apart("driver(noise=0.3)")
    take_drawing_apart(300, "on the road")
    take_drawing_apart(5, "zoomed out at the start")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    for policy in ("brownian", quickstart_policy()):
        compare_collecting(policy, arguments.episodes, arguments.rounds)
    ray.shutdown()


if __name__ == "__main__":
    main()
