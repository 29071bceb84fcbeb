"""Colours whose steps look equal, to people who see red and green as one too."""

import numpy as np
import pytest

from worldmodel_v.evaluation.colours import GROUND, INFERNO, VIRIDIS, along, around

DEUTERANOPIA = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
"""Of linear RGB (Machado et al. 2009)."""


def linear(colours: np.ndarray) -> np.ndarray:
    shares = colours / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def lab(colours: np.ndarray, seen_by: np.ndarray | None = None) -> np.ndarray:
    """OKLab of sRGB."""
    shown = linear(colours) if seen_by is None else np.clip(linear(colours) @ seen_by.T, 0, 1)
    cones = (
        shown
        @ np.array(
            [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.6806996, 0.1073969], [0.0883024, 0.2817188, 0.6299787]]
        ).T
    )
    rows = [[0.21045426, 0.79361778, -0.00407205], [1.97799850, -2.42859221, 0.45059371], [0.02590404, 0.78277177, -0.80867577]]
    return np.cbrt(cones) @ np.array(rows).T


def luminance(colours: np.ndarray) -> np.ndarray:
    return linear(colours) @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("anchors", [VIRIDIS, INFERNO], ids=["viridis", "inferno"])
def test_more_is_lighter_in_equal_steps(anchors: np.ndarray) -> None:
    light = lab(along(anchors, np.linspace(0, 1, 12)))[:, 0]
    assert (np.diff(light) > 0).all()
    steps = np.linalg.norm(np.diff(lab(anchors), axis=0), axis=1)
    assert steps.max() < 2.5 * steps.min()


def test_full_turns_later_an_angle_has_the_same_colour_and_close_angles_have_close_ones() -> None:
    turn = np.linspace(-np.pi, np.pi, 65)
    np.testing.assert_array_equal(around(turn), around(turn + 4 * np.pi))
    np.testing.assert_array_equal(around(np.array(-np.pi)), around(np.array(np.pi)))
    steps = np.linalg.norm(np.diff(lab(around(turn)), axis=0), axis=1)
    assert steps.max() < 2.5 * steps.min()


@pytest.mark.parametrize("seen_by", [None, DEUTERANOPIA], ids=["all colours", "no red and green"])
def test_no_two_quarters_of_a_turn_look_alike(seen_by: np.ndarray | None) -> None:
    quarters = lab(around(np.arange(4) * np.pi / 2), seen_by)
    distances = np.linalg.norm(quarters[:, None] - quarters[None], axis=2)
    assert distances[~np.eye(4, dtype=bool)].min() > 0.12


def test_every_point_stands_out_from_the_ground() -> None:
    ground = luminance(np.array(GROUND))
    for colours in (along(VIRIDIS, np.linspace(0, 1, 50)), around(np.linspace(0, 6.28, 50))):
        assert ((luminance(colours) + 0.05) / (ground + 0.05)).min() > 1.9
