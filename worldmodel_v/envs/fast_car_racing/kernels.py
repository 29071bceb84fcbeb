"""Compiled drawing kernels behind `env`.

The kernels turn the state of one race (`World`, `CarShape` and a
vector of numbers, see ``STATE_*``) into the 96x96 frame that the following
library calls, made by Gymnasium's ``CarRacing``, would give, byte for byte,
without ever building the 1000x800 surface in between.

=============================  =============================================
library call                   what is reproduced
=============================  =============================================
``Vector2.rotate_rad``         double arithmetic, and the exact quarter turns
                               within 1e-6 rad of a multiple of 90 degrees
``gfxdraw.aapolygon``          Wu lines in 16.16 fixed point, the single
                               precision line clipping, 8-bit blending
``gfxdraw.filled_polygon``     scan conversion in 16.16 fixed point
``draw.polygon``               scan conversion with its alternating rounding
``transform.flip``             row ``y`` of the frame is row ``799 - y``
``transform.smoothscale``      the area filter in 2.14 fixed point, x then y,
                               with the rounding of the SIMD back ends
=============================  =============================================

**Cells.** A pixel of the frame is the weighted mean of one *cell*, about
10.4 x 8.3 surface pixels.  Most cells are of one colour (some 1,250 of 9,216
are not known to be, on the road), and the filter maps a cell of one colour
``v`` to ``max(v - 2, 0)`` wherever the cell lies (a fact of its truncations,
checked in the tests).  So:

1. every polygon edge marks the cells it passes through, generously, one bit for
   each cell;
2. band by band (a band is one row of cells), the marked cells are painted in
   painter's order on a small canvas, and filtered pixel by pixel;
3. the other cells get their colour, filtered in advance, straight away.

The canvas lies column by column: a column holds the band's rows, ten at most,
between two rows that are never looked at, where a smooth line may spill.  So a
handful of vector instructions fill or filter a column whatever the rows' spans
are, without branches to mispredict (see `lanes`).

Coordinates are those of the surface *before* the flip unless said otherwise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from gymnasium.envs.box2d.car_dynamics import SIZE, WHEEL_R, WHEEL_W, WHEEL_WHITE

from worldmodel_v.compiler import njit
from worldmodel_v.envs.fast_car_racing.lanes import (
    CHANNELS,
    FULL_COLUMNS,
    ROWS,
    blend_one,
    blend_two,
    fill_columns,
    shrink_cell,
    trailing_zeros,
)

SURFACE_W = 1000
SURFACE_H = 800
FRAME_W = 96
FRAME_H = 96
PANEL_TOP = 700  # first row of the black panel, after the flip
PANEL_BAND = 84  # first band of the panel
WORLD_ROW = SURFACE_H - PANEL_TOP  # first row which the panel leaves visible

MAX_VERTICES = 8

# Rotation: Vector2's tolerance for quarter turns.
ROTATE_EPSILON = 1e-6
TWO_PI = 2.0 * math.pi
HALF_PI = 0.5 * math.pi

# Area filter: weights in 2.14 fixed point.
ONE = 1 << 14

# Marking: how far beyond an edge cells are marked, in surface pixels.  A smooth
# line, like the rounded end of a span, stays within one pixel of the edge.  One
# which leaves the surface is clipped with truncated coordinates, up to twice,
# which shifts it by a pixel or two.  A line closer to the vertical than to the
# horizontal touches no other rows than those it passes through.
MARK_X = 1
MARK_Y = 1
MARK_X_CLIPPED = 4
MARK_Y_CLIPPED = 3

# Columns of the integer array describing an anti-aliased edge.
EDGE_KIND = 0
EDGE_FIRST_X = 1
EDGE_FIRST_Y = 2
EDGE_X0 = 3
EDGE_Y0 = 4
EDGE_STEPS = 5
EDGE_DIR = 6
EDGE_SLOPE = 7
EDGE_Y1 = 8  # EDGE_Y0 and EDGE_Y1: its rows; none if it is out of sight
EDGE_FIELDS = 9

KIND_VERTICAL = 0
KIND_HORIZONTAL = 1
KIND_STEEP = 2
KIND_FLAT = 3

# Columns of the integer array describing a polygon.
POLY_N = 0
POLY_ROW_LO = 1  # first and last row to paint
POLY_ROW_HI = 2
POLY_MIN_Y = 3
POLY_MAX_Y = 4
POLY_SMOOTH = 5  # gfxdraw (anti-aliased outline) rather than draw.polygon
POLY_SPANS = 6  # where its spans, one per row, start
POLY_SLOW = 7  # has no spans: to be scan converted while painting
POLY_FIELDS = 8
UNSEEN = 2**31 - 1  # a row of spans without any crossing yet

GREY = 0x01_01_01


def _line_alphas() -> np.ndarray:
    """By weight (0..255), the alphas of the two pixels astride a smooth line."""
    alphas = np.zeros((256, 2, CHANNELS), dtype=np.uint16)
    weights = np.arange(256)
    alphas[:, 0] = (255 * (255 - weights) >> 8)[:, None]
    alphas[:, 1] = (255 * weights >> 8)[:, None]
    return alphas


ALPHAS = _line_alphas()


def _filter_phases(source: int, target: int) -> np.ndarray:
    """The shrinking filter's geometry, one row per target pixel.

    Columns: first source pixel, its weight, last source pixel, its weight.
    All pixels in between weigh ``ONE``.  Neighbours share the pixel between
    them; the very first target pixel has no such pixel, which is expressed as
    a first pixel of -1 with no weight.
    """
    space = ONE * source // target
    phases = np.empty((target, 4), dtype=np.int64)
    counter, done, first, first_weight = space, 0, -1, 0
    for pixel in range(source):
        if counter > ONE:
            counter -= ONE
            continue
        phases[done] = (first, first_weight, pixel, counter)
        first, first_weight = pixel, ONE - counter
        counter = space - first_weight
        done += 1
        if done == target:
            break
    return phases


def _owners(phases: np.ndarray, source: int) -> tuple[np.ndarray, np.ndarray]:
    """For every source pixel the first and the last target pixel it reaches."""
    first = np.zeros(source, dtype=np.int64)
    last = np.zeros(source, dtype=np.int64)
    for pixel in range(source):
        inside = (phases[:, 0] <= pixel) & (pixel <= phases[:, 2])
        owners = np.flatnonzero(inside)
        first[pixel], last[pixel] = owners[0], owners[-1]
    return first, last


PHASES_X = _filter_phases(SURFACE_W, FRAME_W)
PHASES_Y = _filter_phases(SURFACE_H, FRAME_H)
CELL_FIRST_X, CELL_LAST_X = _owners(PHASES_X, SURFACE_W)
CELL_FIRST_Y, CELL_LAST_Y = _owners(PHASES_Y, SURFACE_H)
CELL_BITS = np.array(  # of the cells before a given one, in words of 64 cells
    [[((1 << i) - 1) & (2**64 - 1), ((1 << i) - 1) >> 64] for i in range(FRAME_W + 1)],
    dtype=np.uint64,
)
CELL_CENTRE_X = (PHASES_X[:, 0] + PHASES_X[:, 2] + 1) // 2
RECIP_X = (1 << 30) // (ONE * SURFACE_W // FRAME_W)
RECIP_Y = (1 << 30) // (ONE * SURFACE_H // FRAME_H)
# How many cells have their centre left of a pixel: turns a span of pixels into
# one of cells.
CENTRES_BEFORE = np.searchsorted(CELL_CENTRE_X, np.arange(SURFACE_W + 1))
# The same for the loops: columns and their weights.
CELL_HEAD = np.maximum(PHASES_X[:, 0], 0)
CELL_HEAD_WEIGHT = PHASES_X[:, 1].copy()
CELL_TAIL = PHASES_X[:, 2].copy()
CELL_TAIL_WEIGHT = PHASES_X[:, 3].copy()
CELL_IS_WIDE = PHASES_X[:, 2] - PHASES_X[:, 0] - 1 - FULL_COLUMNS
# The rows of each band, before the flip.
BAND_FIRST = np.maximum(PHASES_Y[:, 0], 0)
BAND_FIRST[PANEL_BAND] = PANEL_TOP  # the row above weighs too little to show
BAND_TOP = SURFACE_H - 1 - PHASES_Y[:, 2]
BAND_BOTTOM = SURFACE_H - 1 - BAND_FIRST


def _row_weights() -> np.ndarray:
    """For every band the weight of each row of the canvas, once for each lane."""
    weights = np.zeros((FRAME_H, ROWS), dtype=np.uint16)
    for band, (first, first_weight, _, last_weight) in enumerate(PHASES_Y):
        rows = BAND_BOTTOM[band] - BAND_TOP[band] + 1
        weights[band, 1] = last_weight
        weights[band, 2:rows] = ONE
        weights[band, rows] = first_weight if first == BAND_FIRST[band] else ONE
    return np.repeat(weights, CHANNELS, axis=1)


ROW_WEIGHTS = _row_weights()

# Columns of the vector describing the moment to draw.
STATE_ZOOM = 0
STATE_ANGLE = 1  # of the camera
STATE_BODIES = 2  # four wheels and the hull: x, y, sine, cosine each
STATE_PHASE = 22  # of the four wheels
STATE_OMEGA = 26  # of the four wheels
STATE_SPEED_X = 30
STATE_SPEED_Y = 31
STATE_STEERING = 32
STATE_SPIN = 33
STATE_FIELDS = 34
WHEELS = 4
HULL = 4
BODY_FIELDS = 4

# A wheel's light patch covers this arc of it.
TREAD_ARC = 1.2
TREAD_RGB = WHEEL_WHITE[0] | WHEEL_WHITE[1] << 8 | WHEEL_WHITE[2] << 16

# The panel's gauges are laid out on a grid of 40 x 40, and not drawn when idle.
GRID_X = SURFACE_W / 40.0
GRID_Y = SURFACE_H / 40.0
IDLE = 1e-4
WHITE = (255, 255, 255)
BLUE = (0, 0, 255)
VIOLET = (51, 0, 255)
GREEN = (0, 255, 0)
RED = (255, 0, 0)

# Polygons drawn besides the world: five bodies' worth, four treads, seven gauges.
EXTRA_POLYGONS = 32

_compiled = njit(nogil=True, error_model="numpy")
_inlined = njit(nogil=True, error_model="numpy", inline="always")


class World(NamedTuple):
    """What stays put during an episode, in painter's order."""

    quads: np.ndarray  # (n, 4, 2) float64
    colours: np.ndarray  # (n, 3) float64, truncated when drawn
    centres: np.ndarray  # (n, 2) float64
    radii: np.ndarray  # (n,) float64


