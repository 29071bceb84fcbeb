"""`brownian`: a random walk in action space, the usual correlated noise for collecting from CarRacing.

White noise averages out before the car has moved; a walk keeps a direction long enough to move the car. The variance of a step
is 1/50 per action, because one second of CarRacing has 50 frames (as in the rollouts of ctallec/world-models).
"""

import math

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.surface import option

STEPS_PER_SECOND = 50
STEP_DEVIATION = 1 / math.sqrt(STEPS_PER_SECOND)


class BrownianPolicy:
    """a_0 uniform in the action space; a_t+1 = a_t + N(0, 1/50), clipped to the space. Needs a bounded Box."""

    def __init__(self, env: gymnasium.Env) -> None:
        space = env.action_space
        if not isinstance(space, Box) or not space.is_bounded():
            remedy = f"use {option('policy', 'random')}"
            raise PolicyNotUsable(f"policy brownian needs bounded continuous actions, this environment has {space}; {remedy}")
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)

    def reset(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._action: np.ndarray | None = None

    def act(self, frame: np.ndarray) -> np.ndarray:
        if self._action is None:
            self._action = self._rng.uniform(self._low, self._high)
        else:
            step = self._rng.standard_normal(self._low.shape) * STEP_DEVIATION
            self._action = np.minimum(np.maximum(self._action + step, self._low), self._high)
        return self._action
