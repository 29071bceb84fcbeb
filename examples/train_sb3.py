"""Trains Stable-Baselines3's PPO for a moment on this package's CarRacing and on Gymnasium's own: the returns are equal.

    pip install stable-baselines3
    python examples/train_sb3.py [--steps 2048]

All that changes in a training script of your own is the name of the environment.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that wait leave the cores to others

import argparse
import time

import gymnasium
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor

ENVIRONMENTS = ("worldmodel_v.envs:worldmodel_v/CarRacing-v3", "CarRacing-v3")
"""The part before the colon is a module that Gymnasium imports, which registers the environment."""

EPISODE_STEPS = 250


def returns(env_id: str, steps: int) -> list[float]:
    """The return of each episode of a short training."""
    env = Monitor(gymnasium.make(env_id, max_episode_steps=EPISODE_STEPS))
    model = PPO("CnnPolicy", env, n_steps=256, batch_size=64, n_epochs=2, seed=0, device="cpu")
    model.learn(steps)
    return env.get_episode_rewards()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2048)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)  # so that sums have one order
    found = []
    for env_id in ENVIRONMENTS:
        start = time.perf_counter()
        found.append(returns(env_id, steps))
        print(f"{env_id}: {time.perf_counter() - start:.1f} s, returns {' '.join(f'{value:.2f}' for value in found[-1])}")
    if found[0] != found[1]:
        raise SystemExit("the returns are not equal")
    print("the returns are equal")


if __name__ == "__main__":
    main()
