"""Settings that change with the step. They are functions of the step alone, so a checkpoint needs no state for them."""

import math
from typing import Literal

import numpy as np

Schedule = Literal["constant", "cosine"]


def learning_rate_factor(step: int, schedule: Schedule, warmup_steps: int, steps: int) -> float:
    """The factor of the learning rate at a step: it rises linearly to 1 over `warmup_steps`, and is above 0 at the first step.
    Then it stays 1, or follows half a cosine to 0 at `steps` (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))


def step_seed(seed: int, step: int, *purpose: int) -> int:
    """The seed of the random numbers of a step; those of each purpose are independent of all others."""
    sequence = np.random.SeedSequence((seed, step), spawn_key=purpose)
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
