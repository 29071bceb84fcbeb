"""What a policy acts on: the frame, or the environment's own observation if it has `acts_on = "observation"`."""

from typing import Any

import numpy as np

FRAME, OBSERVATION = "frame", "observation"


def acts_on(policy: Any) -> str:
    """FRAME or OBSERVATION, for a policy made of others as of its last `reset`."""
    return getattr(policy, "acts_on", FRAME)


def next_action(policy: Any, frame: np.ndarray, observation: Any) -> Any:
    """The action on a frame and the observation beside it."""
    return policy.act(observation if acts_on(policy) == OBSERVATION else frame)
