"""Resizing against exact arithmetic, letterboxes, and what a crop or a size may be."""

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel_v.envs import FramePreprocessor, frame_preprocessor
from worldmodel_v.envs.frames import area_weights, bilinear_weights
from worldmodel_v.errors import ConfigError
from worldmodel_v.preprocessing import Preprocessing, parse_crop, parse_frame_size


def exact_bilinear(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-pixel centres, clamped to the outermost pixels', in fractions, a half rounded up."""

    def neighbours(length: int, size: int) -> list[list[tuple[int, Fraction]]]:
        found = []
        for i in range(size):
            at = min(max(Fraction(2 * i + 1, 2) * Fraction(length, size) - Fraction(1, 2), Fraction(0)), Fraction(length - 1))
            found.append([(at.__floor__(), 1 - at % 1), (min(at.__floor__() + 1, length - 1), at % 1)])
        return found

    rows, columns = neighbours(frame_HWC.shape[0], height), neighbours(frame_HWC.shape[1], width)
    out = np.empty((height, width, frame_HWC.shape[2]), np.uint8)
    for i, j, c in np.ndindex(out.shape):
        mean = sum(a * b * int(frame_HWC[y, x, c]) for y, a in rows[i] for x, b in columns[j])
        out[i, j, c] = (mean + Fraction(1, 2)).__floor__()
    return out


def sums_over_cells(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Sums over `size` equal cells of the first axis, each value cut into equal parts, and the parts in a cell."""
    length = len(values)
    parts = size // math.gcd(length, size)
    in_a_cell = length * parts // size
    return values.repeat(parts, axis=0).reshape(size, in_a_cell, *values.shape[1:]).sum(axis=1), in_a_cell


def exact_area_average(frame_HWC: np.ndarray, height: int, width: int | None = None) -> np.ndarray:
    """The mean over each output cell by the fraction of each pixel in it, in whole numbers, a half rounded up."""
    rows, parts_h = sums_over_cells(frame_HWC.astype(np.int64), height)
    sums, parts_w = sums_over_cells(rows.swapaxes(0, 1), width or height)
    parts = parts_h * parts_w
    return ((2 * sums.swapaxes(0, 1) + parts) // (2 * parts)).astype(np.uint8)


def random_frame(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def resized(frame: np.ndarray, height: int, width: int | None = None, **settings: Any) -> np.ndarray:
    preprocessing = Preprocessing(frame_height=height, frame_width=width or height, **settings)
    return FramePreprocessor(frame.shape, preprocessing)(frame)


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


@pytest.mark.parametrize(("height", "width"), [(400, 600), (251, 257), (1021, 70)])
def test_gray_frames_are_averaged_exactly(height: int, width: int) -> None:
    gray = random_frame(height, width, channels=1)
    np.testing.assert_array_equal(resized(gray, 64)[:, :, :1], exact_area_average(gray, 64), strict=True)


@pytest.mark.parametrize("view", [lambda frame: frame[::-1], lambda frame: frame[:, ::2], np.asfortranarray])
def test_a_frame_may_lie_in_memory_in_any_way(view: Callable[[np.ndarray], np.ndarray]) -> None:
    frame = view(random_frame(251, 514))
    np.testing.assert_array_equal(resized(frame, 64), exact_area_average(frame, 64), strict=True)


def test_the_preprocessor_of_a_shape_is_made_once() -> None:
    settings = {"frame_height": 64, "frame_width": 64}
    first = frame_preprocessor((84, 96, 3), Preprocessing(**settings))
    assert frame_preprocessor((84, 96, 3), Preprocessing(**settings)) is first
    assert frame_preprocessor((84, 97, 3), Preprocessing(**settings)) is not first


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


@pytest.mark.parametrize(("height", "width"), [(64, 48), (40, 96), (96, 128), (120, 8)])
def test_height_and_width_may_differ(height: int, width: int) -> None:
    frame = random_frame(84, 96)
    np.testing.assert_array_equal(resized(frame, height, width), exact_area_average(frame, height, width), strict=True)
    found = resized(frame[:20, :24], height, width, resize="bilinear")
    np.testing.assert_array_equal(found, exact_bilinear(frame[:20, :24], height, width), strict=True)


class TestBilinear:
    @settings(max_examples=40, deadline=None)
    @given(
        raw=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
        low=st.integers(0, 254),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_frames_of_any_size_are_interpolated_exactly(
        self, raw: tuple[int, int], size: tuple[int, int], low: int, seed: int
    ) -> None:
        frame = np.random.default_rng(seed).integers(low, 256, (*raw, 3), dtype=np.uint8)
        np.testing.assert_array_equal(resized(frame, *size, resize="bilinear"), exact_bilinear(frame, *size), strict=True)

    @pytest.mark.parametrize("raw", [(84, 96), (96, 96), (210, 160), (63, 65), (251, 257), (1021, 1031), (32, 40), (1, 7)])
    @pytest.mark.parametrize("size", [(64, 64), (96, 128), (1, 1), (40, 24)])
    def test_it_is_what_torch_interpolates(self, raw: tuple[int, int], size: tuple[int, int]) -> None:
        frame = random_frame(*raw)
        x = torch.from_numpy(frame).permute(2, 0, 1)[None].double()
        exact = torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=False)
        found = resized(frame, *size, resize="bilinear")
        assert np.abs(found - exact[0].permute(1, 2, 0).numpy()).max() <= 0.5 + 1e-9

    def test_by_hand(self) -> None:
        """Four cells over two pixels lie at -1/4 (clamped), 1/4, 3/4 and 5/4 (clamped); two over four at 1/2 and 5/2."""
        assert bilinear_weights(2, 4).tolist() == [[4, 0], [3, 1], [1, 3], [0, 4]]
        assert bilinear_weights(4, 2).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
        assert bilinear_weights(6, 2).tolist() == [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
        frame = np.repeat(np.array([[0, 100]], np.uint8)[:, :, None], 3, axis=2)
        assert resized(frame, 1, 4, resize="bilinear")[0, :, 0].tolist() == [0, 25, 75, 100]
        frame = np.repeat(np.array([[0, 1]], np.uint8)[:, :, None], 3, axis=2)
        assert resized(frame, 1, 1, resize="bilinear").tolist() == [[[1, 1, 1]]]  # a half is rounded up

    @settings(max_examples=100, deadline=None)
    @given(length=st.integers(1, 300), size=st.integers(1, 300))
    def test_every_output_has_the_same_sum_of_at_most_two_neighbours(self, length: int, size: int) -> None:
        weights = bilinear_weights(length, size)
        assert weights.shape == (size, length)
        assert (weights >= 0).all()
        assert len(set(weights.sum(axis=1).tolist())) == 1
        assert all(np.ptp(np.flatnonzero(row)) <= 1 for row in weights)
        np.testing.assert_array_equal(weights, weights[::-1, ::-1])

    @pytest.mark.parametrize("size", [(30, 40), (64, 64)])
    def test_a_frame_of_the_right_size_and_a_flat_one_are_unchanged(self, size: tuple[int, int]) -> None:
        frame = random_frame(*size)
        np.testing.assert_array_equal(resized(frame, *size, resize="bilinear"), frame, strict=True)
        assert (resized(np.full((251, 257, 3), 255, np.uint8), *size, resize="bilinear") == 255).all()


class TestLetterbox:
    @pytest.mark.parametrize("resize", ["area", "bilinear"])
    @pytest.mark.parametrize(
        ("raw", "size", "rows", "columns"),
        [
            ((84, 96), (64, 64), slice(4, 60), slice(0, 64)),
            ((96, 84), (64, 64), slice(0, 64), slice(4, 60)),
            ((210, 160), (64, 64), slice(0, 64), slice(7, 56)),  # 48.76 columns, and 7 and 8 black ones
            ((48, 64), (96, 96), slice(12, 84), slice(0, 96)),
            ((10, 40), (64, 48), slice(26, 38), slice(0, 48)),
            ((1, 1000), (16, 16), slice(7, 8), slice(0, 16)),  # a row at least
        ],
    )
    def test_what_is_kept_stands_in_the_middle_of_black(
        self, raw: tuple[int, int], size: tuple[int, int], rows: slice, columns: slice, resize: str
    ) -> None:
        frame = random_frame(*raw)
        found = np.full((*size, 3), 9, np.uint8)
        preprocessing = Preprocessing(frame_height=size[0], frame_width=size[1], resize=resize, fit="letterbox")  # type: ignore[arg-type]
        FramePreprocessor(frame.shape, preprocessing)(frame, found)
        expected = np.zeros((*size, 3), np.uint8)
        inner = (rows.stop - rows.start, columns.stop - columns.start)
        expected[rows, columns] = resized(frame, *inner, resize=resize)
        np.testing.assert_array_equal(found, expected)

    @settings(max_examples=100, deadline=None)
    @given(*[st.integers(1, 300)] * 4)
    def test_one_side_is_filled_and_the_other_keeps_the_aspect_ratio(self, h: int, w: int, height: int, width: int) -> None:
        top, left, inner_h, inner_w = Preprocessing(frame_height=height, frame_width=width, fit="letterbox").placement(h, w)
        assert inner_h == height or inner_w == width
        assert 0 <= height - inner_h - 2 * top <= 1
        assert 0 <= width - inner_w - 2 * left <= 1
        scale = min(Fraction(height, h), Fraction(width, w))
        for inner, side in ((inner_h, h), (inner_w, w)):
            assert inner == max(1, (scale * side + Fraction(1, 2)).__floor__())

    def test_what_has_the_frames_aspect_ratio_has_no_black(self) -> None:
        frame = random_frame(48, 64)
        found = resized(frame, 96, 128, fit="letterbox")
        np.testing.assert_array_equal(found, resized(frame, 96, 128), strict=True)

    @pytest.mark.parametrize("axes", [2, 3])
    def test_a_gray_frame_becomes_three_equal_channels(self, axes: int) -> None:
        gray = random_frame(40, 84, channels=1)
        found = resized(gray if axes == 3 else gray[:, :, 0], 64, fit="letterbox")
        np.testing.assert_array_equal(found, resized(gray.repeat(3, axis=2), 64, fit="letterbox"), strict=True)


@pytest.mark.parametrize(("size", "expected"), [(64, (64, 64)), ("64", (64, 64)), ("96x128", (96, 128)), ("8x8", (8, 8))])
def test_a_frame_size_is_one_number_or_height_and_width(size: int | str, expected: tuple[int, int]) -> None:
    assert parse_frame_size(size) == expected


@pytest.mark.parametrize("size", ["", "x", "64x", "x64", "64x64x3", "64 x 64", "-1x5", "6.4", "64X64", "9" * 5000])
def test_a_frame_size_of_another_form_is_refused(size: str) -> None:
    text = f"frame_size: expected a number such as 64, or HEIGHTxWIDTH such as 96x128, got {size!r:.200}"
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        parse_frame_size(size)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"resize": "cubic"}, "resize: expected area or bilinear, got 'cubic'"),
        ({"fit": "cover"}, "fit: expected stretch or letterbox, got 'cover'"),
    ],
)
def test_another_way_to_resize_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        Preprocessing(frame_height=64, frame_width=64, **settings)


@pytest.mark.parametrize(
    ("crop", "size", "expected"),
    [("full", 64, False), ("0:84,0:96", 64, False), ("0:84,0:96", 96, True), ("0:96,0:96", 96, False), ("1:3,2:4", 8, True)],
)
def test_whether_the_size_tells_raw_frames_from_recorded_ones(crop: str, size: int, expected: bool) -> None:
    preprocessing = Preprocessing(crop=crop, frame_height=size, frame_width=size)
    assert preprocessing.changes_frames_of_its_size() == expected


@pytest.mark.parametrize(
    ("crop", "expected"), [("full", (0, 84, 0, 96)), ("0:84,0:96", (0, 84, 0, 96)), ("10:20,30:31", (10, 20, 30, 31))]
)
def test_a_crop_is_rows_then_columns(crop: str, expected: tuple[int, int, int, int]) -> None:
    assert parse_crop(crop, (84, 96, 3)) == expected


@pytest.mark.parametrize("crop", ["", "all", "0:84", "0:84,0:96,0:3", "-1:84,0:96", "0:84, 0:96", "0:84,0:96\n", "a:b,c:d"])
def test_a_crop_of_another_form_is_refused(crop: str) -> None:
    text = f'crop: expected "auto", "full" or TOP:BOTTOM,LEFT:RIGHT such as 0:84,0:96, got {crop!r}'
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        parse_crop(crop, (84, 96, 3))


@pytest.mark.parametrize("crop", ["0:85,0:96", "0:84,0:97", "10:10,0:96", "20:10,0:96", "0:84,96:96", "0:84,5:4"])
def test_a_crop_outside_the_frame_is_refused(crop: str) -> None:
    text = f"crop={crop!r}: does not lie in the environment's frame of 84 rows and 96 columns"
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        FramePreprocessor((84, 96, 3), Preprocessing(crop=crop, frame_height=64, frame_width=64))
