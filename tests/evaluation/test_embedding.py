"""The map of the latents."""

import numpy as np
import pytest

from worldmodel_v.evaluation.embedding import MAX_POINTS, choose_points, embed, neighbour_agreement
from worldmodel_v.evaluation.factors import without_end


def two_clouds(size: int) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(60, size))
    noise[30:, 0] += 20
    return noise


@pytest.mark.parametrize("size", [1, 2, 5])
def test_what_is_apart_in_latent_space_is_apart_on_the_map(size: int) -> None:
    places = embed(two_clouds(size), seed=0)
    assert places.shape == (60, 2)
    centres = places[:30].mean(axis=0), places[30:].mean(axis=0)
    spread = max(places[:30].std(axis=0).max(), places[30:].std(axis=0).max())
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * spread


def test_the_same_latents_and_seed_give_the_same_map() -> None:
    np.testing.assert_array_equal(embed(two_clouds(3), seed=4), embed(two_clouds(3), seed=4))


def test_points_are_evenly_spaced_and_at_most_two_thousand() -> None:
    assert choose_points(7).tolist() == list(range(7))
    points = choose_points(10_000)
    assert len(points) == MAX_POINTS
    assert (points[0], points[-1]) == (0, 9999)


def test_an_orderly_value_agrees_with_its_neighbours_and_a_shuffled_one_does_not() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(size=(500, 2))
    assert neighbour_agreement(places, places[:, 0]) > 0.97
    assert abs(neighbour_agreement(places, rng.permutation(500).astype(float))) < 0.2
    assert neighbour_agreement(places, np.ones(500)) == 0.0
    assert neighbour_agreement(places, np.full(500, 0.1)) == 0.0


def test_an_angle_agrees_across_its_end() -> None:
    places = np.random.default_rng(0).normal(size=(500, 2))
    angle = np.arctan2(places[:, 1], places[:, 0])
    turned = np.angle(np.exp(1j * (angle + 2.0)))
    both = [neighbour_agreement(places, without_end("angle", values)) for values in (angle, turned)]
    assert both[0] == pytest.approx(both[1], abs=1e-3)
    assert both[0] > neighbour_agreement(places, angle)
