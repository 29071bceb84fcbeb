"""Numbers and frames as text for the page: base64 of gzip, and of lossless WebP.

Legend: T frames, H, W.

Frames are stacked to tall pictures, so that WebP finds in one frame what it has seen in the frames before. On CarRacing this
takes two thirds of the bytes of PNG, and decodes to the same bytes in every browser. Rejected: a video, which is not exact.
"""

import base64
import gzip
import io
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

Precision = Literal["float16", "float32"]

STRIP_FRAMES = 64
MAX_STRIP_SIDE = 16_000
"""WebP has at most 16,383 pixels along a side."""


def zipped(content: bytes) -> str:
    """base64 of gzip; the same bytes each time."""
    return as_base64(gzip.compress(content, 9, mtime=0))


def as_base64(content: bytes) -> str:
    """base64 as text."""
    return base64.b64encode(content).decode()


def numbers(values: np.ndarray) -> str:
    """Numbers of any shape as float32, little-endian."""
    return zipped(np.ascontiguousarray(values, "<f4").tobytes())


def strips(frames_THWC: np.ndarray) -> list[str]:
    """uint8 frames below each other, in lossless WebP pictures of `frames_in_a_strip` frames; the last may have fewer."""
    step = frames_in_a_strip(frames_THWC.shape[1])
    return [as_base64(_webp(frames_THWC[first : first + step])) for first in range(0, len(frames_THWC), step)]


def frames_in_a_strip(height: int) -> int:
    """How many frames of a height are in a picture."""
    return max(1, min(STRIP_FRAMES, MAX_STRIP_SIDE // height))


def _webp(frames_THWC: np.ndarray) -> bytes:
    width, buffer = frames_THWC.shape[2], io.BytesIO()
    Image.fromarray(frames_THWC.reshape(-1, width, 3)).save(buffer, "WEBP", lossless=True, quality=75, method=4)
    return buffer.getvalue()


@dataclass
class Weights:
    """Arrays one after the other in one buffer; what uses one names its place."""

    _arrays: list[np.ndarray] = field(default_factory=list)
    _size: int = 0

    def add(self, values: np.ndarray) -> dict[str, Any]:
        """The place of new values: `at`, counted in numbers, and `shape`."""
        place = {"at": self._size, "shape": list(values.shape)}
        self._arrays.append(np.ascontiguousarray(values, np.float32))
        self._size += math.prod(values.shape)
        return place

    def rounded(self, precision: Precision) -> torch.Tensor:
        """All numbers as the page has them: float32 (n,)."""
        return torch.from_numpy(self._numbers(precision).astype(np.float32))

    def smallest(self) -> Precision:
        """float16, unless a number is too large for it."""
        return "float16" if np.isfinite(self._numbers("float16")).all() else "float32"

    def packed(self, precision: Precision) -> dict[str, str]:
        """All of it, as the page reads it."""
        return {"precision": precision, "data": zipped(self._numbers(precision).tobytes())}

    def _numbers(self, precision: Precision) -> np.ndarray:
        with np.errstate(over="ignore"):  # what float16 cannot hold is infinite, which no comparison passes
            return np.concatenate([array.ravel() for array in self._arrays]).astype(np.dtype(precision).newbyteorder("<"))
