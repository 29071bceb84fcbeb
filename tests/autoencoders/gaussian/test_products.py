"""Products in blocks against those in float64."""

import numpy as np
import pytest

from worldmodel_v.autoencoders.gaussian.products import (
    BLOCK_ROWS,
    BLOCK_VECTORS,
    LANES,
    multiply_blocks,
    multiply_narrow_blocks,
)
from worldmodel_v.compiler import njit


@njit()
def in_wide_blocks(v, weights, m):
    multiply_blocks(v, weights, m, v.shape[0], v.shape[1], m.shape[1])


@njit()
def in_narrow_blocks(v, weights, m):
    multiply_narrow_blocks(v, weights, m, v.shape[0], v.shape[1], m.shape[1])


WAYS = {"wide": (in_wide_blocks, LANES * BLOCK_VECTORS), "narrow": (in_narrow_blocks, LANES)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("blocks", "inner", "widths"), [(1, 1, 1), (3, 7, 2), (8, 64, 4)])
def test_a_product_is_that_of_float64_rounded(way: str, blocks: int, inner: int, widths: int) -> None:
    multiply, width = WAYS[way]
    rng = np.random.default_rng(blocks)
    v = rng.standard_normal((blocks * BLOCK_ROWS, inner), dtype=np.float32)
    weights = rng.standard_normal((inner, widths * width), dtype=np.float32)
    around = np.full((len(v) + 2, widths * width), 7, np.float32)
    multiply(v, weights, around[1:-1])
    exact = v.astype(np.float64) @ weights
    np.testing.assert_allclose(around[1:-1], exact, rtol=0, atol=2e-6 * np.abs(exact).max())
    assert (around[[0, -1]] == 7).all()  # it writes nothing beside


@pytest.mark.parametrize("way", WAYS)
def test_a_row_has_the_same_bits_at_any_place(way: str) -> None:
    multiply, width = WAYS[way]
    rng = np.random.default_rng(0)
    v = rng.standard_normal((4 * BLOCK_ROWS, 33), dtype=np.float32)
    weights = rng.standard_normal((33, 2 * width), dtype=np.float32)
    found, moved = np.empty((2, len(v), 2 * width), np.float32)
    multiply(v, weights, found)
    multiply(np.roll(v, 3, axis=0), weights, moved)
    np.testing.assert_array_equal(moved, np.roll(found, 3, axis=0))
