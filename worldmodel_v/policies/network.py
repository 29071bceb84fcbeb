"""A network between what it sees and an action."""

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete, Space

from worldmodel_v.policies.acting import FRAME
from worldmodel_v.untrusted import shortened


def chosen_action(output: np.ndarray, space: Space[Any]) -> Any:
    """The action of an output (1, A) or (A,); for discrete actions the largest of logits (1, n) or (n,).

    Raises ValueError if there are several actions, or not n logits, as from a part of a network or another one, or if a logit
    is NaN, which `argmax` would choose.
    """
    if not isinstance(space, Discrete):
        if output.ndim <= len(space.shape or ()):
            return output
        if len(output) != 1:
            raise ValueError(f"the policy's network gives {output.shape}, expected one action of {space}")
        return output[0]
    if output.size != space.n:
        raise ValueError(f"the policy's network gives {output.shape}, expected {space.n} logits for {space}")
    if np.isnan(output).any():
        raise ValueError(f"the policy's network gives NaN: {output.tolist()}; give weights that compute numbers")
    return int(space.start + output.argmax())


def unusable_input(error: Exception, shape: tuple[int, ...], acts_on: str) -> ValueError:
    """What is raised in the place of an error that a network raised for an input of this shape: it says the shape."""
    said = shortened(" ".join(f"{type(error).__name__}: {error}".split()))
    hint = "; a frame is the environment's own, neither cropped nor resized" if acts_on == FRAME else ""
    return ValueError(f"the policy's network fails on float32 {list(shape)}: {said}{hint}")
