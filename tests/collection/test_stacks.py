"""Three grey frames one after another, taken for RGB, are told of; pictures are not."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.builders import Sayings
from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.collection.stacks import is_stack
from worldmodel_v.envs.stamp import StampEnv


class Stacked(StampEnv):
    """The toy world, whose channels are its last three frames in grey."""

    def reset(self, **how: Any) -> Any:
        frame, info = super().reset(**how)
        self._frames = [frame[..., 0]] * 3
        return np.stack(self._frames, axis=-1), info

    def step(self, action: Any) -> Any:
        frame, *rest = super().step(action)
        self._frames = [*self._frames[1:], frame[..., 0]]
        return np.stack(self._frames, axis=-1), *rest


gymnasium.register("tests/Stacked-v0", entry_point=Stacked)


def test_a_stack_of_ones_own_is_told_of(tmp_path: Path) -> None:
    sayings = Sayings()
    collect(stamp_config(tmp_path / "out", env="tests/Stacked-v0", episodes=4), sayings)
    (facts,) = sayings.facts("frames_stacked")
    assert facts["frames"] == "observation"


def test_a_grey_world_is_not(tmp_path: Path) -> None:
    sayings = Sayings()
    collect(stamp_config(tmp_path / "out", episodes=1), sayings)
    assert not sayings.facts("frames_stacked")


RNG = np.random.default_rng(0)
GREY_THW = RNG.integers(256, size=(10, 8, 8), dtype=np.uint8)
COLOURED = RNG.integers(256, size=(1, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.stack([GREY_THW[:-2], GREY_THW[1:-1], GREY_THW[2:]], axis=-1), True),
        (np.stack([GREY_THW[2:], GREY_THW[1:-1], GREY_THW[:-2]], axis=-1), True),
        (np.stack([GREY_THW] * 3, axis=-1), False),
        (np.repeat(COLOURED, 6, axis=0), False),
        (RNG.integers(256, size=(6, 8, 8, 3), dtype=np.uint8), False),
        (COLOURED, False),
    ],
    ids=["oldest first", "newest first", "grey", "still", "noise", "one frame"],
)
def test_which_frames_are_a_stack(pixels: np.ndarray, expected: bool) -> None:
    assert is_stack(pixels) is expected
