"""How a raw frame becomes a recorded one, as data: what is cropped, to which size it is resized, and how.

The record is kept in `dataset.json` and in the weights of each VAE; `envs.frames.FramePreprocessor` applies it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from worldmodel_v.errors import ConfigError
from worldmodel_v.settings import require_settings

FULL = "full"

Resize = Literal["area", "bilinear"]
"""area: the mean over the area that an output pixel covers. bilinear: between the centres of the four nearest pixels, without
antialiasing, as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` and OpenCV's INTER_LINEAR define it."""

Fit = Literal["stretch", "letterbox"]
"""stretch: the crop fills the frame. letterbox: it keeps its aspect ratio, in the middle, and the rest is black."""

SIDE_STEP = 8
MAX_SIDE = 1024
"""Height and width of the frames that an autoencoder can train on: multiples of the first, up to the second."""

_CROP = re.compile(r"(\d{1,9}):(\d{1,9}),(\d{1,9}):(\d{1,9})")
_FRAME_SIZE = re.compile(r"(\d{1,9})(?:x(\d{1,9}))?")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How raw frames are cropped and resized."""

    crop: str = FULL
    """"full" or "TOP:BOTTOM,LEFT:RIGHT" in rows and columns of the raw frame."""

    frame_height: int
    frame_width: int
    resize: Resize = "area"
    fit: Fit = "stretch"

    def __post_init__(self) -> None:
        require_settings(self)
        _bounds(self.crop)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The part of a dataset's settings that says how its frames were made."""
        return cls(**{field.name: settings[field.name] for field in fields(cls)})

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(height, width)"""
        return self.frame_height, self.frame_width

    def changes_frames_of_its_size(self) -> bool:
        """Whether a raw frame of the recorded frames' size would be cropped: then their size does not tell the two apart."""
        try:
            crop = parse_crop(self.crop, self.frame_shape)
        except ConfigError:
            return False  # no raw frame is that small
        return crop != (0, self.frame_height, 0, self.frame_width)

    def placement(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, height, width) of what a crop of this size becomes, in the frame.

        In a letterbox, its sides are rounded to whole pixels, halves up. If the number of black rows or columns is odd, the
        larger half lies below or to the right.
        """
        frame_height, frame_width = self.frame_shape
        if self.fit == "stretch":
            return 0, 0, frame_height, frame_width
        inner_height = min(frame_height, max(1, (2 * height * frame_width + width) // (2 * width)))
        inner_width = min(frame_width, max(1, (2 * width * frame_height + height) // (2 * height)))
        return (frame_height - inner_height) // 2, (frame_width - inner_width) // 2, inner_height, inner_width


def require_trainable(height: int, width: int, **whose: Any) -> None:
    """Raise ConfigError if no architecture trains on frames of this size; `whose` they are, as parts of it."""
    if all(SIDE_STEP <= side <= MAX_SIDE and side % SIDE_STEP == 0 for side in (height, width)):
        return
    nearest = [min(MAX_SIDE, max(1, -(-side // SIDE_STEP)) * SIDE_STEP) for side in (height, width)]
    sides = f"a height and width of {SIDE_STEP} to {MAX_SIDE}, multiples of {SIDE_STEP}, such as {frame_size_text(*nearest)}"
    raise ConfigError(f"no architecture trains on frames of {height}x{width}", expected=sides, **whose)


def parse_frame_size(size: int | str) -> tuple[int, int]:
    """(height, width) of a --frame-size: a number, or HEIGHTxWIDTH; raises ConfigError."""
    if isinstance(size, int):
        return size, size
    if not isinstance(size, str) or (match := _FRAME_SIZE.fullmatch(size)) is None:
        raise ConfigError(field="frame_size", expected="a number such as 64, or HEIGHTxWIDTH such as 96x128", got=size)
    height, width = match.groups(match[1])
    return int(height), int(width)


def frame_size_text(height: int, width: int) -> str:
    """A frame's size as --frame-size takes it: 64, or 96x128."""
    return f"{height}" if height == width else f"{height}x{width}"


def parse_crop(crop: str, raw_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a crop, checked against the frame it is to be cut from; raises ConfigError."""
    height, width = raw_shape[:2]
    if (bounds := _bounds(crop)) is None:
        return 0, height, 0, width
    top, bottom, left, right = bounds
    if not (top < bottom <= height and left < right <= width):
        raise ConfigError(
            f"does not lie in the environment's frame of {height} rows and {width} columns", field="crop", got=crop
        )
    return top, bottom, left, right


def _bounds(crop: str) -> tuple[int, ...] | None:
    """(top, bottom, left, right), or None for the whole frame; raises ConfigError if it is no crop."""
    if crop == FULL:
        return None
    if (match := _CROP.fullmatch(crop)) is None:
        raise ConfigError(field="crop", expected='"auto", "full" or TOP:BOTTOM,LEFT:RIGHT such as 0:84,0:96', got=crop)
    return tuple(map(int, match.groups()))
