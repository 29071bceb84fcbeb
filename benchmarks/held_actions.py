"""CarRacing with rows of 80 ms instead of 20 ms, driven by independent actions: for `readiness.py`.

    PYTHONPATH=benchmarks wm-collect --env held_actions:HeldActions-v0 --policy held_actions:AnyWay --crop 0:84,0:96 \\
        --episodes 500 --max-steps 250 --seed 4 --out runs/held/rollouts

Each action is held for four steps, so that the next frame shows its effect. The policy steers and accelerates at random and
never brakes: if random actions brake too, the car hardly moves.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

import worldmodel_v.envs  # noqa: F401  (registers CarRacing)
from worldmodel_v.policies import RandomPolicy

TIMES = 4
BRAKE = 2


class HeldActions(gymnasium.Wrapper):
    """Takes each action four times and adds up its rewards."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total = 0.0
        for _ in range(TIMES):
            frame, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return frame, total, terminated, truncated, info


class AnyWay(RandomPolicy):
    """Any steering, any gas, no brake."""

    def act(self, frame: np.ndarray) -> Any:
        action = super().act(frame)
        action[BRAKE] = 0
        return action


def make_held_actions() -> gymnasium.Env:
    return HeldActions(gymnasium.make("worldmodel_v/CarRacing-v3").unwrapped)


gymnasium.register("HeldActions-v0", entry_point="held_actions:make_held_actions")
