"""Hugging Face LeRobotDataset, version 3.0.

Row t holds the frame o_t, the action a_t chosen on it, and as `next.reward`, `next.done` and the like what a_t brought. The
observation after the last action is not recorded. So this action is left out, and the episode counts as cut one action earlier.
What the last action brought stays in the further columns, in the last row: they hold all of `next.…` as recorded.

An episode's frames lie in a video with those of others. They are taken by their times: frame i is the one at the episode's
start + i / fps, and exactly one lies within a quarter of 1 / fps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.importing.columns import flags
from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.decoding import picture, video_frames, video_shape
from worldmodel_v.importing.frames import LazyFrames
from worldmodel_v.importing.lerobot_files import Place, files, read_places, read_rows
from worldmodel_v.importing.lerobot_info import Info, licence, tasks
from worldmodel_v.importing.recording import Lack, Recorded, Recording, further
from worldmodel_v.importing.tables import arrow_column, require_pyarrow
from worldmodel_v.schema import DTYPES
from worldmodel_v.surface import option

STATE = "observation.state"
REWARD, DONE, TRUNCATED = "next.reward", "next.done", "next.truncated"
INDEX = ("episode_index", "frame_index", "index")
"""They are checked, and follow from the episodes; so does `timestamp`, which is frame_index / fps."""

NEAR = 0.25
"""How far from its time a frame may be, in frames."""

MOST_TASK_CHARACTERS = 10_000


@dataclass(frozen=True, kw_only=True)
class LeRobotImportConfig(ImportConfig):
    """A LeRobotDataset v3.0 of Hugging Face, with one of its cameras, from video or pictures.

    observation.state becomes state if its values have names; all other numbers are further columns.
    """

    camera: str | None = None
    """Which camera, as in observation.images.KEY; by default the only one."""

    name: ClassVar[str] = "lerobot"
    placement: ClassVar[str] = (
        "row t: the frame o_t, the action a_t chosen on it, and what it brought; no frame follows the last"
    )

    def open(self) -> Recording:
        return LeRobotRecording(self)


class LeRobotRecording(Recording):
    """See the module's head."""

    def __init__(self, config: LeRobotImportConfig) -> None:
        """Raises DatasetNotUsable if it is none of this version, or if files or columns are missing, ConfigError without such a
        camera."""
        self.root = Path(config.from_).absolute()
        self._info = info = Info.read(self.root)
        self._camera = self.frames = _camera(info, config.camera)
        self._is_video = info.features[self._camera]["dtype"] == "video"
        if "action" not in info.features:
            raise DatasetNotUsable("has no action", where=self.root, expected="action", got=", ".join(info.features))
        require_pyarrow(self.root)
        self._places = read_places(info, self._camera)
        self.num_episodes = len(self._places)
        self.files = files(self.root, self._places)
        self.env, self.licence = info.robot, licence(self.root)
        self.state_names = (
            info.names(STATE) if STATE in info.features and info.features[STATE]["dtype"].startswith("float") else ()
        )
        state = {STATE} if self.state_names else set()
        taken = {*INDEX, "timestamp", "action", self._camera, *state}
        others = further((key for key in info.features if key not in taken), config.without, self.root)
        self._extras = tuple(key for key in others if info.features[key]["dtype"] in DTYPES)
        self.lacks = self._lacks()
        texts = tasks(self.root)
        is_short = sum(map(len, texts.values())) <= MOST_TASK_CHARACTERS
        self.settings = {"fps": info.fps, "tasks": {str(index): text for index, text in texts.items()} if is_short else {}}
        self.notes = self._notes(others, is_short)

    def episode(self, number: int) -> Recorded:
        place, info = self._places[number], self._info
        state = [STATE] if self.state_names else []
        pictures = [] if self._is_video else [self._camera]
        numbers = (*INDEX, "timestamp", "action", *state, *self._extras)
        table = read_rows(place, (*numbers, *pictures))  # beside them, pyarrow reads what lies below such a name
        rows = {
            name: arrow_column(table[name], info.shape(name) if name in info.features else (), name=name, where=place.data)
            for name in numbers
        }
        self._require_index(place, rows)
        reward = rows.get(REWARD)
        return Recorded(
            frames=self._frames_of(place, table),
            action=rows["action"][:-1],
            reward=None if reward is None else reward[:-1],
            terminated=_end(rows, DONE, place),
            truncated=_end(rows, TRUNCATED, place),
            state=rows[STATE] if state else None,
            extras={name: rows[name] for name in self._extras},
        )

    def _frames_of(self, place: Place, table: Any) -> LazyFrames:
        if place.video is not None:
            video, shape = place.video, (place.length, *video_shape(place.video)[1:])
            return LazyFrames(shape, lambda: self._in_time(place, video), f"{video}: episode {place.number}")
        stored, where = table[self._camera], f"{place.data}: {self._camera} of episode {place.number}"
        return LazyFrames(
            (place.length, *picture(_content(stored[0], where), where).shape),
            lambda: (picture(_content(each, where), where) for each in stored),
            where,
        )

    def _in_time(self, place: Place, video: Path) -> Iterator[np.ndarray]:
        """The episode's frames: one near each of its times, and none between two of them."""
        first, fps, count = place.start, self._info.fps, 0
        for seconds, frame in video_frames(video, start=first):
            at = (np.nan if seconds is None else seconds - first) * fps
            if at < -NEAR:
                continue
            if count == place.length:
                return
            if not abs(at - count) <= NEAR:
                raise DatasetNotUsable(
                    where=f"{video}: episode {place.number}",
                    expected=f"frame {count} at {first + count / fps:.4f} s",
                    got=f"one at {seconds} s",
                )
            count += 1
            yield frame

    def _require_index(self, place: Place, rows: dict[str, np.ndarray]) -> None:
        """Raise DatasetNotUsable unless these are the rows of this episode, in order, at their times."""
        steps = np.arange(place.length)
        expected = {
            "episode_index": np.full(place.length, place.number),
            "frame_index": steps,
            "index": place.first_index + steps,
        }
        for name, values in expected.items():
            if not np.array_equal(rows[name], values):
                row = int(np.flatnonzero(rows[name] != values)[0])
                raise DatasetNotUsable(
                    f"{name} in row {row} of episode {place.number}",
                    where=place.data,
                    expected=str(values[row]),
                    got=int(rows[name][row]),
                )
        late = ~(np.abs(rows["timestamp"].astype(np.float64) * self._info.fps - steps) <= NEAR)
        if late.any():
            row = int(np.flatnonzero(late)[0])
            raise DatasetNotUsable(
                f"timestamp in row {row} of episode {place.number}",
                where=place.data,
                expected=f"{row / self._info.fps:.4f}, its frame_index / fps",
                got=f"{rows['timestamp'][row]:.4f}",
            )

    def _lacks(self) -> tuple[Lack, ...]:
        lacks: list[Lack] = ["final observation"]
        lacks += [] if REWARD in self._info.features else ["reward"]
        lacks += [] if DONE in self._info.features else ["termination"]
        return (*lacks, "seed")

    def _notes(self, others: tuple[str, ...], is_short: bool) -> tuple[str, ...]:
        features = self._info.features
        notes = [f"{key}: left out, it is {features[key]['dtype']}" for key in others if key not in self._extras]
        return (*notes, *([] if is_short else ["the tasks' texts: left out, they are long; task_index is there"]))