class CarShape(NamedTuple):
    """The car's polygons, in painter's order."""

    paths: np.ndarray  # (n, MAX_VERTICES, 2) float32, relative to the body
    sizes: np.ndarray  # (n,) vertices of each
    bodies: np.ndarray  # (n,) which body carries it: a wheel or HULL
    rgb: np.ndarray  # (n,) uint32


class Workspace(NamedTuple):
    """Scratch memory of one drawing; contents mean nothing between frames."""

    xs: np.ndarray
    ys: np.ndarray
    poly: np.ndarray
    rgb: np.ndarray
    flat: np.ndarray
    edges: np.ndarray
    span_lo: np.ndarray
    span_hi: np.ndarray
    members: np.ndarray
    band_begin: np.ndarray
    marks: np.ndarray
    runs: np.ndarray
    crossings: np.ndarray
    canvas: np.ndarray
    frame: np.ndarray
    tread: np.ndarray


def make_workspace(static_polygons: int) -> Workspace:
    """Scratch memory for a world of so many polygons."""
    capacity = static_polygons + EXTRA_POLYGONS
    spans = capacity * (SURFACE_H + ROWS) + ROWS  # mostly unused, so mostly not even mapped
    return Workspace(
        xs=np.zeros((capacity, MAX_VERTICES), dtype=np.int64),
        ys=np.zeros((capacity, MAX_VERTICES), dtype=np.int64),
        poly=np.zeros((capacity, POLY_FIELDS), dtype=np.int64),
        rgb=np.zeros(capacity, dtype=np.uint32),
        flat=np.zeros(capacity, dtype=np.uint32),
        edges=np.zeros((capacity, 4, EDGE_FIELDS), dtype=np.int64),
        span_lo=np.zeros(spans, dtype=np.int32),
        span_hi=np.zeros(spans, dtype=np.int32),
        members=np.zeros(capacity * FRAME_H, dtype=np.int64),
        band_begin=np.zeros(FRAME_H + 1, dtype=np.int64),
        marks=np.zeros((FRAME_H, 2), dtype=np.uint64),
        runs=np.zeros((FRAME_W, 4), dtype=np.int64),
        crossings=np.zeros(MAX_VERTICES, dtype=np.int64),
        canvas=np.zeros(SURFACE_W * ROWS, dtype=np.uint32),
        frame=np.zeros(FRAME_H * FRAME_W, dtype=np.uint32),
        tread=np.zeros((4, 2), dtype=np.float32),
    )


