"""Videos of episodes: every frame is there, in order."""

import io
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from worldmodel_v.errors import PackageMissing
from worldmodel_v.evaluation.video import to_gif, to_mp4

LEVELS = np.array([[0, 40, 80], [120, 160, 200], [255, 10, 90], [30, 220, 140], [70, 70, 70]], np.uint8)


def frames(height: int, width: int) -> np.ndarray:
    """Five flat frames, the left half black."""
    made = np.zeros((len(LEVELS), height, width, 3), np.uint8)
    made[:, :, width // 2 :] = LEVELS[:, None, None]
    return made


def test_a_gif_holds_every_frame_magnified() -> None:
    with Image.open(io.BytesIO(to_gif(frames(64, 48)))) as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"], gif.info["loop"]) == (5, (4 * 48, 4 * 64), 40, 0)
        shown = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)])
    np.testing.assert_array_equal(shown[:, ::4, ::4], frames(64, 48))
    np.testing.assert_array_equal(shown[:, ::4, ::4], shown[:, 3::4, 3::4])


@pytest.mark.parametrize(("size", "times"), [((64, 48), 4), ((320, 16), 1)])
def test_an_mp4_holds_every_frame_in_order(size: tuple[int, int], times: int) -> None:
    av = pytest.importorskip("av")
    with av.open(io.BytesIO(to_mp4(frames(*size)))) as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert shown.shape == (5, times * size[0], times * size[1], 3)
    right = shown[:, :, -times * size[1] // 4 :].mean(axis=(1, 2))
    assert np.abs(right - LEVELS).max() < 12  # H.264 loses some colour
    assert (np.abs(right[:, None] - LEVELS).sum(axis=2).argmin(axis=1) == np.arange(5)).all()


def test_without_pyav_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(PackageMissing, match=r"an MP4 needs PyAV, which is not installed; pip install av, or name a \.gif"):
        to_mp4(frames(64, 64))
