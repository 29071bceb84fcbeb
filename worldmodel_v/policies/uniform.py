"""`random`: every action drawn independently from the action space."""

import copy
from typing import Any

import gymnasium
import numpy as np


class RandomPolicy:
    """Samples the action space. On CarRacing it hardly moves: steering and brakes cancel out within a few steps."""

    def __init__(self, env: gymnasium.Env) -> None:
        self._of_env = env.action_space

    def reset(self, rng: np.random.Generator) -> None:
        self._space = copy.copy(self._of_env)  # an environment may draw from its own, and does so again without this policy
        self._space.seed(int(rng.integers(2**31)))

    def act(self, frame: np.ndarray) -> Any:
        return self._space.sample()
