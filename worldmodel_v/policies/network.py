"""From a network's output to an action."""

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete, Space


def chosen_action(output: np.ndarray, space: Space[Any]) -> Any:
    """The action of an output (1, A) or (A,); for discrete actions the largest of logits (1, n) or (n,)."""
    discrete = isinstance(space, Discrete)
    num_dims = 1 if discrete else len(space.shape or ())
    output = output[0] if output.ndim > num_dims else output
    return int(output.argmax()) if discrete else output
