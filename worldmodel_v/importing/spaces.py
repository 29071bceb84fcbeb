"""The space that actions come from: as the recording says it, as the user says it, or for floats without bounds.

The number of discrete actions is never taken from the data: the largest one that was recorded need not be the largest there is.
"""

import json
import math
from typing import Any

import gymnasium
import numpy as np

from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.schema import ActionSpace, space_record
from worldmodel_v.surface import option
from worldmodel_v.untrusted import parse_object

EXPECTED = (
    'discrete:5, discrete:5:1 (five actions from 1 on), box:-1,1, or JSON such as {"type": "Box", "dtype": "float32", '
    '"shape": [3], "low": [-1, 0, 0], "high": 1}'
)


def parse_space(text: str, row_shape: tuple[int, ...]) -> dict[str, Any]:
    """The record of a space that the user states, for actions of this shape; raises ConfigError."""
    kind, _, rest = text.partition(":")
    try:
        if kind == "discrete":
            count, *start = map(int, rest.split(":"))
            record = space_record(gymnasium.spaces.Discrete(count, start=start[0] if start else 0))
        elif kind == "box":
            low, high = (float(bound) for bound in rest.split(","))
            record = {"type": "Box", "dtype": "float32", "shape": [*row_shape] or [1], "low": _json(low), "high": _json(high)}
        else:
            record = parse_object(text)
        if (bounds := bounds_of(ActionSpace(record))) is not None and not (bounds[0] <= bounds[1]).all():
            raise ValueError("the bounds are in the wrong order")
    except (ValueError, TypeError, KeyError, AssertionError, OverflowError) as error:
        raise ConfigError(f"is no space of actions ({error})", field="action_space", got=text, expected=EXPECTED) from None
    return json.loads(json.dumps(record))


def space_of(stated: str | None, recorded: gymnasium.Space | None, actions: np.ndarray, where: str) -> ActionSpace:
    """The space of actions (T, …); raises DatasetNotUsable if nobody says it, or if a dataset cannot hold it."""
    if stated is not None:
        return ActionSpace(parse_space(stated, actions.shape[1:]))
    shape = [*actions.shape[1:]] or [1]
    unbounded = {"type": "Box", "dtype": "float32", "shape": shape, "low": "-inf", "high": "inf"}
    if recorded is not None or actions.dtype.kind == "f":
        try:
            return ActionSpace(unbounded if recorded is None else space_record(recorded))
        except ValueError as error:
            raise DatasetNotUsable(str(error), where=where) from None
    if actions.dtype.kind not in "iub":
        raise DatasetNotUsable(where=where, expected="actions: numbers", got=actions.dtype)
    raise DatasetNotUsable(
        f"its actions are whole numbers ({actions.dtype}), and how many there are it does not say",
        where=where,
        remedy=f"say it, such as {option('action_space', 'discrete:5')}",
    )


def _json(bound: float) -> float | str:
    return bound if math.isfinite(bound) else str(bound)


def bounds_of(space: ActionSpace) -> tuple[np.ndarray, np.ndarray] | None:
    """The smallest and the largest action, of the row's shape; None for a space that is recorded without them."""
    if space.kind != "continuous":
        return np.broadcast_to(space.low, space.shape), np.broadcast_to(space.high, space.shape)
    if space.record.get("low") is None or space.record.get("high") is None:
        return None
    low, high = (np.array(space.record[bound], np.float64).astype(np.float32) for bound in ("low", "high"))
    return np.broadcast_to(low, space.shape), np.broadcast_to(high, space.shape)
