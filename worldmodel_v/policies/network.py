"""From a network's output to an action."""

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete, Space


def chosen_action(output: np.ndarray, space: Space[Any]) -> Any:
    """The action of an output (1, A) or (A,); for discrete actions the largest of logits (1, n) or (n,).

    Raises ValueError if there are not n of them: what gives others is a part of a network, or another one.
    """
    if not isinstance(space, Discrete):
        return output[0] if output.ndim > len(space.shape or ()) else output
    if output.size != space.n:
        raise ValueError(f"the policy's network gives {output.shape}, expected {space.n} logits for {space}")
    return int(space.start + output.argmax())
