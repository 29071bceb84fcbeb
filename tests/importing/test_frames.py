"""Frames that are decoded when they are needed: counted, of one size, and no more than the memory holds."""

from collections.abc import Iterator

import numpy as np
import pytest

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.importing import frames as module
from worldmodel_v.importing.frames import LazyFrames


def lazy(num_frames: int, *heights: int) -> LazyFrames:
    def decode() -> Iterator[np.ndarray]:
        return (np.full((height, 8, 3), number, np.uint8) for number, height in enumerate(heights))

    return LazyFrames((num_frames, 8, 8, 3), decode, "a video")


def test_they_are_an_array_of_all() -> None:
    found = np.asarray(lazy(3, 8, 8, 8))
    assert found.shape == (3, 8, 8, 3)
    assert found[:, 0, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("heights", "said"),
    [
        ((8, 8), "a video: expected 3 frames, got 2"),
        ((8, 8, 8, 8), "a video: expected 3 frames, got more"),
        ((8, 9, 8), r"a video: expected frames of \(8, 8, 3\), got \(9, 8, 3\) in frame 1"),
    ],
)
def test_another_count_or_size_is_refused(heights: tuple[int, ...], said: str) -> None:
    with pytest.raises(DatasetNotUsable, match=said):
        np.asarray(lazy(3, *heights))


def test_more_than_half_of_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "most_bytes", lambda: 500)
    with pytest.raises(DatasetNotUsable, match="its frames take 576 bytes, more than half of the memory; make them smaller"):
        np.asarray(lazy(3, 8, 8, 8))
    assert len([*lazy(3, 8, 8, 8)]) == 3
