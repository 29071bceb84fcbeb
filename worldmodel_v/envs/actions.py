"""From a policy's action to the one that is recorded, which the environment then receives."""

import copy
import operator
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np

from worldmodel_v.errors import shown
from worldmodel_v.schema import ActionSpace, space_record

NO_REAL_NUMBERS = "cSUmMO"
"""Kinds of arrays that hold no real numbers, though NumPy makes some of them if it is asked to: complex ones, texts, times,
objects."""


class Actions:
    """The actions of one environment."""

    def __init__(self, space: gymnasium.Space) -> None:
        """Raises ValueError if a dataset cannot hold them."""
        self.space = copy.deepcopy(space)  # the environment may change its own
        self.as_recorded = ActionSpace(space_record(space))
        """The space as a dataset records it."""

        self._inner = _inner_bounds(space) if self.as_recorded.kind == "continuous" else None

    def recorded(self, action: Any) -> np.ndarray | int:
        """An action as the dataset holds it: int for a discrete space, else float32 or int64 (A,).

        It is what the environment then receives, cast to its space's dtype first, so that recorded episodes replay.
        Raises ValueError if the action does not have the space's shape or its dtype cannot hold it, TypeError if it is no
        numbers, or the space is discrete and the action is no whole number.
        """
        if np.ma.is_masked(action):
            raise TypeError(f"the policy's action is {shown(action)}, of which values are masked; fill them")
        if self.as_recorded.row_shape == ():
            return self._number(action)
        given = self._array(action)
        if given.shape != self.space.shape:
            raise ValueError(f"the policy's action has shape {given.shape}, the action space {self.space.shape}")
        return self._real(given) if self.as_recorded.kind == "continuous" else self._whole(given)

    def received(self, recorded: np.ndarray | int) -> Any:
        """What the environment receives for an action that is given as it is recorded."""
        if isinstance(recorded, int):
            return self.space.dtype.type(recorded)
        return recorded.astype(self.space.dtype).reshape(self.space.shape)

    def _number(self, action: Any) -> int:
        try:
            return operator.index(action)
        except TypeError:
            raise TypeError(f"the policy's action is {shown(action)}, expected a whole number for {self.space}") from None

    def _array(self, action: Any) -> np.ndarray:
        given: np.ndarray | None = None
        with suppress(ValueError, TypeError):  # it is no array: (action, state), a dictionary
            given = np.array(action)  # a copy: a policy may use its array again
            if given.dtype.kind == "O":  # `astype` would make NaN of None
                given = np.reshape([*map(float, given.flat)], given.shape)
        if given is None or given.dtype.kind in NO_REAL_NUMBERS:
            raise TypeError(f"the policy's action is {shown(action)}, expected numbers for {self.space}")
        return given

    def _real(self, given: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            given = given.astype(np.float32, copy=False)
        given = given if self._inner is None else self._inner(given)
        received = given if self.space.dtype == np.float32 else given.astype(self.space.dtype).astype(np.float32)
        return received.reshape(-1)

    def _whole(self, given: np.ndarray) -> np.ndarray:
        if self.as_recorded.kind == "discrete" and given.dtype.kind not in "iu":
            raise TypeError(f"the policy's action is {shown(given)}, expected whole numbers for {self.space}")
        with np.errstate(invalid="ignore"):
            received = given.astype(self.space.dtype)
        if not (np.abs(received.astype(np.float64) - given) < 1).all():
            raise ValueError(f"the policy's action {given.tolist()} does not go into {self.space}")
        return received.astype(np.int64).reshape(-1)


def require_inside(
    space: gymnasium.Space,
    actions: ActionSpace,
    recorded_actions: np.ndarray,
    whose: str = "the policy's action",
    first_step: int = 0,
) -> None:
    """Raise ValueError, naming the step, unless all recorded actions from `first_step` on, (T, A) or (T,), lie in the space, of
    which `actions` is the record."""
    if actions.kind == "continuous":  # recorded in float32, so the bounds are rounded to float32
        with np.errstate(over="ignore"):
            low, high = (bound.astype(np.float32).reshape(-1) for bound in (space.low, space.high))
    else:
        low, high = (bound.reshape(actions.row_shape) for bound in (actions.low, actions.high))
    inside = (recorded_actions >= low) & (recorded_actions <= high)
    if not inside.all():
        step = int(np.argwhere(~inside)[0, 0])
        got = recorded_actions[step].tolist()
        raise ValueError(f"{whose} in step {first_step + step} is {got}, outside {space}; clip it")


def _inner_bounds(space: gymnasium.Space) -> Callable[[np.ndarray], np.ndarray] | None:
    """Moves float32 actions at a bound that float32 rounds to beyond the space to the float32 number within.

    So an environment of float64 never receives an action outside of its space because it was rounded. None if float32 holds
    the bounds.
    """
    assert isinstance(space, gymnasium.spaces.Box)
    with np.errstate(over="ignore"):
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    least = np.where(low < space.low, np.nextafter(low, up), low)
    most = np.where(high > space.high, np.nextafter(high, down), high)
    if (least == low).all() and (most == high).all():
        return None
    return lambda given: np.where(given == low, least, np.where(given == high, most, given))
