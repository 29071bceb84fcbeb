"""The condition that a conditional VAE gets beside the frames: chosen factors of `state`, the action, or both.

Legend: N rows, K values of the condition.

The condition of row t is in row t: the state at o_t, and the action a_t that was chosen on o_t (not the one that led to o_t).
Values are in the data's own units; the VAE standardises them by the statistics of `measure_condition`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.evenly import evenly_spaced
from worldmodel_v.storage import Rollouts, Shard

ACTION = "action"

ConditionReader = Callable[[Shard, int, int], np.ndarray]
"""(shard, start, stop) -> float32 (stop - start, K)."""


class ConditionStatistics(NamedTuple):
    """The condition over a set of episodes."""

    mean: np.ndarray
    """float32 (K,)"""

    std: np.ndarray
    """float32 (K,): 0 for a value that never varies."""


def condition_rows(shard: Shard, names: Sequence[str], start: int, stop: int) -> np.ndarray:
    """float32 (stop - start, K): for each name its `state` factor, for "action" the action as a vector.

    An episode's last row has no action: its values are zeros. A discrete action becomes one-hot over its space. Raises
    ModelNotUsable if the shard lacks a name.
    """
    require_recorded(shard, names)
    state_names = shard.state_names
    state = shard.rows("state", start, stop) if state_names else np.empty((stop - start, 0), np.float32)
    columns = {name: state[:, [column]] for column, name in enumerate(state_names)}
    if ACTION in names:
        columns[ACTION] = shard.schema.actions.vectors(shard.rows("action", start, stop))
    return np.concatenate([columns[name] for name in names], axis=1).astype(np.float32)


def condition_reader(names: Sequence[str], dim: int) -> ConditionReader | None:
    """`condition_rows` for a VAE's own names and K; None for a VAE without a condition.

    The reader raises ModelNotUsable if the data's condition has another size, which means another action space.
    """
    if not names:
        return None

    def read(shard: Shard, start: int, stop: int) -> np.ndarray:
        values = condition_rows(shard, names, start, stop)
        if values.shape[1] != dim:
            raise ModelNotUsable(
                f"its condition on {', '.join(names)} has {values.shape[1]} values, the VAE was trained with {dim}",
                where=shard.source,
                remedy="give data of the same actions",
            )
        return values

    return read


def measure_condition(dataset: Rollouts, names: Sequence[str], wanted: Callable[[int], bool]) -> ConditionStatistics:
    """Mean and standard deviation of each of the K values over the chosen episodes."""
    dim = _condition_dim(dataset, names)
    count, total, squares = 0, np.zeros(dim), np.zeros(dim)
    for _, shard in dataset.shards():
        keep = np.repeat([wanted(int(episode)) for episode in shard.episode_ids], shard.ep_len)
        values = condition_rows(shard, names, 0, shard.num_rows)[keep].astype(np.float64)
        count, total, squares = count + len(values), total + values.sum(axis=0), squares + np.square(values).sum(axis=0)
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - np.square(mean), 0.0))
    return ConditionStatistics(mean.astype(np.float32), std.astype(np.float32))


def read_conditions(dataset: Rollouts, wanted: Callable[[int], bool], limit: int, condition: ConditionReader) -> np.ndarray:
    """float32 (n, K): the conditions of the same rows that `read_frames` picks with the same arguments."""
    parts: list[np.ndarray] = []
    for _, shard in dataset.shards():
        keep = np.repeat([wanted(int(episode)) for episode in shard.episode_ids], shard.ep_len)
        if keep.any():
            parts.append(condition(shard, 0, shard.num_rows)[keep])
    rows = np.concatenate(parts)
    return rows[evenly_spaced(len(rows), limit)]


def require_recorded(shard: Shard, names: Sequence[str]) -> None:
    """Raise ModelNotUsable, which lists the recorded names, if the shard lacks one of `names`."""
    recorded = (ACTION, *shard.state_names)
    if missing := [name for name in names if name not in recorded]:
        raise ModelNotUsable(
            f"records no {missing[0]!r} for a VAE to be conditional on; it has {', '.join(recorded)}", where=shard.source
        )


def _condition_dim(dataset: Rollouts, names: Sequence[str]) -> int:
    """K: one value for each state factor, and for the action the size of its vector."""
    return sum(dataset.schema.actions.vector_size if name == ACTION else 1 for name in names)