# ---------------------------------------------------------------- small parts


@_compiled
def pack_rgb(red, green, blue):
    """Three channels, each 0..255, as one pixel."""
    return np.uint32(red | green << 8 | blue << 16)


@_compiled
def _flat(rgb):
    """What the filter makes of a cell of one colour."""
    red, green, blue = rgb & 255, (rgb >> 8) & 255, (rgb >> 16) & 255
    return pack_rgb(max(red, 2) - 2, max(green, 2) - 2, max(blue, 2) - 2)


@_compiled
def rotation(angle):
    """Cosine and sine of ``angle`` as ``Vector2.rotate_rad`` uses them."""
    turn = np.fmod(angle, TWO_PI)
    if turn < 0.0:
        turn += TWO_PI
    if np.fmod(turn + ROTATE_EPSILON, HALF_PI) < 2.0 * ROTATE_EPSILON:
        quarter = int((turn + ROTATE_EPSILON) / HALF_PI) % 4
        if quarter == 0:
            return 1.0, 0.0
        if quarter == 1:
            return 0.0, 1.0
        if quarter == 2:
            return -1.0, 0.0
        return 0.0, -1.0
    return math.cos(turn), math.sin(turn)


@_compiled
def _clip_code(x, y):
    code = 0
    if x < 0:
        code |= 1
    elif x > SURFACE_W - 1:
        code |= 2
    if y < 0:
        code |= 8
    elif y > SURFACE_H - 1:
        code |= 4
    return code


@_compiled
def clip_line(x1, y1, x2, y2):
    """Clip a line to the surface: Cohen-Sutherland in single precision.

    Returns whether anything is left, and the end points, perhaps swapped.
    """
    while True:
        code1 = _clip_code(x1, y1)
        code2 = _clip_code(x2, y2)
        if code1 | code2 == 0:
            return True, x1, y1, x2, y2
        if code1 & code2 != 0:
            return False, x1, y1, x2, y2
        if code1 == 0:
            x1, x2 = x2, x1
            y1, y2 = y2, y1
            code1, code2 = code2, code1
        slope = np.float32(1.0)
        if x1 != x2:
            slope = np.float32(y2 - y1) / np.float32(x2 - x1)
        if code1 & 1:
            y1 += int(np.float32(-x1) * slope)
            x1 = 0
        elif code1 & 2:
            y1 += int(np.float32(SURFACE_W - 1 - x1) * slope)
            x1 = SURFACE_W - 1
        elif code1 & 4:
            if x1 != x2:
                x1 += int(np.float32(SURFACE_H - 1 - y1) / slope)
            y1 = SURFACE_H - 1
        else:
            if x1 != x2:
                x1 += int(np.float32(-y1) / slope)
            y1 = 0


# ------------------------------------------------------------------- polygons


@_inlined
def _prepare_edge(edges, p, i, x1, y1, x2, y2):
    """Describe an anti-aliased line, the ``i``-th of polygon ``p``."""
    visible, x1, y1, x2, y2 = clip_line(x1, y1, x2, y2)
    if not visible:
        edges[p, i, EDGE_Y0], edges[p, i, EDGE_Y1] = UNSEEN, -UNSEEN
        return
    edges[p, i, EDGE_FIRST_X] = x1
    edges[p, i, EDGE_FIRST_Y] = y1
    if y1 > y2:
        x1, x2 = x2, x1
        y1, y2 = y2, y1
    dx = x2 - x1
    dy = y2 - y1
    edges[p, i, EDGE_X0] = x1
    edges[p, i, EDGE_Y0], edges[p, i, EDGE_Y1] = y1, y2
    edges[p, i, EDGE_DIR] = 1 if dx >= 0 else -1
    if dx == 0:
        edges[p, i, EDGE_KIND] = KIND_VERTICAL
        edges[p, i, EDGE_STEPS] = dy
    elif dy == 0:
        edges[p, i, EDGE_KIND] = KIND_HORIZONTAL
        edges[p, i, EDGE_STEPS] = dx
    elif dy > abs(dx):
        edges[p, i, EDGE_KIND] = KIND_STEEP
        edges[p, i, EDGE_STEPS] = dy
        edges[p, i, EDGE_SLOPE] = (abs(dx) << 16) // dy
    else:
        edges[p, i, EDGE_KIND] = KIND_FLAT
        edges[p, i, EDGE_STEPS] = abs(dx)
        edges[p, i, EDGE_SLOPE] = (dy << 16) // abs(dx)


