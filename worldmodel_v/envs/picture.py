"""Turns a picture in an observation, with any of the layouts below, into uint8 (H, W), (H, W, 1) or (H, W, 3).

Legend: H, W picture; C channels, 1 or 3; T a stack of successive frames, the newest last, as gymnasium's FrameStackObservation
makes it.

From a stack, the newest frame is recorded, because the rows before hold the older ones. Floats are scaled by the bounds of
their space, low to 0 and high to 255, and rounded, a half up. Whole numbers are recorded as they are, so their bounds must be
0 and 255; with other bounds they are symbols, not brightness. The scale never depends on the values of a frame.
"""

from typing import Final, Literal

import numpy as np
from gymnasium import Space, spaces

from worldmodel_v.surface import option

Layout = Literal["auto", "HWC", "HW", "CHW", "THW", "HWT", "THWC", "TCHW"]
"""The axes of a picture, first to last."""

AUTO: Final = "auto"
PLAIN: Final = "HWC"
UNSTACKED: tuple[Layout, ...] = ("HWC", "HW", "CHW")
CHANNELS = (1, 3)
RGBA = 4
SMALLEST_CLEAR = 32
"""A smaller array that is not uint8 may be something else, such as a map."""

SYMBOLS = ((16, 31), (32, 10))
"""(side, value): an array of several values holds symbols (objects and colours by number) if its sides are below `side` and
no value exceeds `value`. MiniGrid's symbols are at most 10. A picture in a larger array may be as dark for a while."""


def layout_of(space: spaces.Box, asked: Layout = AUTO) -> Layout | None:
    """The axes of a space's values, if they can be those of a picture; `auto` never assumes a stack."""
    fitting = [layout for layout in (UNSTACKED if asked == AUTO else [asked]) if _fits(layout, space.shape)]
    return fitting[0] if len(fitting) == 1 else None


def why_no_picture(space: Space, asked: Layout = AUTO) -> str | None:
    """Why the values of a space cannot be recorded as frames, with the remedy; None if they can."""
    if not isinstance(space, spaces.Box):
        return "it is no array"
    if len(space.shape) < 2:
        return "it has no rows and columns"
    if 0 in space.shape:
        return "it has no values"
    if layout_of(space, asked) is None:
        has_four = len(space.shape) == 3 and RGBA in (space.shape[0], space.shape[2])
        rgba = "; if its fourth channel is that of RGBA, drop it in a wrapper" if has_four else ""
        unclear = f"its axes are not clear; say them with {option('layout')}"
        return (unclear if asked == AUTO else f"its axes are not {asked} with 1 or 3 channels") + rgba
    low, high = _bounds(space)
    if space.dtype.kind == "f" and (np.isinf([low, high]).any() or low >= high):
        return "floats are scaled by finite bounds, the same in every pixel; wrap it in such a space, or in uint8"
    if space.dtype.kind != "f" and (space.dtype.kind not in "iu" or (low, high) != (0, 255)):
        return "whole numbers are pixels with the bounds 0 and 255, and symbols with others; wrap it to draw them"
    return None


def is_clear(space: Space, asked: Layout = AUTO) -> bool:
    """Whether its values are almost certainly a picture, so that the user need not name it."""
    if why_no_picture(space, asked) is not None:
        return False
    assert isinstance(space, spaces.Box)
    is_large = min(_sides(space.shape, str(layout_of(space, asked)))) >= SMALLEST_CLEAR
    return space.dtype == np.uint8 or asked != AUTO or (len(space.shape) > 2 and is_large)


def _fits(layout: str, shape: tuple[int, ...]) -> bool:
    return len(layout) == len(shape) and ("C" not in layout or shape[layout.index("C")] in CHANNELS)


def _sides(shape: tuple[int, ...], layout: str) -> tuple[int, int]:
    return shape[layout.index("H")], shape[layout.index("W")]


