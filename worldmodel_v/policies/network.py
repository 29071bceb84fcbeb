"""From a network's output to an action."""

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete, Space


def chosen_action(output: np.ndarray, space: Space[Any]) -> Any:
    """The action of an output (1, A) or (A,); for discrete actions the largest of logits (1, n) or (n,).

    Raises ValueError if there are not n of them, as from a part of a network or another one, or if one is NaN, which `argmax`
    would choose.
    """
    if not isinstance(space, Discrete):
        return output[0] if output.ndim > len(space.shape or ()) else output
    if output.size != space.n:
        raise ValueError(f"the policy's network gives {output.shape}, expected {space.n} logits for {space}")
    if np.isnan(output).any():
        raise ValueError(f"the policy's network gives NaN: {output.tolist()}; give weights that compute numbers")
    return int(space.start + output.argmax())
