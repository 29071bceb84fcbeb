"""Notes on what is lost, for several formats."""

from typing import Any

import numpy as np

from worldmodel_v.export.source import Source

PAPER_SIZES = (32, 3)
"""Z and A of CarRacing in the paper, which are hard-coded in other trainers."""


def action_vectors(source: Source, dtype: Any = np.float32) -> list[str]:
    """A note that discrete actions became vectors, or that `dtype`, in which the vectors are, rounds whole numbers."""
    space = source.actions_space
    if space.kind == "discrete":
        return [f"action: discrete, written one-hot over the {space.vector_size} values of its space"]
    exact = 2 ** (np.finfo(dtype).nmant + 1)
    if space.kind == "whole" and max(-int(space.low.min()), int(space.high.max())) > exact:
        return [f"action: whole numbers, of which those beyond {exact:,} are rounded to {np.dtype(dtype)}"]
    return []


def no_truncation(source: Source, column: str) -> list[str]:
    """A note that `column` does not record truncation, if any episode was truncated."""
    truncated = int((~source.terminated).sum())
    if not truncated:
        return []
    return [f"truncated: not held; {column} is terminated alone ({truncated} of {source.num_episodes} episodes were truncated)"]


def absent_reward(source: Source) -> list[str]:
    """A note that nobody recorded rewards, as in some imported data."""
    return ["reward: nobody recorded it; where the format holds one, it is NaN"] if source.schema["reward"].absent else []


def not_held(source: Source) -> list[str]:
    """A note on the ground truth and further columns that are left out, if there are any."""
    state = [f"state: not held ({len(source.state_names)} factors)"] if source.state_names else []
    return [*state, *(f"{column.name}: not held" for column in source.schema.by_role("extra"))]
