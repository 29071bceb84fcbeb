"""Collects the rows of an episode, from any loop that steps the environment.

Legend: T actions of the episode, H, W frame.
"""

import copy
from typing import Any

import numpy as np

from worldmodel_v.envs import FramePreprocessor, ImageEnv
from worldmodel_v.envs.actions import require_inside
from worldmodel_v.envs.parts import extra_rows
from worldmodel_v.schema import Column, Schema

FRAMES_AT_FIRST = 1001
"""Room for an episode of CarRacing; it grows for longer ones."""


class EpisodeRows:
    """An episode in progress: call `see` for each frame, and after each but the last `add` for the action and its outcome."""

    def __init__(self, env: ImageEnv, preprocess: FramePreprocessor, limit: int = FRAMES_AT_FIRST) -> None:
        """`limit` is how many frames there may be, if that is known."""
        self._env = env
        self._frames = _Frames(preprocess, limit)
        self._states: list[tuple[float, ...]] = []
        self._extras: list[list[Any]] = []
        self._steps: list[tuple[Any, float, bool, bool]] = []

    @property
    def num_steps(self) -> int:
        """Actions so far."""
        return len(self._steps)

    def see(self, raw: np.ndarray) -> None:
        """Take the environment's next frame, and what is recorded beside it."""
        self._frames.add(raw)
        self._states.append(self._env.state())
        if self._env.record:  # copied, since the environment may use its arrays again
            self._extras.append(copy.deepcopy(self._env.extras()))

    def add(self, action: np.ndarray | int, reward: float, terminated: bool, truncated: bool) -> None:
        """Take the action on the frame just seen, as it is recorded, and its outcome."""
        self._steps.append((action, reward, terminated, truncated))

    def cut(self) -> None:
        """Say that the episode was cut after the last action."""
        action, reward, terminated, _ = self._steps[-1]
        self._steps[-1] = action, reward, terminated, True

    def extras(self) -> list[list[Any]]:
        """The values so far, for each path in the environment's `record`."""
        return [list(values) for values in zip(*self._extras, strict=True)]

    def columns(self, schema: Schema) -> dict[str, np.ndarray]:
        """The columns of the whole episode, (T + 1, …) each; raises ValueError where they do not fit the schema."""
        actions, rewards, terminated, truncated = zip(*self._steps, strict=True)
        state = {"state": _float32(self._states)} if schema.state_names else {}
        extras = zip(schema.by_role("extra"), self.extras(), strict=True)
        return {
            "pixels": self._frames.pixels,
            "action": self._actions(schema.action, actions),
            "reward": _float32((*rewards, np.nan)),
            "terminated": np.array((*terminated, False), np.bool_),
            "truncated": np.array((*truncated, False), np.bool_),
            **state,
            **{column.name: extra_rows(column, values) for column, values in extras},
        }

    def _actions(self, column: Column, actions: tuple[Any, ...]) -> np.ndarray:
        rows = np.full((len(actions) + 1, *column.row_shape), column.fill_value, column.dtype)
        rows[:-1] = actions
        require_inside(self._env.action_space, self._env.actions, rows[:-1])
        return rows


def _float32(values: Any) -> np.ndarray:
    """Numbers as the dataset holds them; those beyond its range become infinite, which the record refuses."""
    with np.errstate(all="ignore"):
        return np.array(values, dtype=np.float32)


class _Frames:
    """Frames of an episode of unknown length, each resized directly into its place: a later copy would double the cost."""

    def __init__(self, preprocess: FramePreprocessor, limit: int) -> None:
        self._preprocess = preprocess
        self._num_frames = 0
        self._buffer = np.empty((min(limit, FRAMES_AT_FIRST), *preprocess.frame_shape), np.uint8)

    def add(self, raw: np.ndarray) -> None:
        if self._num_frames == len(self._buffer):
            self._buffer = np.concatenate([self._buffer, np.empty_like(self._buffer)])
        self._preprocess(raw, self._buffer[self._num_frames])
        self._num_frames += 1

    @property
    def pixels(self) -> np.ndarray:
        """uint8 (n, H, W, 3): the frames so far."""
        return self._buffer[: self._num_frames]
