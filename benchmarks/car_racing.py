"""How fast ``FastCarRacing`` is, side by side with Gymnasium in one run.

    SDL_VIDEODRIVER=dummy python benchmarks/car_racing.py [--rounds N]

The contestants take turns in short rounds on the same recorded lap, so that
whatever else the machine does strikes them alike; each figure is the median of
its rounds.  EnvPool takes part if it is installed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import numpy as np
from _machine import describe_machine
from gymnasium.envs.box2d.car_racing import CarRacing

from worldmodel_v.envs.fast_car_racing import FastCarRacing, kernels, warm_up
from worldmodel_v.envs.fast_car_racing import env as fast_env
from worldmodel_v.policies import DriverPolicy

SEED = 3
ZOOM_IN_STEPS = 50
PACKAGES = ("gymnasium", "pygame-ce", "Box2D", "numpy", "numba", "envpool")


class PhysicsOnly(CarRacing):
    """Gymnasium's environment without any drawing."""

    def _render(self, mode: str) -> None:
        return None


def record_lap() -> list[np.ndarray]:
    """The actions of a lap on the track of ``SEED``."""
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


def compare(rounds: int) -> None:
    """Print steps per second and ratios."""
    actions = record_lap()
    parts = 12  # of a lap
    steps = len(actions) // parts
    runners: dict[str, tuple[Runner | EnvPoolRunner, int]] = {
        "Gymnasium": (Runner(CarRacing, actions), steps),
        "fast": (Runner(FastCarRacing, actions), steps),
        "physics only": (Runner(PhysicsOnly, actions), steps),
    }
    try:
        runners["EnvPool"] = (EnvPoolRunner(actions), steps)
    except ImportError:
        print("EnvPool is not installed")
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds * parts):
        for name, (runner, count) in runners.items():
            times[name].append(runner.run(count))
    whole = {name: statistics.fmean(values) for name, values in times.items()}
    print(f"\n{'':14}{'steps/s':>10}{'us/step':>10}{'x Gymnasium':>13}{'x physics':>11}")
    for name, seconds in whole.items():
        print(
            f"{name:14}{1 / seconds:10.0f}{1e6 * seconds:10.1f}"
            f"{whole['Gymnasium'] / seconds:13.1f}{whole['physics only'] / seconds:11.2f}"
        )
    per_round = [g / f for g, f in zip(times["Gymnasium"], times["fast"], strict=True)]
    low, middle, high = np.percentile(per_round, [10, 50, 90])
    print(f"fast / Gymnasium by round: median {middle:.1f}, 10..90 % {low:.1f}..{high:.1f}")


def microseconds(work: Callable[[], object], repeats: int = 200) -> float:
    """The median time of ``work``."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def take_apart(step_count: int, title: str) -> None:
    """Print where the time of one frame goes."""
    env = FastCarRacing()
    env.reset(seed=SEED)
    driver = DriverPolicy(env)
    driver.reset(np.random.default_rng(0))
    for _ in range(step_count):
        env.step(driver.act(np.zeros(0)))
    scene = env._scene
    score = fast_env._score(f"{env.reward:04.0f}")
    scene.observe(env.car, env.t)
    arguments = (scene.work, scene.world, scene.car_shape, scene.state)
    listed = kernels.list_polygons(*arguments)
    frame_HWC = np.empty((kernels.FRAME_H, kernels.FRAME_W, 3), dtype=np.uint8)
    text = (score.grey_HW, score.left, score.top, frame_HWC)
    rows = {
        "take down the car's state (Python)": microseconds(lambda: scene.observe(env.car, env.t)),
        "format and look up the score": microseconds(lambda: fast_env._score(f"{env.reward:04.0f}")),
        "transform, cull, scan convert": microseconds(lambda: kernels.list_polygons(*arguments)),
        "paint and filter the cells": microseconds(lambda: kernels.draw_bands(scene.work, *text)),
        "whole observation": microseconds(lambda: env._render("state_pixels")),
    }
    print(f"\nOne frame, {title} ({listed} polygons in sight), microseconds")
    for name, value in rows.items():
        print(f"  {name:36}{value:8.1f}")


def time_resets() -> None:
    """Print the time of ``reset``."""
    for make in (CarRacing, PhysicsOnly, FastCarRacing):
        env = make()
        print(f"reset, {make.__name__:15}{microseconds(lambda e=env: e.reset(seed=SEED), 20):9.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="laps to time")
    arguments = parser.parse_args()
    print(describe_machine(*PACKAGES))
    warm_up()
    compare(arguments.rounds)
    take_apart(300, "on the road")
    take_apart(5, "zoomed out at the start")
    print()
    time_resets()


if __name__ == "__main__":
    main()
