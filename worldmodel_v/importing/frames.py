"""Frames that are decoded when they are needed, one after the other: an episode's raw frames need not fit into memory."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.importing.memory import most_bytes
from worldmodel_v.surface import option


class LazyFrames:
    """uint8 (N, H, W, 3): as much of an array as an import needs, that is its shape, and its frames in order."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, shape: tuple[int, ...], decode: Callable[[], Iterator[np.ndarray]], where: Any) -> None:
        """`decode()` gives N frames, uint8 (H, W, 3) each. `where` they are, for a message."""
        self.shape, self._decode, self._where = shape, decode, where

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames in order; raises DatasetNotUsable if there are more or fewer, or if one has another size."""
        count = 0
        for count, frame in enumerate(self._decode(), 1):
            if frame.shape != self.shape[1:]:
                self._refuse(f"frames of {self.shape[1:]}", f"{frame.shape} in frame {count - 1}")
            if count > len(self):
                self._refuse(f"{len(self)} frames", "more")
            yield frame
        if count < len(self):
            self._refuse(f"{len(self)} frames", str(count))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them, in memory; raises DatasetNotUsable if they take more than half of it."""
        if (num_bytes := math.prod(self.shape)) > most_bytes():
            what, remedy = f"its frames take {num_bytes:,} bytes, more than half of the memory", option("frame_size", 64)
            raise DatasetNotUsable(what, where=self._where, remedy=f"make them smaller, such as with {remedy}")
        frames = np.empty(self.shape, np.uint8)
        for place, frame in zip(frames, self, strict=True):
            place[:] = frame
        return frames if dtype is None else frames.astype(dtype, copy=False)

    def _refuse(self, expected: str, got: str) -> None:
        raise DatasetNotUsable(where=self._where, expected=expected, got=got)