def _bounds(space: spaces.Box) -> tuple[float, float]:
    """The lowest and the highest value; infinite if they differ between pixels."""
    low, high = float(space.low.min()), float(space.high.max())
    is_even = (space.low == low).all() and (space.high == high).all()
    return (low, high) if is_even else (-np.inf, np.inf)


class Picture:
    """Turns the values of a space into a frame."""

    def __init__(self, space: spaces.Box, layout: str) -> None:
        """`why_no_picture` finds nothing against `space` with this layout."""
        self.layout, self._dtype, (self._low, self._high) = layout, space.dtype, _bounds(space)
        self.is_plain = space.dtype == np.uint8 and layout in ("HW", PLAIN)
        """Whether its values are frames without a conversion."""

        self.sides = _sides(space.shape, layout)
        """(height, width)"""

        self._symbols = max((value for side, value in SYMBOLS if max(self.sides) < side), default=-1)
        self._faintest = 1 if space.dtype.kind == "f" and self._high > 1 else -1

        self._newest = tuple([-1 if axis == "T" else slice(None) for axis in layout])
        self._time, self._before = layout.find("T"), np.empty(0)
        self._last = layout.replace("T", "").find("C")

    def scales_by(self, space: spaces.Box) -> bool:
        """Whether floats are still scaled by the bounds of their space, which its owner may have changed."""
        return space.dtype.kind != "f" or _bounds(space) == (self._low, self._high)

    @property
    def doubtful(self) -> int:
        """First frames without a value above this may be no picture, whatever their space says. -1: they are one."""
        return max(self._symbols, self._faintest)

    def is_refuted_by(self, highest: int, *, is_varied: bool) -> bool:
        """Whether an episode's first frames are no picture: a grid of symbols, or floats in 0 to 1 that declare other bounds.

        `highest` is their highest value; `is_varied` says whether any frame holds several values.
        """
        return highest <= self._faintest or (is_varied and highest <= self._symbols)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The frame, uint8; raises ValueError if the values are not those of the space."""
        if not isinstance(values, np.ndarray) or values.dtype.kind != self._dtype.kind:
            found = values.dtype if isinstance(values, np.ndarray) else f"{type(values).__name__}, which is no NumPy array"
            raise ValueError(f"expected a frame of {self._dtype}, as the observation space says, got {found}")
        if not _fits(self.layout, values.shape):
            raise ValueError(f"expected a frame with the axes {self.layout} and 1 or 3 channels, got {values.shape}")
        if self._time >= 0:
            self._learn_order(np.moveaxis(values, self._time, 0))
        frame = plain_array(values)[self._newest]
        if self._last >= 0:
            frame = np.moveaxis(frame, self._last, -1)
        return np.ascontiguousarray(frame if frame.dtype == np.uint8 else self._scaled(frame))

    def _learn_order(self, stack: np.ndarray) -> None:
        """Compare a stack with the one before it until one of them shows which end is the newest.

        Raises ValueError if that is the first: then it holds the frames of the stack before it one place later.
        """
        before, self._before = self._before, stack.copy()
        is_last, is_first = np.array_equal(stack[:-1], before[1:]), np.array_equal(stack[1:], before[:-1])
        if is_first and not is_last:
            raise ValueError("the newest frame of its stack is the first, and the last one is recorded; turn it, in a wrapper")
        if is_last and not is_first:
            self._time = -1  # known from now on: a reset may look otherwise

    def _scaled(self, frame: np.ndarray) -> np.ndarray:
        inside = (frame >= self._low) & (frame <= self._high)
        if not inside.all():
            raise ValueError(
                f"the frame holds {frame[~inside][0]!s}, outside of its space's bounds {self._low:g} and {self._high:g}"
            )
        return np.floor((frame.astype(np.float64) - self._low) * (255 / (self._high - self._low)) + 0.5).astype(np.uint8)


def plain_array(values: np.ndarray) -> np.ndarray:
    """The values without a class of their own, such as `np.matrix`; raises ValueError if some are masked, and so are none."""
    if np.ma.is_masked(values):
        raise ValueError("the frame has masked values; fill them, in a wrapper if need be")
    return np.asarray(values)
