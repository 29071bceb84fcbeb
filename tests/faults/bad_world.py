"""An environment of which one episode goes wrong in its third step, for as long as a file is there."""

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from worldmodel_v.envs.stamp import StampEnv

SECONDS_OF_A_HANG = 3600
BAD_STEP = 2


def _raise() -> None:
    raise ValueError("the wheels\ncame off")


FAULTS: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "exit": lambda: os._exit(3),
    "crash": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(SECONDS_OF_A_HANG),
    "hang and hold the GIL": lambda: ctypes.PyDLL(None).sleep(SECONDS_OF_A_HANG),
}


class BadWorld(StampEnv):
    """The toy world; an episode with one of `seeds` has `fault` while the file `marker` exists, or `once`."""

    def __init__(self, fault: str, seeds: list[int], marker: str, once: bool = False) -> None:
        super().__init__(length=5, size=8)
        self._fault, self._seeds, self._marker, self._once = FAULTS[fault], seeds, Path(marker), once

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._is_bad = seed in self._seeds
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self._is_bad and self.stamps[0] == BAD_STEP and self._marker.exists():
            if self._once:
                self._marker.unlink()
            self._fault()
        return super().step(action)


class UnclosedWorld(StampEnv):
    """The toy world, of which every episode leaves files open."""

    left_open: list[int] = []

    def __init__(self, num_files: int) -> None:
        super().__init__(length=5, size=8)
        self.left_open += [os.open(os.devnull, os.O_RDONLY) for _ in range(num_files)]


class LeakyWorld(StampEnv):
    """The toy world, of which every episode leaves 40 MB behind."""

    left_behind: list[np.ndarray] = []

    def __init__(self) -> None:
        super().__init__(length=5, size=8)
        self.left_behind.append(np.ones(40 << 20, np.uint8))


if "tests/Bad-v0" not in gymnasium.registry:
    gymnasium.register("tests/Bad-v0", entry_point="tests.faults.bad_world:BadWorld")
    gymnasium.register("tests/Leaky-v0", entry_point="tests.faults.bad_world:LeakyWorld")
    gymnasium.register("tests/Unclosed-v0", entry_point="tests.faults.bad_world:UnclosedWorld")
