"""Frame preprocessing: crop, then resize by area averaging or bilinear interpolation.

Legend: H, W raw frame; S output cells of one axis, K taps (input cells of an output cell), C channels, X = W C.

Both ways of resizing add integer weights times pixels in floats, rows first, then columns. Every product and sum is an
integer that the float's mantissa holds exactly. The quotient is further from a whole number than its rounding error. So the
same frame gives the same bytes on every machine, as byte-identical shards require. A half is rounded up. Compiled, it takes
about 15 µs for CarRacing's 84x96 -> 64x64. Rejected: two matrix products in numpy (60 to 110 µs), and cv2's INTER_AREA (85 µs).
"""

import math

import numpy as np

from worldmodel_v.compiler import njit
from worldmodel_v.preprocessing import Preprocessing, parse_crop

_MAX_FLOAT32_WEIGHT_SUM = 4096
"""Up to this sum, a quotient's distance from a whole number (a quarter of 1 / sum) is well above float32's rounding error."""


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
        rows_first_S, rows_weight_SK = _taps(weights(bottom - top, self._height))
        cols_first_S, cols_weight_SK = _taps(weights(right - left, self._width))
        weight_sum = int(rows_weight_SK[0].sum() * cols_weight_SK[0].sum())
        real = np.float32 if weight_sum <= _MAX_FLOAT32_WEIGHT_SUM else np.float64
        taps_SKC = (left + cols_first_S[:, None, None] + np.arange(cols_weight_SK.shape[1])[:, None]) * channels
        taps_SKC = taps_SKC + np.arange(channels)
        weights_SKC = np.broadcast_to(cols_weight_SK[:, :, None], taps_SKC.shape)
        self._arguments = (
            (top + rows_first_S).astype(np.uint32),
            rows_weight_SK.astype(real),
            _flat_over_outputs(taps_SKC).astype(np.uint32),
            _flat_over_outputs(weights_SKC).astype(real),
            real(1 / weight_sum),
            real(weight_sum / 2 + 0.25),
        )

    def __call__(self, raw: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The resized frame, in `out` (uint8 (height, width, 3), contiguous) where it is given."""
        out = np.empty(self.frame_shape, np.uint8) if out is None else out
        is_rgb = raw.ndim == 3 and raw.shape[2] == 3
        if self._copied:
            small = raw.reshape(*raw.shape[:2], -1)[self._copied]
        else:
            small = out if is_rgb and self._is_filled else np.empty((self._height, self._width, 3 if is_rgb else 1), np.uint8)
            _shrink(raw.reshape(len(raw), -1), *self._arguments, small.reshape(self._height, -1))
        if small is not out:
            if not self._is_filled:
                out[:] = 0
            out[self._top : self._top + self._height, self._left : self._left + self._width] = small
        return out


def _taps(weights_SL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each output cell the first input cell in it, (S,), and the weights from there on, (S, K)."""
    num_taps = int((weights_SL > 0).sum(axis=1).max())
    first_S = np.minimum((weights_SL > 0).argmax(axis=1), weights_SL.shape[1] - num_taps)
    return first_S, np.take_along_axis(weights_SL, first_S[:, None] + np.arange(num_taps), axis=1)


def _flat_over_outputs(values_SKC: np.ndarray) -> np.ndarray:
    """(S, K, C) -> (K, S * C), so that a tap runs along a row of the output."""
    return np.ascontiguousarray(values_SKC.swapaxes(0, 1).reshape(values_SKC.shape[1], -1))


@njit(nogil=True)
def _shrink(
    frame_HX: np.ndarray,
    row_first_S: np.ndarray,
    row_weight_SK: np.ndarray,
    col_tap_KX: np.ndarray,
    col_weight_KX: np.ndarray,
    inverse: float,
    half: float,
    small_SX: np.ndarray,
) -> None:
    """Shrink a frame (H, W * C) into uint8 (S, S * C). `half` is half the sum of the weights plus a quarter. The sums are whole
    numbers, so the quarter changes no result; it keeps the quotient from falling below a whole number."""
    width, num_taps = frame_HX.shape[1], col_tap_KX.shape[0]
    row_X = np.empty(width, row_weight_SK.dtype)
    for i in range(len(row_first_S)):
        row_X[:] = 0
        for k in range(row_weight_SK.shape[1]):
            weight, source_X = row_weight_SK[i, k], frame_HX[row_first_S[i] + np.uint32(k)]
            if weight != 0:
                for x in range(width):
                    row_X[x] += weight * source_X[x]
        small_X = small_SX[i]
        if num_taps == 2:  # CarRacing's 96 columns to 64: both in one pass take two thirds of the time
            for x in range(len(small_X)):
                total = col_weight_KX[0, x] * row_X[col_tap_KX[0, x]] + col_weight_KX[1, x] * row_X[col_tap_KX[1, x]]
                small_X[x] = np.uint8(np.int32((total + half) * inverse))
        else:
            for x in range(len(small_X)):
                total = half
                for k in range(num_taps):
                    total += col_weight_KX[k, x] * row_X[col_tap_KX[k, x]]
                small_X[x] = np.uint8(np.int32(total * inverse))


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
