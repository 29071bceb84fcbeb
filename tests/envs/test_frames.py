"""Area averaging against exact arithmetic, and what a crop may be."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel_v.envs import FramePreprocessor
from worldmodel_v.envs.frames import area_weights, parse_crop
from worldmodel_v.errors import ConfigError


def sums_over_cells(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Sums over `size` equal cells of the first axis, each value cut into equal parts, and the parts in a cell."""
    length = len(values)
    parts = size // math.gcd(length, size)
    in_a_cell = length * parts // size
    return values.repeat(parts, axis=0).reshape(size, in_a_cell, *values.shape[1:]).sum(axis=1), in_a_cell


def exact_area_average(frame_HWC: np.ndarray, size: int) -> np.ndarray:
    """The mean over each output cell by the fraction of each pixel in it, in whole numbers, a half rounded up."""
    rows, parts_h = sums_over_cells(frame_HWC.astype(np.int64), size)
    sums, parts_w = sums_over_cells(rows.swapaxes(0, 1), size)
    parts = parts_h * parts_w
    return ((2 * sums.swapaxes(0, 1) + parts) // (2 * parts)).astype(np.uint8)


def random_frame(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def resized(frame: np.ndarray, size: int, crop: str = "full") -> np.ndarray:
    return FramePreprocessor(frame.shape, crop, size)(frame)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(84, 96, 64), (96, 96, 64), (210, 160, 64), (63, 63, 64), (251, 257, 64), (400, 600, 64), (8, 8, 1), (5, 7, 32)],
)
@pytest.mark.parametrize("seed", range(3))
def test_frames_are_averaged_exactly(height: int, width: int, size: int, seed: int) -> None:
    frame = random_frame(height, width, seed)
    np.testing.assert_array_equal(resized(frame, size), exact_area_average(frame, size), strict=True)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    size=st.integers(1, 70),
    low=st.integers(0, 254),
    seed=st.integers(0, 2**32 - 1),
)
def test_frames_of_any_size_are_averaged_exactly(height: int, width: int, size: int, low: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(low, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resized(frame, size), exact_area_average(frame, size), strict=True)


def test_large_frames_are_averaged_exactly_where_float32_would_round() -> None:
    """Every mean is close to 254.5, so that a small error in a sum of millions shows in a byte."""
    frame = 255 - random_frame(1021, 1031) % 2
    assert 255 * 1021 * 1031 > 2**24
    np.testing.assert_array_equal(resized(frame, 64), exact_area_average(frame, 64), strict=True)


def test_a_frame_of_the_right_size_is_unchanged() -> None:
    frame = random_frame(64, 64)
    np.testing.assert_array_equal(resized(frame, 64), frame, strict=True)


@pytest.mark.parametrize(("pair", "mean"), [((0, 1), 1), ((1, 2), 2), ((254, 255), 255), ((10, 10), 10), ((0, 255), 128)])
def test_a_half_is_rounded_up(pair: tuple[int, int], mean: int) -> None:
    frame = np.repeat(np.array([pair], np.uint8)[:, :, None], 3, axis=2)
    assert resized(frame, 1).tolist() == [[[mean] * 3]]


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_a_flat_frame_stays_flat(value: int) -> None:
    frame = np.full((251, 257, 3), value, np.uint8)
    np.testing.assert_array_equal(resized(frame, 64), np.full((64, 64, 3), value, np.uint8))


def test_channels_do_not_mix() -> None:
    frame = random_frame(84, 96)
    frame[:, :, 1] = 0
    found = resized(frame, 64)
    assert not found[:, :, 1].any()
    np.testing.assert_array_equal(found[:, :, 2], exact_area_average(frame[:, :, 2:], 64)[:, :, 0])


@pytest.mark.parametrize("axes", [2, 3])
def test_a_gray_frame_becomes_three_equal_channels(axes: int) -> None:
    gray = random_frame(84, 84, channels=1)
    found = resized(gray if axes == 3 else gray[:, :, 0], 64)
    np.testing.assert_array_equal(found, exact_area_average(gray, 64).repeat(3, axis=2), strict=True)


def test_a_frame_is_cropped_before_it_is_resized() -> None:
    frame = random_frame(96, 96)
    found = resized(frame, 64, crop="10:94,3:80")
    np.testing.assert_array_equal(found, exact_area_average(frame[10:94, 3:80], 64), strict=True)


def test_the_result_is_contiguous_and_the_frame_is_left_alone() -> None:
    frame = random_frame(96, 96)
    before = frame.copy()
    found = resized(frame, 64)
    found[:] = 0
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(frame, before)


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 300), size=st.integers(1, 300))
def test_the_weights_share_every_input_fully_and_every_output_equally(length: int, size: int) -> None:
    weights = area_weights(length, size)
    gcd = math.gcd(length, size)
    assert weights.shape == (size, length)
    assert (weights >= 0).all()
    assert (weights.sum(axis=1) == length // gcd).all()
    assert (weights.sum(axis=0) == size // gcd).all()


@pytest.mark.parametrize(
    ("crop", "expected"), [("full", (0, 84, 0, 96)), ("0:84,0:96", (0, 84, 0, 96)), ("10:20,30:31", (10, 20, 30, 31))]
)
def test_a_crop_is_rows_then_columns(crop: str, expected: tuple[int, int, int, int]) -> None:
    assert parse_crop(crop, (84, 96, 3)) == expected


@pytest.mark.parametrize("crop", ["", "all", "0:84", "0:84,0:96,0:3", "-1:84,0:96", "0:84, 0:96", "0:84,0:96\n", "a:b,c:d"])
def test_a_crop_of_another_form_is_refused(crop: str) -> None:
    text = f'--crop {crop!r}: expected "auto", "full" or TOP:BOTTOM,LEFT:RIGHT such as 0:84,0:96'
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        parse_crop(crop, (84, 96, 3))


@pytest.mark.parametrize("crop", ["0:85,0:96", "0:84,0:97", "10:10,0:96", "20:10,0:96", "0:84,96:96", "0:84,5:4"])
def test_a_crop_outside_the_frame_is_refused(crop: str) -> None:
    text = f"--crop {crop}: does not lie in the environment's frame of 84 rows and 96 columns"
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        FramePreprocessor((84, 96, 3), crop, 64)
