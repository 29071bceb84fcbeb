"""Frame preprocessing: crop, then resize by area averaging or bilinear interpolation.

Legend: H, W raw frame; S output cells of one axis, K taps (input cells of an output cell), C channels, X = W C or S C.

Both ways of resizing add integer weights times pixels exactly, rows first, then columns. The quotient is further from a whole
number than its rounding error. So the same frame gives the same bytes on every machine, as byte-identical shards require. A
half is rounded up. `benchmarks/frames.py` says how long it takes: some 10 µs for CarRacing's 84x96 -> 64x64.

Most of the work is in the columns, whose taps lie apart. So only the sums of rows are vectors, in the smallest type that holds
them. With two taps a column, gathers of floats pay; with more taps, whole numbers one after the other take half the time of
gathers. Rejected: two matrix products in NumPy, which take six to twenty times as long.
"""

import functools
import math

import numpy as np

from worldmodel_v.compiler import njit
from worldmodel_v.preprocessing import Preprocessing, parse_crop

_MAX_FLOAT32_WEIGHT_SUM = 4096
"""Up to this sum, a quotient's distance from a whole number (a quarter of 1 / sum) is well above float32's rounding error."""

_MAX_UINT16_WEIGHT_SUM = 257
"""Up to this sum, uint16 holds a sum of weighted pixels."""


@functools.lru_cache(maxsize=16)
def frame_preprocessor(raw_shape: tuple[int, ...], preprocessing: Preprocessing) -> "FramePreprocessor":
    """A `FramePreprocessor`, made once for all episodes: making one takes as long as resizing several frames."""
    return FramePreprocessor(raw_shape, preprocessing)


