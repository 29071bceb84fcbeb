"""Ways through latent space, worked out by hand."""

import numpy as np
import pytest

from worldmodel_v.evaluation.walks import interpolate, jumpiness, traverse


def test_an_arc_between_axes_passes_through_the_diagonal() -> None:
    (walk,) = interpolate(np.array([[2.0, 0.0]]), np.array([[0.0, 4.0]]), steps=3)
    np.testing.assert_allclose(walk, [[2, 0], [3 * 0.5**0.5] * 2, [0, 4]], atol=1e-12)


def test_ends_are_kept_and_lengths_go_linearly() -> None:
    start, end = np.random.default_rng(0).normal(size=(2, 4, 8))
    walks = interpolate(start, end, steps=5)
    np.testing.assert_allclose(walks[:, 0], start)
    np.testing.assert_allclose(walks[:, -1], end)
    lengths = np.linalg.norm(walks, axis=2)
    np.testing.assert_allclose(np.diff(lengths, 2, axis=1), 0, atol=1e-12)


@pytest.mark.parametrize("end", [[2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
def test_where_there_is_no_arc_the_way_is_straight(end: list[float]) -> None:
    (walk,) = interpolate(np.array([[1.0, 0.0]]), np.array([end]), steps=5)
    np.testing.assert_allclose(walk, np.linspace([1.0, 0.0], end, 5), atol=1e-12)


def test_a_traversal_sweeps_one_latents_own_spread_and_keeps_the_others() -> None:
    mean, std = np.array([1.0, 0.0, -2.0]), np.array([0.5, 1.0, 3.0])
    walks = traverse(np.array([0.1, 0.2, 0.3]), np.array([2, 0]), mean, std, steps=3)
    assert walks.tolist() == [
        [[0.1, 0.2, -8.0], [0.1, 0.2, -2.0], [0.1, 0.2, 4.0]],
        [[0.0, 0.2, 0.3], [1.0, 0.2, 0.3], [2.0, 0.2, 0.3]],
    ]


@pytest.mark.parametrize(
    ("levels", "expected"), [([0, 10, 20, 30], 1.0), ([0, 0, 0, 30], 3.0), ([7, 7, 7], 0.0), ([30, 20, 0], 20 / 15)]
)
def test_the_largest_step_is_told_in_average_steps(levels: list[int], expected: float) -> None:
    frames = np.array(levels, np.uint8)[:, None, None, None].repeat(2, axis=1)
    assert jumpiness(frames) == pytest.approx(expected)