@_compiled
def _crossing(smooth, x1, y1, x2, y2, y, nth):
    """Where the edge (``y1 < y2``) crosses row ``y``, in the caller's units.

    16.16 fixed point for ``gfxdraw``.  Whole pixels for ``draw.polygon``, which
    rounds down the row's first, third, ... crossing, counted from ``nth`` = 0
    in the order of the edges, and rounds up the others.
    """
    if smooth:
        return ((65536 * (y - y1)) // (y2 - y1)) * (x2 - x1) + 65536 * x1
    product = (y - y1) * (x2 - x1)
    if nth % 2 == 0:
        return x1 + product // (y2 - y1)
    return x1 - (-product) // (y2 - y1)


@_compiled
def _row_crossings(xs, ys, n, smooth, max_y, y, out):
    """Sorted crossings of a polygon's outline with row ``y``; their number."""
    count = 0
    for i in range(n):
        j = i - 1 if i else n - 1
        y1, y2, x1, x2 = ys[j], ys[i], xs[j], xs[i]
        if y1 > y2:
            y1, y2, x1, x2 = y2, y1, x2, x1
        elif y1 == y2:
            continue
        if y1 <= y < y2 or (y == max_y and y2 == max_y):
            value = _crossing(smooth, x1, y1, x2, y2, y, count)
            k = count
            while k > 0 and out[k - 1] > value:
                out[k] = out[k - 1]
                k -= 1
            out[k] = value
            count += 1
    return count


@_compiled
def _span(smooth, left, right):
    """The pixels ``lo..hi`` to fill between two sorted crossings."""
    if smooth:
        lo = left + 1
        lo = (lo >> 16) + ((lo & 32768) >> 15)
        hi = right - 1
        hi = (hi >> 16) + ((hi & 32768) >> 15)
        if lo > hi:
            lo, hi = hi, lo
        return lo, hi
    return left, right


@_compiled
def _is_monotone(ys, n, p):
    """Whether each row crosses polygon ``p``'s outline just twice."""
    turns = 0
    falling = ys[p, 0] < ys[p, n - 1]
    started = ys[p, 0] != ys[p, n - 1]
    first_falling = falling
    for i in range(1, n):
        if ys[p, i] == ys[p, i - 1]:
            continue
        now_falling = ys[p, i] < ys[p, i - 1]
        if not started:
            started, first_falling = True, now_falling
        elif now_falling != falling:
            turns += 1
        falling = now_falling
    return turns + (falling != first_falling) <= 2


@_inlined
def _store_edge(span_lo, span_hi, smooth, start, x1, dx, dy, along, rows):
    """An edge's crossings (see ``_crossing``), from ``along`` rows below its top.

    The quotients are those of integers far below 2**53 and no closer to the
    next integer than ``1 / dy``, so double precision gives the right floor, and
    lets the loops use the processor's vectors.
    """
    first = np.uint64(start)
    height = float(dy)
    if smooth:
        for r in range(rows):
            k = first + np.uint64(r)
            quotient = np.int32(np.floor(65536.0 * (along + r) / height))
            value = np.int32(quotient * np.int32(dx) + np.int32(65536 * x1))
            span_lo[k] = min(span_lo[k], value)
            span_hi[k] = max(span_hi[k], value)
        return
    for r in range(rows):
        k = first + np.uint64(r)
        exact = float(dx * (along + r)) / height
        offset = np.floor(exact) if span_lo[k] == UNSEEN else np.ceil(exact)
        value = np.int32(x1 + np.int32(offset))
        span_lo[k] = min(span_lo[k], value)
        span_hi[k] = max(span_hi[k], value)


@_compiled
def _store_spans(poly, xs, ys, span_lo, span_hi, p, first):
    """Scan convert polygon ``p`` once; return the first free place for spans.

    A polygon of which some row may not have exactly one span, which integer
    vertices can bring about even for a convex one, is left with empty spans.
    """
    n, smooth = poly[p, POLY_N], poly[p, POLY_SMOOTH]
    row_lo, row_hi = poly[p, POLY_ROW_LO], poly[p, POLY_ROW_HI]
    min_y, max_y = poly[p, POLY_MIN_Y], poly[p, POLY_MAX_Y]
    rows = row_hi - row_lo + 1
    poly[p, POLY_SPANS] = first
    free = first + rows + ROWS
    for k in range(np.uint64(first), np.uint64(free)):
        span_lo[k], span_hi[k] = UNSEEN, -UNSEEN
    poly[p, POLY_SLOW] = min_y == max_y or not _is_monotone(ys, n, p)
    if poly[p, POLY_SLOW]:
        return free
    j = n - 1
    for i in range(n):
        y1, y2, x1, x2 = ys[p, j], ys[p, i], xs[p, j], xs[p, i]
        j = i
        if y1 > y2:
            y1, y2, x1, x2 = y2, y1, x2, x1
        elif y1 == y2:
            if not smooth and min_y < y1 < max_y:
                poly[p, POLY_SLOW] = True
            continue
        start = max(y1, row_lo)
        stop = min(y2 if y2 == max_y else y2 - 1, row_hi)
        if start > stop:
            continue
        k, dx, dy = first + start - row_lo, x2 - x1, y2 - y1
        _store_edge(span_lo, span_hi, smooth, k, x1, dx, dy, start - y1, stop - start + 1)
    if smooth:
        for row in range(rows):
            k = np.uint64(first + row)
            lo, hi = _span(smooth, span_lo[k], span_hi[k])
            span_lo[k], span_hi[k] = lo, hi
    return free


@_inlined
def _mark(marks, band, lo, hi):
    """Mark the cells of a band reached by the pixels ``lo..hi``."""
    if hi >= 0 and lo < SURFACE_W:
        first = CELL_FIRST_X[max(lo, 0)]
        stop = CELL_LAST_X[min(hi, SURFACE_W - 1)] + 1
        marks[band, 0] |= CELL_BITS[first, 0] ^ CELL_BITS[stop, 0]
        marks[band, 1] |= CELL_BITS[first, 1] ^ CELL_BITS[stop, 1]


@_inlined
def _mark_edge(marks, x1, y1, x2, y2, bands):
    """Mark the cells around an edge, in the first ``bands`` bands."""
    if y1 > y2:
        y1, y2, x1, x2 = y2, y1, x2, x1
    clipped = y1 < 0 or y2 >= SURFACE_H or min(x1, x2) < 0 or max(x1, x2) >= SURFACE_W
    margin_x = MARK_X_CLIPPED if clipped else MARK_X
    is_steep = y2 - y1 > abs(x2 - x1)
    margin_y = MARK_Y_CLIPPED if clipped else (0 if is_steep else MARK_Y)
    if y1 - margin_y >= SURFACE_H or y2 + margin_y < 0:
        return
    first = CELL_FIRST_Y[SURFACE_H - 1 - min(y2 + margin_y, SURFACE_H - 1)]
    last = CELL_LAST_Y[SURFACE_H - 1 - max(y1 - margin_y, 0)]
    slope = (x2 - x1) / max(y2 - y1, 1)
    for band in range(first, min(last + 1, bands)):
        top = min(max(BAND_TOP[band] - margin_y, y1), y2)
        bottom = max(min(BAND_BOTTOM[band] + margin_y, y2), y1)
        at_top, at_bottom = x1 + slope * (top - y1), x1 + slope * (bottom - y1)
        left, right = min(at_top, at_bottom), max(at_top, at_bottom)
        if y1 == y2:
            left, right = min(x1, x2), max(x1, x2)
        _mark(marks, band, int(left) - margin_x, int(right) + margin_x)


@_inlined
def _admit(xs, ys, poly, rgbs, n, vertices, smooth, rgb, row_min):
    """Finish polygon ``n``, whose vertices are in place, unless out of sight.

    Returns the number of polygons.
    """
    min_x, max_x, min_y, max_y = xs[n, 0], xs[n, 0], ys[n, 0], ys[n, 0]
    for i in range(1, vertices):
        min_x, max_x = min(min_x, xs[n, i]), max(max_x, xs[n, i])
        min_y, max_y = min(min_y, ys[n, i]), max(max_y, ys[n, i])
    if max_x < 0 or min_x >= SURFACE_W or max_y < row_min or min_y >= SURFACE_H:
        return n
    poly[n, POLY_N] = vertices
    poly[n, POLY_ROW_LO] = max(min_y, row_min)
    poly[n, POLY_ROW_HI] = min(max_y, SURFACE_H - 1)
    poly[n, POLY_MIN_Y] = min_y
    poly[n, POLY_MAX_Y] = max_y
    poly[n, POLY_SMOOTH] = smooth
    rgbs[n] = rgb
    return n + 1


@_compiled
def _prepare(xs, ys, poly, rgbs, flats, edges, span_lo, span_hi, marks, n, panel):
    """Scan convert all polygons and mark the cells around their edges.

    Those before ``panel`` stay off the panel's bands.
    """
    for band in range(FRAME_H):
        marks[band, 0] = marks[band, 1] = 0
    free = ROWS  # a band may read that many rows before and after a polygon's
    for k in range(free):
        span_lo[k], span_hi[k] = UNSEEN, -UNSEEN
    for p in range(n):
        flats[p] = _flat(rgbs[p])
        smooth = poly[p, POLY_SMOOTH]
        bands = PANEL_BAND if p < panel else FRAME_H
        j = poly[p, POLY_N] - 1
        for i in range(poly[p, POLY_N]):
            x1, y1, x2, y2 = xs[p, j], ys[p, j], xs[p, i], ys[p, i]
            _mark_edge(marks, x1, y1, x2, y2, bands)
            if smooth:
                _prepare_edge(edges, p, j, x1, y1, x2, y2)
            j = i
        free = _store_spans(poly, xs, ys, span_lo, span_hi, p, free)


# --------------------------------------------------------------- what is seen


@_inlined
def _project(xs, ys, n, i, x, y, view):
    """World to surface coordinates, truncated: vertex ``i`` of polygon ``n``."""
    zoom, cos, sin, shift_x, shift_y = view
    xs[n, i] = int((cos * x - sin * y) * zoom + shift_x)
    ys[n, i] = int((sin * x + cos * y) * zoom + shift_y)


@_compiled
def _make_view(zoom, angle, hull_x, hull_y):
    """The camera: zoom, rotation and translation, as Gymnasium computes them."""
    cos, sin = rotation(angle)
    scroll_x = -hull_x * zoom
    scroll_y = -hull_y * zoom
    shift_x = SURFACE_W / 2 + (cos * scroll_x - sin * scroll_y)
    shift_y = SURFACE_H / 4 + (sin * scroll_x + cos * scroll_y)
    return zoom, cos, sin, shift_x, shift_y


# Farthest visible pixel from the car, which is drawn at (500, 200).
VIEW_RADIUS = math.hypot(SURFACE_W / 2, SURFACE_H - SURFACE_H / 4) + 4.0


@_compiled
def _add_world(xs, ys, poly, rgbs, quads, colours, centres, radii, view, hull_x, hull_y):
    """Background, grass and road: quads with smoothed outlines."""
    n = 0
    reach = VIEW_RADIUS / view[0]
    for k in range(quads.shape[0]):
        dx, dy, limit = centres[k, 0] - hull_x, centres[k, 1] - hull_y, reach + radii[k]
        if dx * dx + dy * dy > limit * limit:
            continue
        for i in range(4):
            _project(xs, ys, n, i, quads[k, i, 0], quads[k, i, 1], view)
        rgb = pack_rgb(int(colours[k, 0]), int(colours[k, 1]), int(colours[k, 2]))
        n = _admit(xs, ys, poly, rgbs, n, 4, 1, rgb, WORLD_ROW)
    return n


@_compiled
def _add_body_polygon(xs, ys, poly, rgbs, n, path, vertices, body, rgb, view):
    """A polygon fixed to a rigid body, placed in Box2D's single precision."""
    px, py, sin, cos = body
    for i in range(vertices):
        x, y = path[i, 0], path[i, 1]
        world_x, world_y = float((cos * x - sin * y) + px), float((sin * x + cos * y) + py)
        _project(xs, ys, n, i, world_x, world_y, view)
    return _admit(xs, ys, poly, rgbs, n, vertices, 0, rgb, WORLD_ROW)


@_compiled
def _tread(path, phase):
    """The light patch on a wheel; False where it is on the wheel's far side."""
    s1, s2 = math.sin(phase), math.sin(phase + TREAD_ARC)
    c1, c2 = math.cos(phase), math.cos(phase + TREAD_ARC)
    if s1 > 0 and s2 > 0:
        return False
    if s1 > 0:
        c1 = np.sign(c1)
    if s2 > 0:
        c2 = np.sign(c2)
    top = np.float32(WHEEL_R * c1 * SIZE)
    bottom = np.float32(WHEEL_R * c2 * SIZE)
    left, right = np.float32(-WHEEL_W * SIZE), np.float32(WHEEL_W * SIZE)
    path[0, 0], path[0, 1] = left, top
    path[1, 0], path[1, 1] = right, top
    path[2, 0], path[2, 1] = right, bottom
    path[3, 0], path[3, 1] = left, bottom
    return True


@_compiled
def _add_car(xs, ys, poly, rgbs, n, tread, paths, sizes, bodies, body_rgb, state, view):
    """The wheels, each followed by its tread, and the hull."""
    for k in range(sizes.shape[0]):
        body = bodies[k]
        start = STATE_BODIES + BODY_FIELDS * body
        placement = (
            np.float32(state[start]),
            np.float32(state[start + 1]),
            np.float32(state[start + 2]),
            np.float32(state[start + 3]),
        )
        n = _add_body_polygon(xs, ys, poly, rgbs, n, paths[k], sizes[k], placement, body_rgb[k], view)
        if body != HULL and _tread(tread, state[STATE_PHASE + body]):
            n = _add_body_polygon(xs, ys, poly, rgbs, n, tread, 4, placement, np.uint32(TREAD_RGB), view)
    return n


@_compiled
def _add_gauge(xs, ys, poly, rgbs, n, left, top, right, bottom, rgb):
    """A rectangle of the panel, given in flipped coordinates."""
    x1, x2 = int(left), int(right)
    y1, y2 = SURFACE_H - 1 - int(top), SURFACE_H - 1 - int(bottom)
    xs[n, 0], xs[n, 1], xs[n, 2], xs[n, 3] = x1, x2, x2, x1
    ys[n, 0], ys[n, 1], ys[n, 2], ys[n, 3] = y1, y1, y2, y2
    return _admit(xs, ys, poly, rgbs, n, 4, 0, pack_rgb(rgb[0], rgb[1], rgb[2]), 0)


@_compiled
def _add_upright_gauge(xs, ys, poly, rgbs, n, place, value, scale, rgb):
    if abs(value) <= IDLE:
        return n
    top = SURFACE_H - (GRID_Y + GRID_Y * (scale * value))
    left, right = place * GRID_X, (place + 1) * GRID_X
    return _add_gauge(xs, ys, poly, rgbs, n, left, top, right, SURFACE_H - GRID_Y, rgb)


@_compiled
def _add_level_gauge(xs, ys, poly, rgbs, n, place, value, scale, rgb):
    if abs(value) <= IDLE:
        return n
    left, right = place * GRID_X, (place + scale * value) * GRID_X
    top, bottom = SURFACE_H - 4 * GRID_Y, SURFACE_H - 2 * GRID_Y
    return _add_gauge(xs, ys, poly, rgbs, n, left, top, right, bottom, rgb)


@_compiled
def _add_gauges(xs, ys, poly, rgbs, n, state):
    """Speed, the wheels' spin, steering and rotation."""
    speed_x, speed_y = state[STATE_SPEED_X], state[STATE_SPEED_Y]
    speed = math.sqrt(speed_x * speed_x + speed_y * speed_y)
    n = _add_upright_gauge(xs, ys, poly, rgbs, n, 5, speed, 0.02, WHITE)
    for wheel in range(WHEELS):
        rgb = BLUE if wheel < 2 else VIOLET
        omega = state[STATE_OMEGA + wheel]
        n = _add_upright_gauge(xs, ys, poly, rgbs, n, 7 + wheel, omega, 0.01, rgb)
    n = _add_level_gauge(xs, ys, poly, rgbs, n, 20, state[STATE_STEERING], -10.0, GREEN)
    return _add_level_gauge(xs, ys, poly, rgbs, n, 30, state[STATE_SPIN], -0.8, RED)


# ---------------------------------------------------------------------- bands


@_inlined
def _find_runs(marks, band, runs):
    """Join a band's marked cells into runs; returns how many.

    Columns: first and last pixel, first cell and the one after the last.
    """
    count = 0
    for half in range(2):
        word = marks[band, half]
        while word:
            first = trailing_zeros(word)
            word += np.uint64(1) << np.uint64(first)
            stop = trailing_zeros(word) if word else 64
            word &= word - np.uint64(1)
            first, stop = first + 64 * half, stop + 64 * half
            runs[count, 0], runs[count, 1] = CELL_HEAD[first], CELL_TAIL[stop - 1]
            runs[count, 2], runs[count, 3] = first, stop
            count += 1
    return count


@_inlined
def _fill_cells(frame, band, lo, hi, flat):
    """Fill the cells of a band whose centres lie in the pixels ``lo..hi``."""
    if hi >= 0 and lo < SURFACE_W:
        row = band * FRAME_W
        start = np.uint64(row + CENTRES_BEFORE[max(lo, 0)])
        stop = np.uint64(row + CENTRES_BEFORE[min(hi, SURFACE_W - 1) + 1])
        for i in range(start, stop):
            frame[i] = flat


@_inlined
def _fill_row(canvas, row, lo, hi, rgb):
    """Fill the pixels ``lo..hi`` of one row."""
    for x in range(max(lo, 0), min(hi, SURFACE_W - 1) + 1):
        canvas[np.uint64(x * ROWS + row)] = rgb


@_inlined
def _draw_edge(canvas, edges, p, i, rgb, top, bottom):
    """The part of an anti-aliased line in rows ``top..bottom``.

    Row ``y`` is row ``y - top + 1`` of the canvas; the rows before ``top`` and
    after ``bottom`` may be spoiled.
    """
    kind = edges[p, i, EDGE_KIND]
    x0, y0, steps = edges[p, i, EDGE_X0], edges[p, i, EDGE_Y0], edges[p, i, EDGE_STEPS]
    above = top - 1
    if kind == KIND_VERTICAL:
        for y in range(max(y0, top), min(y0 + steps, bottom) + 1):
            canvas[np.uint64(x0 * ROWS + y - above)] = rgb
        return
    if kind == KIND_HORIZONTAL:
        if top <= y0 <= bottom:
            _fill_row(canvas, y0 - above, min(x0, x0 + steps), max(x0, x0 + steps), rgb)
        return
    first_y = edges[p, i, EDGE_FIRST_Y]
    if top <= first_y <= bottom:
        canvas[np.uint64(edges[p, i, EDGE_FIRST_X] * ROWS + first_y - above)] = rgb
    direction, slope = edges[p, i, EDGE_DIR], edges[p, i, EDGE_SLOPE]
    if kind == KIND_STEEP:
        for y in range(max(y0 + 1, top), min(y0 + steps - 1, bottom) + 1):
            moved = (y - y0) * slope
            near = (x0 + direction * (moved >> 16)) * ROWS + y - above
            weight = (moved >> 8) & 255
            blend_one(canvas, near, rgb, ALPHAS, weight)
            blend_one(canvas, near + direction * ROWS, rgb, ALPHAS, 255 - weight)
        return
    start = max(1, (((above - y0) << 16) + slope - 1) // slope)
    stop = min(steps - 1, (((bottom + 1 - y0) << 16) - 1) // slope)
    for along in range(start, stop + 1):
        moved = along * slope
        near = (x0 + direction * along) * ROWS + y0 + (moved >> 16) - above
        blend_two(canvas, near, rgb, ALPHAS, (moved >> 8) & 255)


@_inlined
def _draw_outline(canvas, edges, poly, p, rgb, top, bottom):
    """The part of a polygon's anti-aliased outline in rows ``top..bottom``."""
    for i in range(poly[p, POLY_N]):
        y0 = edges[p, i, EDGE_Y0]
        if y0 <= bottom and edges[p, i, EDGE_Y1] >= top:
            _draw_edge(canvas, edges, p, i, rgb, top, bottom)


@_compiled
def _fill_slowly(poly, xs, ys, crossings, canvas, frame, p, rgb, flat, band, top, bottom, sample):
    """Fill rows of a polygon which has no stored spans."""
    n, smooth = poly[p, POLY_N], poly[p, POLY_SMOOTH]
    min_y, max_y = poly[p, POLY_MIN_Y], poly[p, POLY_MAX_Y]
    first, last = max(top, poly[p, POLY_ROW_LO]), min(bottom, poly[p, POLY_ROW_HI])
    for y in range(first, last + 1):
        row = y - top + 1
        count = _row_crossings(xs[p], ys[p], n, smooth, max_y, y, crossings)
        for i in range(0, count, 2):
            lo, hi = _span(smooth, crossings[i], crossings[i + 1])
            _fill_row(canvas, row, lo, hi, rgb)
            if y == sample:
                _fill_cells(frame, band, lo, hi, flat)
        if smooth:
            continue
        for i in range(n):
            j = i - 1 if i else n - 1
            if ys[p, i] == y and ys[p, j] == y and (min_y < y < max_y or min_y == max_y):
                _fill_row(canvas, row, min(xs[p, i], xs[p, j]), max(xs[p, i], xs[p, j]), rgb)


@_inlined
def _fill_spans(canvas, runs, run_count, span_lo, span_hi, first, rgb):
    """Fill the marked columns of a polygon whose spans begin at ``first``."""
    left, right = UNSEEN, -UNSEEN
    for k in range(first, first + ROWS):
        left, right = min(left, span_lo[np.uint64(k)]), max(right, span_hi[np.uint64(k)])
    for r in range(run_count):
        start, stop = max(left, runs[r, 0]), min(right, runs[r, 1]) + 1
        if start < stop:
            fill_columns(canvas, start, stop, rgb, span_lo, span_hi, first)


@_inlined
def _covers(poly, span_lo, span_hi, p, top, bottom):
    """Whether polygon ``p`` fills rows ``top..bottom`` from side to side."""
    row_lo, row_hi = poly[p, POLY_ROW_LO], poly[p, POLY_ROW_HI]
    if poly[p, POLY_SLOW] or top < row_lo or bottom > row_hi:
        return False
    first = poly[p, POLY_SPANS] - row_lo
    for k in range(first + top, first + bottom + 1):
        if span_lo[k] > 0 or span_hi[k] < SURFACE_W - 1:
            return False
    return True


@_compiled
def shrink_cells(canvas, band, first, stop, frame):
    """Filter the cells ``first..stop - 1`` of a band."""
    for i in range(np.uint64(first), np.uint64(stop)):
        frame[np.uint64(band * FRAME_W) + i] = shrink_cell(
            canvas, CELL_HEAD[i], CELL_TAIL[i], CELL_HEAD_WEIGHT[i], CELL_TAIL_WEIGHT[i],
            CELL_IS_WIDE[i], ROW_WEIGHTS, band, RECIP_X, RECIP_Y,
        )  # fmt: skip


@_compiled
def _paint_text(canvas, text_HW, left, top, first, last):
    """Copy the score's pixels, grey on black, to the canvas."""
    for y in range(max(first, top), min(last, top + text_HW.shape[0] - 1) + 1):
        for i in range(max(0, -left), text_HW.shape[1]):
            canvas[np.uint64((left + i) * ROWS + last - y + 1)] = text_HW[np.uint64(y - top), np.uint64(i)] * np.uint32(GREY)


@_inlined
def _band_span(poly, p):
    """First and last band whose cells polygon ``p`` may touch."""
    top = SURFACE_H - 1 - poly[p, POLY_ROW_HI] - MARK_Y_CLIPPED
    bottom = SURFACE_H - 1 - poly[p, POLY_ROW_LO] + MARK_Y_CLIPPED
    return CELL_FIRST_Y[max(top, 0)], CELL_LAST_Y[min(bottom, SURFACE_H - 1)]


@_compiled
def _sort_into_bands(members, band_begin, poly, n, panel):
    """List each band's polygons in painter's order.

    Those before ``panel`` stay off the panel's bands.  Band ``b``'s are
    ``members[band_begin[b] : band_begin[b + 1]]``.
    """
    band_begin[:] = 0
    for p in range(n):
        first, last = _band_span(poly, p)
        if p < panel:
            last = min(last, PANEL_BAND - 1)
        for band in range(first, last + 1):
            band_begin[band] += 1
    total = 0
    for band in range(FRAME_H + 1):
        total += band_begin[band]
        band_begin[band] = total
    for p in range(n - 1, -1, -1):
        first, last = _band_span(poly, p)
        if p < panel:
            last = min(last, PANEL_BAND - 1)
        for band in range(first, last + 1):
            band_begin[band] -= 1
            members[band_begin[band]] = p


@_compiled
def _draw_bands(
    poly, rgbs, flats, edges, span_lo, span_hi, members, band_begin, canvas, runs, marks, xs, ys,
    crossings, text_HW, text_left, text_top, frame,
):  # fmt: skip
    """Draw the frame row by row.

    The arrays come one by one because taking them out of a tuple costs an
    atomic reference count each time, which shows when repeated for every band.
    """
    for band in range(FRAME_H):
        top, bottom = BAND_TOP[band], BAND_BOTTOM[band]
        begin, end = band_begin[band], band_begin[band + 1]
        first, last = SURFACE_H - 1 - bottom, SURFACE_H - 1 - top
        if band >= PANEL_BAND and text_top <= last and text_top + text_HW.shape[0] > first:
            _mark(marks, band, text_left, text_left + text_HW.shape[1] - 1)
        run_count = _find_runs(marks, band, runs)
        ground, flat = np.uint32(0), np.uint32(0)
        if begin < end and _covers(poly, span_lo, span_hi, members[begin], top, bottom):
            ground, flat = rgbs[members[begin]], flats[members[begin]]
            begin += 1
        _fill_cells(frame, band, 0, SURFACE_W - 1, flat)
        for r in range(run_count):
            for k in range(np.uint64(runs[r, 0] * ROWS), np.uint64((runs[r, 1] + 1) * ROWS)):
                canvas[k] = ground
        sample = (top + bottom) // 2  # a row to tell whole cells' colour
        for m in range(begin, end):
            p = members[m]
            rgb, flat = rgbs[p], flats[p]
            if poly[p, POLY_SMOOTH]:
                _draw_outline(canvas, edges, poly, p, rgb, top, bottom)
            if poly[p, POLY_SLOW]:
                _fill_slowly(poly, xs, ys, crossings, canvas, frame, p, rgb, flat, band, top, bottom, sample)
            elif top <= poly[p, POLY_ROW_HI] and bottom >= poly[p, POLY_ROW_LO]:
                offset = poly[p, POLY_SPANS] - poly[p, POLY_ROW_LO]
                _fill_spans(canvas, runs, run_count, span_lo, span_hi, offset + top - 1, rgb)
                k = np.uint64(offset + sample)
                if span_lo[k] <= span_hi[k]:
                    _fill_cells(frame, band, span_lo[k], span_hi[k], flat)
        if band >= PANEL_BAND:
            _paint_text(canvas, text_HW, text_left, text_top, first, last)
        for r in range(run_count):
            shrink_cells(canvas, band, runs[r, 2], runs[r, 3], frame)


@_compiled
def list_polygons(work, world, car, state):
    """Fill ``work`` with the polygons in sight; returns how many."""
    xs, ys, poly, rgbs = work.xs, work.ys, work.poly, work.rgb
    hull = STATE_BODIES + BODY_FIELDS * HULL
    hull_x, hull_y = state[hull], state[hull + 1]
    view = _make_view(state[STATE_ZOOM], state[STATE_ANGLE], hull_x, hull_y)
    panel = _add_world(
        xs, ys, poly, rgbs, world.quads, world.colours, world.centres, world.radii, view,
        hull_x, hull_y,
    )  # fmt: skip
    panel = _add_car(
        xs,
        ys,
        poly,
        rgbs,
        panel,
        work.tread,
        car.paths,
        car.sizes,
        car.bodies,
        car.rgb,
        state,
        view,
    )
    n = _add_gauges(xs, ys, poly, rgbs, panel, state)
    _prepare(xs, ys, poly, rgbs, work.flat, work.edges, work.span_lo, work.span_hi, work.marks, n, panel)
    _sort_into_bands(work.members, work.band_begin, poly, n, panel)
    return n


@_compiled
def _to_bytes(frame, out):
    """Drop the unused byte of each pixel."""
    for i in range(FRAME_H * FRAME_W):
        rgb, k = frame[np.uint64(i)], np.uint64(3 * i)
        out[k] = rgb & 255
        out[k + np.uint64(1)] = (rgb >> 8) & 255
        out[k + np.uint64(2)] = (rgb >> 16) & 255


@_compiled
def draw_bands(work, text_HW, text_left, text_top, frame_HWC):
    """Draw the polygons listed in ``work``, and the score."""
    _draw_bands(
        work.poly, work.rgb, work.flat, work.edges, work.span_lo, work.span_hi, work.members,
        work.band_begin, work.canvas, work.runs, work.marks, work.xs, work.ys, work.crossings,
        text_HW, text_left, text_top, work.frame,
    )  # fmt: skip
    _to_bytes(work.frame, frame_HWC.reshape(frame_HWC.size))


@_compiled
def draw_frame(work, world, car, state, text_HW, text_left, text_top, frame_HWC):
    """Draw the moment described by ``state`` into ``frame_HWC``.

    ``work``, ``world`` and ``car`` are the fields of those as plain tuples: numba takes 6 microseconds more to look at named
    ones.
    """
    listed = Workspace(*work)
    list_polygons(listed, World(*world), CarShape(*car), state)
    draw_bands(listed, text_HW, text_left, text_top, frame_HWC)
