"""A hole that is filled by stand-ins for a VAE."""

import numpy as np
import pytest

from worldmodel_v.evaluation.inpainting import GREY, inpaint

NOTHING = np.zeros((6, 0), np.float32)


class StandIn:
    """Reconstructs frames that it was given, whatever it sees."""

    def __init__(self, decoded: np.ndarray) -> None:
        self._decoded = decoded

    def reconstruct(self, frames: np.ndarray, condition: np.ndarray) -> np.ndarray:
        self.seen = frames
        return self._decoded


def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)


def test_who_knows_the_frames_fills_the_hole_without_error() -> None:
    figures, filled = inpaint(StandIn(frames()), frames(), NOTHING)  # type: ignore[arg-type]
    assert (figures.mse, figures.seen_mse) == (0.0, 0.0)
    np.testing.assert_array_equal(filled.inpainted, frames())
    assert figures.hole == (4, 12, 4, 12)
    assert (figures.num_frames, figures.rounds) == (6, 8)
    assert (figures.prior_mse, filled.by_prior) == (None, None)


def test_what_completes_the_frames_sees_the_hole_and_fills_it_alone() -> None:
    def complete(masked: np.ndarray, hole: np.ndarray, condition: np.ndarray) -> np.ndarray:
        assert (masked[:, hole] == GREY).all()
        assert (hole.sum(), len(condition)) == (64, 6)
        return np.where(hole[..., None], frames(), 0).astype(np.uint8)

    figures, filled = inpaint(StandIn(np.zeros_like(frames())), frames(), NOTHING, complete)  # type: ignore[arg-type]
    assert figures.prior_mse == 0
    assert figures.mse > 0
    np.testing.assert_array_equal(filled.by_prior, frames())


def test_the_middle_is_hidden_and_the_rest_stays_as_it_is() -> None:
    coder = StandIn(np.zeros_like(frames()))
    _, filled = inpaint(coder, frames(), NOTHING)  # type: ignore[arg-type]
    inside = np.zeros((16, 16), bool)
    inside[4:12, 4:12] = True
    for picture, hole in ((filled.masked, GREY), (filled.inpainted, 0)):
        assert (picture[:, inside] == hole).all()
        np.testing.assert_array_equal(picture[:, ~inside], frames()[:, ~inside])


def test_errors_are_taken_within_the_hole_alone() -> None:
    level = np.full((2, 16, 16, 3), 51, np.uint8)
    decoded = np.full((2, 16, 16, 3), 102, np.uint8)
    original = level.copy()
    original[:, 4:12, 4:12] = 153
    figures, filled = inpaint(StandIn(decoded), original, NOTHING[:2])  # type: ignore[arg-type]
    assert figures.mse == pytest.approx(0.2**2)
    assert figures.seen_mse == pytest.approx(0.2**2)
    assert figures.mean_fill_mse == pytest.approx(0.4**2)
    assert (filled.mean_fill == 51).all()