class FramePreprocessor:
    """Turns a raw frame (uint8 (H, W), (H, W, 1) or (H, W, 3)) into a uint8 (height, width, 3) one."""

    def __init__(self, raw_shape: tuple[int, ...], preprocessing: Preprocessing) -> None:
        """Raises ConfigError if the crop does not lie in a frame of `raw_shape`."""
        top, bottom, left, right = parse_crop(preprocessing.crop, raw_shape)
        self.frame_shape = (*preprocessing.frame_shape, 3)
        self._top, self._left, self._height, self._width = preprocessing.placement(bottom - top, right - left)
        self._is_filled = (self._height, self._width) == preprocessing.frame_shape
        same_size = (self._height, self._width) == (bottom - top, right - left)
        self._copied = (slice(top, bottom), slice(left, right)) if same_size else None
        """The part of a raw frame that is recorded as it is, if it is not resized."""

        weights = area_weights if preprocessing.resize == "area" else bilinear_weights
        channels = raw_shape[2] if len(raw_shape) == 3 else 1
        row_tap_SK, row_weight_SK = _taps(weights(bottom - top, self._height), multiple_of=2)
        col_tap_SK, col_weight_SK = _taps(weights(right - left, self._width))
        row_sum, col_sum = int(row_weight_SK[0].sum()), int(col_weight_SK[0].sum())
        real = np.float32 if row_sum * col_sum <= _MAX_FLOAT32_WEIGHT_SUM else np.float64
        in_rows = np.uint16 if row_sum <= _MAX_UINT16_WEIGHT_SUM else np.uint32
        in_floats = col_weight_SK.shape[1] == 2
        col_first_X = ((left + col_tap_SK[:, :1]) * channels + np.arange(channels)).ravel()
        self._arguments = (
            (top + row_tap_SK).astype(np.uint32),
            row_weight_SK.astype(real if in_floats else in_rows),
            col_first_X.astype(np.uint32),
            col_weight_SK.repeat(channels, axis=0).astype(real if in_floats else np.int64),
            np.uint32(channels),
            np.array([row_sum * col_sum / 2 + 0.25, 1 / (row_sum * col_sum)], real),
        )

    def __call__(self, raw: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The resized frame, in `out` (uint8 (height, width, 3), contiguous) where it is given."""
        out = np.empty(self.frame_shape, np.uint8) if out is None else out
        is_rgb = raw.ndim == 3 and raw.shape[2] == 3
        if self._copied:
            small = raw.reshape(*raw.shape[:2], -1)[self._copied]
        else:
            small = out if is_rgb and self._is_filled else np.empty((self._height, self._width, 3 if is_rgb else 1), np.uint8)
            _shrink(np.ascontiguousarray(raw).reshape(len(raw), -1), *self._arguments, small.reshape(self._height, -1))
        if small is not out:
            if not self._is_filled:
                out[:] = 0
            out[self._top : self._top + self._height, self._left : self._left + self._width] = small
        return out


def _taps(weights_SL: np.ndarray, multiple_of: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """For each output cell its input cells, one after the other, and their weights: (S, K) each. Where there are too few input
    cells for a K that is a multiple, the last one stands again, with the weight 0."""
    num_cells = weights_SL.shape[1]
    num_taps = -(-int((weights_SL > 0).sum(axis=1).max()) // multiple_of) * multiple_of
    first_S = np.clip((weights_SL > 0).argmax(axis=1), 0, max(0, num_cells - num_taps))
    tap_SK = first_S[:, None] + np.arange(num_taps)
    there_SK = np.minimum(tap_SK, num_cells - 1)
    return there_SK, np.where(tap_SK < num_cells, np.take_along_axis(weights_SL, there_SK, axis=1), 0)


@njit(nogil=True)
def _shrink(
    frame_HX: np.ndarray,
    row_tap_SK: np.ndarray,
    row_weight_SK: np.ndarray,
    col_first_X: np.ndarray,
    col_weight_XK: np.ndarray,
    channels: int,
    quotient: np.ndarray,
    small_SX: np.ndarray,
) -> None:
    """Shrink a frame (H, W * C) into uint8 (S, S * C). The rows' K is even. `quotient` is half the sum of the weights plus a
    quarter, and 1 / the sum. The sums are whole numbers, so the quarter changes no result; it keeps the quotient from falling
    below a whole number."""
    half, inverse = quotient
    width, size, num_taps = frame_HX.shape[1], small_SX.shape[1], col_weight_XK.shape[1]
    row_X, total_X = np.empty(width, row_weight_SK.dtype), np.empty(size, quotient.dtype)
    for i in range(len(row_tap_SK)):
        for k in range(0, row_tap_SK.shape[1], 2):  # in pairs, which saves half of the reading and writing of sums
            weight_a, weight_b = row_weight_SK[i, k], row_weight_SK[i, k + 1]
            a_X, b_X = frame_HX[row_tap_SK[i, k]], frame_HX[row_tap_SK[i, k + 1]]
            if k == 0:
                for x in range(width):
                    row_X[x] = weight_a * a_X[x] + weight_b * b_X[x]
            else:
                for x in range(width):
                    row_X[x] += weight_a * a_X[x] + weight_b * b_X[x]
        if num_taps == 2:
            for x in range(size):
                first = col_first_X[x]
                total_X[x] = col_weight_XK[x, 0] * row_X[first] + col_weight_XK[x, 1] * row_X[first + channels]
        elif channels == 3:
            for x in range(0, size, 3):
                tap, red, green, blue = col_first_X[x], 0, 0, 0
                for k in range(num_taps):
                    weight = col_weight_XK[x, k]
                    red += weight * row_X[tap]
                    green += weight * row_X[tap + np.uint32(1)]
                    blue += weight * row_X[tap + np.uint32(2)]
                    tap += np.uint32(3)
                total_X[x], total_X[x + 1], total_X[x + 2] = red, green, blue
        else:
            for x in range(size):
                tap, grey = col_first_X[x], 0
                for k in range(num_taps):
                    grey += col_weight_XK[x, k] * row_X[tap]
                    tap += channels
                total_X[x] = grey
        small_X = small_SX[i]
        for x in range(size):
            small_X[x] = np.uint8(np.int32((total_X[x] + half) * inverse))


def area_weights(length: int, size: int) -> np.ndarray:
    """int64 (size, length): how much of each input cell lies in each output cell, in units of 1 / (size / gcd) cells.

    Every row sums to length / gcd(length, size). Also right if size > length (each output cell lies within inputs).
    """
    gcd = math.gcd(length, size)
    input_width, output_width = size // gcd, length // gcd
    input_edges = np.arange(length + 1, dtype=np.int64) * input_width
    output_edges = np.arange(size + 1, dtype=np.int64) * output_width
    start = np.maximum(output_edges[:-1, None], input_edges[None, :-1])
    stop = np.minimum(output_edges[1:, None], input_edges[None, 1:])
    return np.maximum(stop - start, 0)


def bilinear_weights(length: int, size: int) -> np.ndarray:
    """int64 (size, length): the share of each input cell in each output cell, every row with the same sum.

    Output cell i lies at (i + 1/2) length / size - 1/2 among the input cells, clipped to the first and the last cell's centre.
    Its distance from its two neighbours gives their weights: bilinear interpolation with half-pixel centres, no antialiasing.
    """
    unit = 2 * size
    at_S = np.clip((2 * np.arange(size, dtype=np.int64) + 1) * length - size, 0, unit * (length - 1))
    before_S, beyond_S = at_S // unit, at_S % unit
    weights = np.zeros((size, length), np.int64)
    weights[np.arange(size), before_S] = unit - beyond_S
    weights[np.arange(size), np.minimum(before_S + 1, length - 1)] += beyond_S
    return weights // np.gcd.reduce(weights.ravel())
