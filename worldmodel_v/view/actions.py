"""The action space as the page needs it: a name, the smallest, largest and idle value of each part, and the keys that move it.

Legend: A parts of an action.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from worldmodel_v.profiles import profile_of
from worldmodel_v.schema import ActionSpace, Schema
from worldmodel_v.untrusted import printable

LEFT, RIGHT, UP, DOWN = "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"


def actions_for_page(env: str, schema: Schema, recorded_NA: np.ndarray) -> dict[str, Any]:
    """All parts of an action; `recorded_NA` gives the range where the space has no bound."""
    space = schema.actions
    low, high = _bounds(space, recorded_NA)
    profile = profile_of(env)
    named = schema.action.parts or (profile.action_names if profile else ())
    count = recorded_NA.shape[1]
    names = named if len(named) == count else [f"action {i}" if count > 1 else "action" for i in range(count)]
    rest = np.clip(0.0, low, high) if space.kind != "discrete" else low
    return {
        "kind": space.kind,
        "names": [printable(name) for name in names],
        "low": low.tolist(),
        "high": high.tolist(),
        "rest": rest.tolist(),
        "keys": keys_for(space.kind, low, high, rest),
    }


def keys_for(kind: str, low: np.ndarray, high: np.ndarray, rest: np.ndarray) -> list[dict[str, Any]]:
    """Which arrow key moves which part to which value: left and right the first, up and down the others.

    A part that can only grow, such as gas, has one key; the next part then has the other. Of one discrete action, the keys are
    its first values after the lowest.
    """
    if kind == "discrete" and len(low) == 1:
        values = range(int(low[0]) + 1, int(high[0]) + 1)
        return [{"key": key, "part": 0, "value": value} for key, value in zip((LEFT, RIGHT, UP, DOWN), values, strict=False)]
    keys = [{"key": LEFT, "part": 0, "value": float(low[0])}, {"key": RIGHT, "part": 0, "value": float(high[0])}]
    free = [UP, DOWN]
    for part in range(1, len(low)):
        for value in (high[part], low[part]):
            if value != rest[part] and free:
                keys.append({"key": free.pop(0), "part": part, "value": float(value)})
    return keys


def _bounds(space: ActionSpace, recorded_NA: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 (A,) each, always finite."""
    if space.kind != "continuous":
        return space.low.ravel().astype(float), space.high.ravel().astype(float)
    values = np.where(np.isfinite(recorded_NA), recorded_NA, 0.0)
    bounds = []
    for name, found in (("low", values.min(axis=0)), ("high", values.max(axis=0))):
        told = _broadcast(space.record.get(name), space.shape, recorded_NA.shape[1])
        bounds.append(np.where(np.isfinite(told), told, found))
    return bounds[0], bounds[1]


def _broadcast(bound: Any, shape: Sequence[int], count: int) -> np.ndarray:
    if bound is None:
        return np.full(count, np.inf)
    return np.broadcast_to(np.array(bound, dtype=np.float64), shape).ravel()
