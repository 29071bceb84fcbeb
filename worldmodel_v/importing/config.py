"""The base class of all formats: the options of an import, and the method that opens a recording."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Interval

from worldmodel_v.importing.recording import Recording
from worldmodel_v.importing.spaces import parse_space
from worldmodel_v.preprocessing import FULL, Fit, Preprocessing, Resize, parse_crop, parse_frame_size, require_trainable
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import LocalPath
from worldmodel_v.storage.directory import require_outside
from worldmodel_v.storage.layout import MAX_EPISODES_PER_SHARD


@dataclass(frozen=True, kw_only=True)
class ImportConfig(ABC):
    """Base class of the formats. A format is a subclass in a module of its own, and a line in `registry`."""

    from_: LocalPath = LocalPath()
    """The recording, which is only read: a directory, or a file."""

    out: LocalPath = LocalPath()
    """The dataset's directory: new, empty, or a dataset imported with these settings, to continue."""

    episodes: Annotated[int | None, Ge(1)] = None
    """Import only so many, the first ones that are not skipped; a larger number extends the dataset. By default all."""

    skip: tuple[int, ...] = ()
    """Episodes to leave out, such as those without an action: their numbers, from 0 (files: in the order of their names)."""

    episodes_per_shard: Annotated[int, Interval(ge=1, le=MAX_EPISODES_PER_SHARD)] = 10
    """Episodes in one file; a run that is killed loses at most the file under way."""

    workers: Annotated[int, Ge(0)] = 0
    """Ray workers, one core each; 0 imports one episode after another, without Ray."""

    env: str | None = None
    """The environment's name, if you know it; by default what the recording says."""

    action_space: str | None = None
    """Where actions come from, if the recording does not say: discrete:N, box:LOW,HIGH, or a space as JSON."""

    without: tuple[str, ...] = ()
    """Further columns to leave out, by name, such as those whose rows differ in shape."""

    frame_size: int | str | None = None
    """Size of the frames: a multiple of 8 up to 1024, or HEIGHTxWIDTH; by default as they were recorded."""

    crop: str = FULL
    """What is kept before resizing: TOP:BOTTOM,LEFT:RIGHT, or full."""

    resize: Resize = "area"
    """area: the mean of what each pixel covers; bilinear: no antialiasing."""

    fit: Fit = "stretch"
    """stretch: fill the frame; letterbox: keep the aspect ratio, with black borders."""

    alignment: bool = True
    """Do not judge in the end whether the actions are in the right rows, as wm-inspect does (in Python: alignment=False)."""

    name: ClassVar[str]
    """Its name on the command line."""

    placement: ClassVar[str]
    """Which action, reward and end are in the same row as a frame in the format's files, in words."""

    @abstractmethod
    def open(self) -> Recording:
        """Look at the recording, without reading all of it; raises UsageError if it is none of this format, or damaged."""

    @property
    def options(self) -> dict[str, Any]:
        """The format's own options, as JSON values: what determines the episodes beside the files."""
        shared = {each.name for each in dataclasses.fields(ImportConfig)}
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name not in shared}

    def preprocessing(self, raw_shape: tuple[int, ...]) -> Preprocessing:
        """How raw frames (H, W, …) become recorded ones; raises ConfigError if no architecture trains on these."""
        top, bottom, left, right = parse_crop(self.crop, raw_shape)
        size = (bottom - top, right - left) if self.frame_size is None else parse_frame_size(self.frame_size)
        require_trainable(*size, field="frame_size", got="as recorded" if self.frame_size is None else self.frame_size)
        return Preprocessing(crop=self.crop, frame_height=size[0], frame_width=size[1], resize=self.resize, fit=self.fit)

    def __post_init__(self) -> None:
        require_settings(self)
        if self.action_space is not None:
            parse_space(self.action_space, ())
        if self.frame_size is not None:
            require_trainable(*parse_frame_size(self.frame_size), field="frame_size", got=self.frame_size)
        Preprocessing(crop=self.crop, frame_height=8, frame_width=8, resize=self.resize, fit=self.fit)
        require_outside(self.out, self.from_, "lies in the recording, which is only read")
