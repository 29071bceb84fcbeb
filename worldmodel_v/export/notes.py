"""Notes on what is lost, for several formats."""

from worldmodel_v.export.source import Source

PAPER_SIZES = (32, 3)
"""Z and A of CarRacing in the paper, which are hard-coded in other trainers."""


def one_hot_actions(source: Source) -> list[str]:
    """A note that discrete actions became vectors, if actions are discrete."""
    space = source.actions_space
    if space.kind != "discrete":
        return []
    return [f"action: discrete, written one-hot over the {space.vector_size} values of its space"]


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
