"""Where frames, labels and points stand in a picture."""

import numpy as np
import pytest

from worldmodel_v.evaluation.canvas import (
    CELL,
    GAP,
    GROUP_GAP,
    LINE,
    PANEL,
    Colouring,
    Row,
    frame_grid,
    heat,
    ramp_colours,
    scatter,
)
from worldmodel_v.evaluation.colours import INFERNO, VIRIDIS


def test_frames_are_enlarged_and_stand_in_rows_on_a_transparent_ground() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    picture = frame_grid([Row("", frames[:2]), Row("", frames[2:], starts_group=True)])
    assert picture.shape == (2 * CELL + GAP + GROUP_GAP, 2 * CELL + GAP, 4)
    for frame, top, left in ((0, 0, 0), (1, 0, CELL + GAP), (2, CELL + GAP + GROUP_GAP, 0)):
        place = picture[top : top + CELL, left : left + CELL]
        np.testing.assert_array_equal(place[::2, ::2, :3], frames[frame])
        assert (place[:, :, 3] == 255).all()
    assert (picture[CELL : CELL + GAP + GROUP_GAP, :, 3] == 0).all()


def test_labels_stand_to_the_left_and_headings_above() -> None:
    frames = np.zeros((1, 64, 64, 3), np.uint8)
    bare = frame_grid([Row("", frames)])
    labelled = frame_grid([Row("one\ntwo", frames)], ["top"])
    assert labelled.shape[0] == bare.shape[0] + LINE + GAP
    left = labelled.shape[1] - bare.shape[1]
    assert left > 24
    assert labelled[LINE + GAP :, :left, 3].any()
    assert labelled[:LINE, left:, 3].any()


def test_a_shorter_row_leaves_the_ground_at_its_end() -> None:
    frames = np.full((4, 128, 128, 3), 7, np.uint8)
    picture = frame_grid([Row("", frames[:3]), Row("", frames[3:])])
    assert (picture[CELL + GAP :, CELL:, 3] == 0).all()
    assert (picture[CELL + GAP :, :CELL] == [7, 7, 7, 255]).all()


@pytest.mark.parametrize(("size", "width"), [(8, 128), (64, 128), (128, 128), (256, 256)])
def test_frames_of_all_sizes_are_drawn_about_equally_large(size: int, width: int) -> None:
    assert frame_grid([Row("", np.zeros((1, size, size, 3), np.uint8))]).shape[:2] == (width, width)


def test_a_map_has_one_panel_for_each_colouring() -> None:
    places = np.random.default_rng(0).normal(size=(50, 2))
    picture = scatter(places, [Colouring("one", places[:, 0]), Colouring("two", places[:, 1], is_angle=True)])
    assert picture.shape == (PANEL + 2 * LINE + GAP, 2 * PANEL + GROUP_GAP, 4)
    assert (picture[..., 3] > 0).any()
    assert (picture[:, PANEL + 2 : PANEL + GROUP_GAP - 2, 3] == 0).all()


def test_points_in_one_place_can_be_drawn() -> None:
    assert scatter(np.zeros((5, 2)), [Colouring("same", np.ones(5))]).shape[1] == PANEL


def test_colours_run_along_the_ramp_between_the_percentiles() -> None:
    colours, low, high = ramp_colours(np.linspace(0, 100, 101))
    assert (low, high) == (2.0, 98.0)
    assert colours[0].tolist() == VIRIDIS[0].tolist()
    assert colours[-1].tolist() == VIRIDIS[-1].tolist()


def test_what_is_nearly_always_the_same_has_a_scale_too() -> None:
    assert ramp_colours(np.array([0.0] + [1.0] * 99))[1:] == (0.0, 1.0)


def test_heat_goes_along_inferno() -> None:
    found = heat(np.array([[[0.0, 1 / 3, 2 / 3, 1.0, 7.0]]]))
    assert found.tolist() == [[[INFERNO[i].tolist() for i in (0, 3, 6, 9, 9)]]]
