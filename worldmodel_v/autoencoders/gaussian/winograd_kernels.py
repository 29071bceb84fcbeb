"""The transforms before and after the products of Winograd's algorithm, compiled for one shape: see `winograd`.

Legend: F frames, H, W size of a map, C channels, T tiles at once, P the 36 or 25 places of a transformed tile, R a row of a map
(W C floats). All arrays are contiguous float32.

The compiler turns the inner loops into vector instructions: they run over neighbouring floats, and every distance between
two of their arrays is a constant. For this reason a kernel is compiled for one width and number of channels. (With variable
distances the compiler must check at run time whether arrays overlap, and with twelve arrays it does not vectorise.)

Neighbours in a row of tiles are four columns apart. So between the two halves of a residual block, columns are stored apart,
by their remainder mod 4. Then a row of tiles, over which the loops run, is contiguous. A padded row has five such columns
where the map has four.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from worldmodel_v.autoencoders.gaussian.products import (
    BLOCK_ROWS,
    BLOCK_VECTORS,
    LANES,
    multiply_blocks,
    multiply_narrow_blocks,
)
from worldmodel_v.compiler import njit

NUM_GROUPS = 8
"""Groups of GroupNorm, as in `blocks`."""

compiled = njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp", "ninf", "nnan"})
inlined = njit(inline="always")
f4 = np.float32

APART, IN_ORDER = True, False
ONTO, INTO = True, False


class Half(NamedTuple):
    """The parameters of GroupNorm, SiLU and a 3x3 convolution."""

    norm_weight: np.ndarray
    """(C,)"""

    norm_bias: np.ndarray
    """(C,)"""

    eps: np.float32

    weights: np.ndarray
    """(36, C, C): the kernel in the basis."""

    bias: np.ndarray
    """(C,)"""


class BlockMemory(NamedTuple):
    """The working memory of a residual block; all but `padded` may hold any values."""

    padded: np.ndarray
    """(F, H+2, (W+4) C): zeros."""

    between: np.ndarray
    """(F, H, R): the output of the first convolution, its columns apart."""

    v: np.ndarray
    """(36, T, C)"""

    m: np.ndarray
    """(36, T, C)"""

    scratch: np.ndarray
    """(`scratch_size`,)"""


class HalvingMemory(NamedTuple):
    """The working memory of a convolution of stride 2."""

    zeros: np.ndarray
    """(R,) of the input: zeros."""

    v: np.ndarray
    """(25, T, 4C): finite numbers."""

    m: np.ndarray
    """(25, T, C')"""

    scratch: np.ndarray
    """(`scratch_size` of the input,): zeros."""

    scratch_out: np.ndarray
    """(`scratch_size` of the output,)"""


def scratch_size(channels: int, width: int) -> int:
    """How many floats of working memory the transforms of a map of this width need: six padded rows."""
    return 6 * (width + 4) * channels


@cache
def block_kernel(channels: int, width: int, tiles: int) -> Callable:
    """(x (B, H, R), Half, Half, BlockMemory): a residual block for maps of this width, `tiles` at once; overwrites x."""

    @compiled
    def block(x, first, second, memory):  # type: ignore[no-untyped-def]
        padded, between, v, m, scratch = memory
        flat_v, flat_m = v.reshape(-1), m.reshape(-1)
        at_once = len(padded)
        for start in range(0, len(x), at_once):
            some = x[start : start + at_once]
            num = len(some)  # fewer at the end
            filled = num * tiles // at_once
            # a loop compiles each part once; the columns lie apart between the two halves
            for source, half, out, apart in ((some, first, between[:num], IN_ORDER), (between[:num], second, some, APART)):
                _activate(source, half, padded, scratch, channels, width, apart)
                _cut(padded[:num], flat_v, scratch, channels, width, tiles)
                _multiply(v, half.weights, m, filled)
                _join(flat_m, half.bias, out, scratch, 6, channels, width, tiles, not apart, ONTO if apart else INTO)

    return block


@cache
def halving_kernel(channels: int, width: int, out_channels: int, tiles: int) -> Callable:
    """(x (B, H, R), weights (25, 4C, C'), bias (C',), out (B, H/2, R'), HalvingMemory): a convolution 4x4 of stride 2.

    It computes `tiles` tiles of its output at once. The 4C input channels of `weights` are those of the even rows' even
    columns, the even rows' odd columns, the odd rows' even columns, and the odd rows' odd columns.
    """

    @compiled
    def halving(x, weights, bias, out, memory):  # type: ignore[no-untyped-def]
        zeros, v, m, scratch, scratch_out = memory
        flat_v, flat_m = v.reshape(-1), m.reshape(-1)
        at_once = tiles * 16 // (out.shape[1] * (width // 2))
        for start in range(0, len(x), at_once):
            some = out[start : start + at_once]
            _halving_cut(x[start : start + at_once], flat_v, zeros, scratch, channels, width, tiles)
            _multiply(v, weights, m, len(some) * tiles // at_once)
            _join(flat_m, bias, some, scratch_out, 5, out_channels, width // 2, tiles, IN_ORDER, INTO)

    return halving


@compiled
def _multiply(v, weights, m, filled):  # type: ignore[no-untyped-def]
    """m = v times the weights, place by place, for the `filled` first tiles at least."""
    places, tiles, inner = v.shape
    columns = m.shape[2]
    rows = min(tiles, (filled + BLOCK_ROWS - 1) // BLOCK_ROWS * BLOCK_ROWS)
    in_blocks = rows % BLOCK_ROWS == 0
    for p in range(places):
        if in_blocks and columns % (LANES * BLOCK_VECTORS) == 0:
            multiply_blocks(v[p], weights[p], m[p], rows, inner, columns)
        elif in_blocks and columns % LANES == 0:
            multiply_narrow_blocks(v[p], weights[p], m[p], rows, inner, columns)
        else:
            np.dot(v[p], weights[p], m[p])


# The algorithm's bases: Lavin and Gray's for F(4, 3), with the points 0, 1, -1, 2, -2 and infinity; without -2 for F(4, 2)


@inlined
def _six_from_six(d0, d1, d2, d3, d4, d5):  # type: ignore[no-untyped-def]
    """Six neighbours in a row or column of a tile times the matrix B^T of F(4, 3)."""
    a, b = d4 - f4(4) * d2, d3 - f4(4) * d1
    c, e = d4 - d2, f4(2) * (d3 - d1)
    return f4(4) * d0 - f4(5) * d2 + d4, a + b, a - b, c + e, c - e, f4(4) * d1 - f4(5) * d3 + d5


@inlined
def _five_from_five(d0, d1, d2, d3, d4):  # type: ignore[no-untyped-def]
    """Five neighbours times the matrix B^T of F(4, 2)."""
    a, b = d3 - d1, d3 - d2
    return b - d2 - d1 + f4(2) * d0, b - f4(2) * d1, b - f4(2) * (d2 - d1), a, d4 - d2 - f4(2) * a


@inlined
def _four_from_six(m0, m1, m2, m3, m4, m5):  # type: ignore[no-untyped-def]
    """A column of products times A^T of F(4, 3), or with 0 for m4 of F(4, 2)."""
    p, q, r, s = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + p + r, q + f4(2) * s, p + f4(4) * r, q + f4(8) * s + m5


@inlined
def _silu(x):  # type: ignore[no-untyped-def]
    """x sigmoid(x) = h + h tanh(h), h = x / 2, by a rational function that is tanh to float32's last digits (as Eigen's is)."""
    h = f4(0.5) * x
    t = min(max(h, f4(-7.90531110763549805)), f4(7.90531110763549805))
    s = t * t
    p = s * f4(-2.76076847742355e-16) + f4(2.00018790482477e-13)
    p = s * p + f4(-8.60467152213735e-11)
    p = s * p + f4(5.12229709037114e-08)
    p = s * p + f4(1.48572235717979e-05)
    p = s * p + f4(6.37261928875436e-04)
    p = s * p + f4(4.89352455891786e-03)
    q = s * f4(1.19825839466702e-06) + f4(1.18534705686654e-04)
    q = s * q + f4(2.26843463243900e-03)
    q = s * q + f4(4.89352518554385e-03)
    return h + h * (t * p / q)


# The parts of a kernel, which get the numbers that it is compiled for


@inlined
def _spread_over_groups(sums, count, out, channels, width):  # type: ignore[no-untyped-def]
    """Each group's sum over `count`, at every one of its places in a row."""
    per_group = channels // NUM_GROUPS
    for group in range(NUM_GROUPS):
        total = f4(0)
        for j in range(width):
            for c in range(group * per_group, (group + 1) * per_group):
                total += sums[j * channels + c]
        for j in range(width):
            for c in range(group * per_group, (group + 1) * per_group):
                out[j * channels + c] = total / count


@inlined
def _activate(x, half, padded, scratch, channels, width, apart):  # type: ignore[no-untyped-def]
    """SiLU(GroupNorm(x)) of x (F, H, R), whose columns may be apart, into `padded`, where they are."""
    columns, row = width // 4, width * channels
    run, padded_run = columns * channels, (columns + 1) * channels
    num_frames, height, _ = x.shape
    sums, scale, shift = scratch[:row], scratch[row : 2 * row], scratch[2 * row : 3 * row]
    count = f4(height * width * channels // NUM_GROUPS)
    for f in range(num_frames):
        sums[:] = 0
        for i in range(height):
            source = x[f, i]
            for k in range(row):
                sums[k] += source[k]
        _spread_over_groups(sums, count, shift, channels, width)
        sums[:] = 0
        for i in range(height):
            source = x[f, i]
            for k in range(row):
                sums[k] += (source[k] - shift[k]) ** 2
        _spread_over_groups(sums, count, scale, channels, width)
        for j in range(width):
            for c in range(channels):
                k = j * channels + c
                scale[k] = half.norm_weight[c] / np.sqrt(scale[k] + half.eps)
                shift[k] = half.norm_bias[c] - shift[k] * scale[k]
        for i in range(height):
            for r in range(4):  # column 4 g + r of the map is column 4 g + r + 1 of the padded one
                row_of_r = padded[f, i + 1, (r + 1) % 4 * padded_run + (r == 3) * channels :]
                if apart:
                    source = x[f, i, r * run :]
                    for k in range(run):
                        row_of_r[k] = _silu(source[k] * scale[k] + shift[k])
                else:
                    for g in range(columns):
                        source, to = x[f, i, (4 * g + r) * channels :], row_of_r[g * channels :]
                        for c in range(channels):
                            to[c] = _silu(source[c] * scale[c] + shift[c])


@inlined
def _cut(padded, v, scratch, channels, width, tiles):  # type: ignore[no-untyped-def]
    """The transformed 6x6 tiles of the padded maps, which overlap by two rows and columns, into v (36 T C,)."""
    run, plane = width // 4 * channels, tiles * channels
    padded_run = run + channels
    row = 4 * padded_run
    num_frames, padded_height, _ = padded.shape
    rows = padded_height // 4
    for f in range(num_frames):
        for tile_row in range(rows):
            d = padded[f].reshape(-1)[4 * tile_row * row :]
            for k in range(row):
                d0, d1, d2, d3 = d[k], d[row + k], d[2 * row + k], d[3 * row + k]
                v0, v1, v2, v3, v4, v5 = _six_from_six(d0, d1, d2, d3, d[4 * row + k], d[5 * row + k])
                scratch[k], scratch[row + k], scratch[2 * row + k] = v0, v1, v2
                scratch[3 * row + k], scratch[4 * row + k], scratch[5 * row + k] = v3, v4, v5
            for p in range(6):
                s, to = scratch[p * row :], v[6 * p * plane + (f * rows + tile_row) * run :]
                for k in range(run):
                    d0, d1, d2, d3 = s[k], s[padded_run + k], s[2 * padded_run + k], s[3 * padded_run + k]
                    d4, d5 = s[channels + k], s[padded_run + channels + k]
                    v0, v1, v2, v3, v4, v5 = _six_from_six(d0, d1, d2, d3, d4, d5)
                    to[k], to[plane + k], to[2 * plane + k] = v0, v1, v2
                    to[3 * plane + k], to[4 * plane + k], to[5 * plane + k] = v3, v4, v5


@inlined
def _halving_cut(x, v, zeros, scratch, channels, width, tiles):  # type: ignore[no-untyped-def]
    """The transformed 5x5 tiles of the four maps of every other row and column, in zeros, side by side into v (25 T 4C,)."""
    pair, row, columns = 2 * channels, width * channels, width // 8
    padded_row, plane = row + pair, tiles * 4 * channels
    num_frames, height, _ = x.shape
    rows = height // 8
    inner = scratch[channels:]
    for f in range(num_frames):
        for tile_row in range(rows):
            for side in range(2):
                i = 8 * tile_row + side - 1
                d0, d1, d2, d3 = x[f, i] if i >= 0 else zeros, x[f, i + 2], x[f, i + 4], x[f, i + 6]
                d4 = x[f, i + 8] if i + 8 < height else zeros
                for k in range(row):
                    v0, v1, v2, v3, v4 = _five_from_five(d0[k], d1[k], d2[k], d3[k], d4[k])
                    inner[k], inner[padded_row + k], inner[2 * padded_row + k] = v0, v1, v2
                    inner[3 * padded_row + k], inner[4 * padded_row + k] = v3, v4
                for p in range(5):
                    for column in range(columns):
                        s = scratch[p * padded_row + 4 * column * pair :]
                        tile = (f * rows + tile_row) * columns + column
                        to = v[5 * p * plane + (2 * tile + side) * pair :]
                        for c in range(pair):  # the columns of both sides
                            e0, e1, e2, e3 = s[c], s[pair + c], s[2 * pair + c], s[3 * pair + c]
                            v0, v1, v2, v3, v4 = _five_from_five(e0, e1, e2, e3, s[4 * pair + c])
                            to[c], to[plane + c], to[2 * plane + c] = v0, v1, v2
                            to[3 * plane + c], to[4 * plane + c] = v3, v4


@inlined
def _join_columns(m, scratch, first, side, channels, width, tiles):  # type: ignore[no-untyped-def]
    """A row of tiles, transformed along their rows: products from `first` on, `side` of them each, to `side` rows, apart."""
    run, plane, row = width // 4 * channels, tiles * channels, width * channels
    for p in range(side):
        a, s = m[side * p * plane + first :], scratch[p * row :]
        for k in range(run):
            a4 = a[4 * plane + k] if side == 6 else f4(0)
            a0, a1, a2, a3 = a[k], a[plane + k], a[2 * plane + k], a[3 * plane + k]
            y0, y1, y2, y3 = _four_from_six(a0, a1, a2, a3, a4, a[(side - 1) * plane + k])
            s[k], s[run + k], s[2 * run + k], s[3 * run + k] = y0, y1, y2, y3


@inlined
def _join_rows(s, k, side, row):  # type: ignore[no-untyped-def]
    """A float of four rows of the map, from `side` rows."""
    a4 = s[4 * row + k] if side == 6 else f4(0)
    return _four_from_six(s[k], s[row + k], s[2 * row + k], s[3 * row + k], a4, s[(side - 1) * row + k])


@inlined
def _join(m, bias, out, scratch, side, channels, width, tiles, apart, onto):  # type: ignore[no-untyped-def]
    """The 4x4 tiles of the products m (side² T C,), and the bias, into out (F, H, R) or onto it, apart or in order."""
    columns, row = width // 4, width * channels
    num_frames, height, _ = out.shape
    for f in range(num_frames):
        for tile_row in range(height // 4):
            _join_columns(m, scratch, (f * (height // 4) + tile_row) * columns * channels, side, channels, width, tiles)
            rows = out[f].reshape(-1)[4 * tile_row * row :]
            for r in range(4):
                for g in range(columns):
                    at = r * columns + g
                    s, to = scratch[at * channels :], rows[(at if apart else 4 * g + r) * channels :]
                    if onto:
                        for c in range(channels):
                            y0, y1, y2, y3 = _join_rows(s, c, side, row)
                            to[c] += y0 + bias[c]
                            to[row + c] += y1 + bias[c]
                            to[2 * row + c] += y2 + bias[c]
                            to[3 * row + c] += y3 + bias[c]
                    else:
                        for c in range(channels):
                            y0, y1, y2, y3 = _join_rows(s, c, side, row)
                            to[c], to[row + c] = y0 + bias[c], y1 + bias[c]
                            to[2 * row + c], to[3 * row + c] = y2 + bias[c], y3 + bias[c]
