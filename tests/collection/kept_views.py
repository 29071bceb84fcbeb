"""Environments, wrappers and policies that write into what they have given or been given; beside each a polite one."""

from typing import Any

import gymnasium
import numpy as np

from worldmodel_v.envs.stamp import StampEnv


class OneBuffer(StampEnv):
    """The toy world, which draws into one array, tells of a second one in `info`, and counts in what it was made with."""

    def __init__(self, *, rude: bool, counted: dict[str, int]) -> None:
        super().__init__(length=5, size=16)
        self._rude, self._counted = rude, counted
        self._frame, self._steps = np.empty((16, 16, 3), np.uint8), np.zeros(2, np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        frame, _ = super().reset(seed=seed)
        self._steps[:] = 0
        if self._rude:
            self._counted["episodes"] += 1
        return self._shown(frame)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        frame, reward, terminated, truncated, _ = super().step(action)
        self._steps += 1
        if self._rude:
            action[:] = 7
        frame, info = self._shown(frame)
        return frame, reward, terminated, truncated, info

    def _shown(self, frame: np.ndarray) -> tuple[np.ndarray, dict]:
        if not self._rude:
            return frame, {"steps": self._steps.copy()}
        self._frame[:] = frame
        return self._frame, {"steps": self._steps}


class Smudging(gymnasium.Wrapper):
    """Blackens each frame when the next one comes."""

    _last: np.ndarray | None = None

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        if self._last is not None:
            self._last[:] = 0
        given = self.env.step(action)
        self._last = given[0]
        return given


class Drift:
    """Returns one array, which it changes at every step, and may work in place on its frame."""

    def __init__(self, env: gymnasium.Env, rude: float) -> None:
        self._rude, self._action = bool(rude), np.zeros(2, np.float32)

    def reset(self, rng: np.random.Generator) -> None:
        self._action[:] = 0

    def act(self, frame: np.ndarray) -> np.ndarray:
        if self._rude:
            frame -= frame // 2
            self._action += np.float32(0.1)
            return self._action
        self._action = self._action + np.float32(0.1)
        return self._action


if "tests/OneBuffer-v0" not in gymnasium.registry:
    gymnasium.register("tests/OneBuffer-v0", entry_point="tests.collection.kept_views:OneBuffer")