def _camera(info: Info, asked: str | None) -> str:
    """The key of a camera, which the user may name without `observation.images.`."""
    cameras = {key: each for key, each in info.features.items() if each["dtype"] in ("video", "image") and not _is_depth(each)}
    said = ", ".join(cameras) or "none"
    if asked is not None:
        found = [
            key for key in cameras if asked in (key, key.removeprefix("observation.images."), key.removeprefix("observation."))
        ]
        if len(found) != 1:
            raise ConfigError("has no such camera", where=info.root, field="camera", got=asked, expected=said)
        return found[0]
    if len(cameras) != 1:
        remedy = f"say which with {option('camera')}" if cameras else None
        raise DatasetNotUsable(where=info.root, expected="one camera", got=f"{len(cameras)} ({said})", remedy=remedy)
    return next(iter(cameras))


def _end(rows: dict[str, np.ndarray], name: str, place: Place) -> bool:
    """Whether the action before the last ended the episode so; raises DatasetNotUsable if an earlier one did."""
    if name not in rows:
        return False
    where = f"{place.data}: episode {place.number}"
    ended = flags(name, rows[name], where).reshape(-1)
    if ended[:-2].any():
        row = int(np.flatnonzero(ended)[0])
        raise DatasetNotUsable(f"{name} in row {row}, and the episode goes on", where=where, expected="one in the last row")
    return bool(ended[-2:-1].any())


def _is_depth(feature: dict[str, Any]) -> bool:
    """Whether its frames are distances."""
    said = [feature.get(name) or {} for name in ("info", "video_info")]
    return any(each.get(flag) for each in said if isinstance(each, dict) for flag in ("is_depth_map", "video.is_depth_map"))


def _content(stored: Any, where: str) -> bytes:
    """The bytes of a picture in a table: `bytes` of a struct with `path`, as the datasets library stores them."""
    value = stored.as_py()
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DatasetNotUsable("a picture is not in the table", where=where, expected="its bytes", got=f"{value!r:.100}")
    return content
