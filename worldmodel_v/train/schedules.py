"""Settings that change with the step: functions of it alone, so that a checkpoint holds no state of them."""

import math
from typing import Literal

Schedule = Literal["constant", "cosine"]


def learning_rate_factor(step: int, schedule: Schedule, warmup_steps: int, steps: int) -> float:
    """What the learning rate is multiplied by at a step: linear up to 1 over `warmup_steps`, the first of which is not 0;
    then 1, or half a cosine that is 0 at `steps` (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))
