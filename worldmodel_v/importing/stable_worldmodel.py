"""galilai-group/stable-worldmodel: its HDF5 files and Lance tables, and with them this package's own shards.

What stands in which row, by its recorder (`World.collect`, read and run at commit b72edab of 2026-07-21, unchanged in addbab4):

- `action` of row t was chosen on the frame of row t. The last row has NaN.
- `reward`, `terminated` and `truncated` of row t came with the frame of row t: one row after the action that brought them.
  The first row has NaN for a reward, and the last says how the episode ended.

Before that commit (and in its release 0.1.1), the first frame of every episode is missing, `step_idx` begins at 1, and the
last row has the first action in the place of NaN. All else is as above, so it is right once the last action is left out.

Files of other origin (this package's, or converted ones) have reward and end in the row of the action. NaN in the first or in
the last reward tells the two apart. Where nothing does, it has to be said.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.importing.columns import flags
from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.recording import Lack, Recorded, Recording, further
from worldmodel_v.importing.swm_rows import INDEX, Hdf5Rows, LanceRows, SwmRows
from worldmodel_v.surface import option

Outcome = Literal["action", "frame"]
ENDS = ("terminated", "truncated")
STEP, NUMBERS = "step_idx", ("ep_idx", "episode_idx")


@dataclass(frozen=True, kw_only=True)
class StableWorldmodelImportConfig(ImportConfig):
    """An .h5 file or a .lance table of stable-worldmodel; also a shard of this package.

    Other columns come along. Pictures of other cameras and texts are left out.
    """

    camera: str | None = None
    """The column of the frames; by default pixels, or the only column of pictures."""

    outcome: Literal["auto", "action", "frame"] = "auto"
    """Where reward and end are: in the row of their action, or of the frame that followed; auto: as NaN says."""

    name: ClassVar[str] = "stable-worldmodel"
    placement: ClassVar[str] = (
        "row t: the frame, the action chosen on it; reward, terminated and truncated of the action before (World.collect) or "
        "of the same action (other origins)"
    )

    def open(self) -> Recording:
        return StableWorldmodelRecording(self)


class StableWorldmodelRecording(Recording):
    """See the module's head."""

    def __init__(self, config: StableWorldmodelImportConfig) -> None:
        """Raises DatasetNotUsable if it is no such file or table, or lacks frames or actions, ConfigError if the user has to
        say something."""
        self._rows = rows = _rows(Path(config.from_).absolute())
        self.root, self.files, self.num_episodes = rows.path, rows.files, len(rows.lengths)
        self._camera = _camera(rows, config.camera)
        if "action" not in rows.columns:
            raise DatasetNotUsable("has no action", where=rows.path, expected="action", got=", ".join(rows.columns))
        self.state_names = rows.state_names
        self._beside = tuple(name for name in ("reward", *ENDS) if name in rows.columns)
        taken = {*INDEX, *self._beside, "action", *(["state"] if self.state_names else [])}
        named = (*rows.columns, *rows.left_out, *(name for name in rows.pictures if name != self._camera))
        self._further = further((name for name in named if name not in taken), config.without, rows.path)
        self._extras = tuple(name for name in rows.columns if name in self._further)
        first = rows.rows(tuple(name for name in rows.columns if name not in config.without), 0)
        self._outcome: Outcome = _outcome_of(first, rows.path) if config.outcome == "auto" else config.outcome
        self.lacks, self.notes = self._lacks(first), self._notes(first)

    def episode(self, number: int) -> Recorded:
        state = ("state",) if self.state_names else ()
        index = tuple(name for name in (STEP, *NUMBERS) if name in self._rows.columns)
        rows = self._rows.rows(("action", *index, *self._beside, *state, *self._extras), number)
        num_rows = len(rows["action"])
        if num_rows < 2:
            raise DatasetNotUsable(expected="at least two rows", got=num_rows)
        _require_following(rows)
        if _is_nan(rows["action"][0]):
            raise DatasetNotUsable("its first action is NaN", expected="in each row the action chosen on its frame")
        brought = slice(1, None) if self._outcome == "frame" else slice(None, -1)
        ends = {name: _end(name, rows[name][brought]) for name in ENDS if name in rows}
        return Recorded(
            frames=self._rows.frames(self._camera, number),
            action=rows["action"][:-1],
            reward=rows["reward"][brought] if "reward" in rows else None,
            terminated=ends.get("terminated", False),
            truncated=ends.get("truncated", False),
            state=rows["state"] if state else None,
            extras={name: rows[name] for name in self._extras},
            seed=self._rows.seeds[number] if self._rows.seeds else None,
            policy=self._rows.policies[number] if self._rows.policies else None,
        )

    def _lacks(self, first: dict[str, np.ndarray]) -> tuple[Lack, ...]:
        acts_last = self._outcome == "action" and any(self._acts_last(number) for number in range(self.num_episodes))
        lacks: list[Lack] = ["final observation"] if acts_last else []
        lacks += ["reward"] if "reward" not in first else []
        lacks += ["termination"] if "terminated" not in first else []
        lacks += [] if self._rows.seeds else ["seed"]
        return tuple(lacks)

    def _acts_last(self, number: int) -> bool:
        """Whether the last row of an episode holds an action: it is not NaN, nor its reward, and the row before is no end."""
        rows = self._rows.rows(("action", *self._beside), number)
        ended = any(name in rows and rows[name][-2:-1].any() for name in ENDS)
        return not ended and not _is_nan(rows["action"][-1]) and not _is_nan(rows.get("reward", np.zeros(1))[-1])

    def _notes(self, first: dict[str, np.ndarray]) -> tuple[str, ...]:
        left_out = [name for name in self._further if name not in self._extras]
        notes = [f"{name}: left out, it is a picture or has no number for each row" for name in left_out]
        if self._outcome == "frame" and self._beside:
            notes.append(f"{', '.join(self._beside)}: taken from the row after the action, where World.collect writes them")
        if _begins_late(first):
            notes.append("step_idx begins at 1: the first frame of each episode was not recorded")
        return tuple(notes)


def _rows(path: Path) -> SwmRows:
    """What is at `path`: a file, a table, or a folder with one of these."""
    if path.is_file():
        return Hdf5Rows(path)
    if path.suffix == ".lance" and path.is_dir():
        return LanceRows(path)
    inside = sorted(item for item in path.iterdir() if not item.name.startswith(".")) if path.is_dir() else []
    tables = [item for item in inside if item.suffix == ".lance" and not item.stem.endswith(("_episodes", "_videos"))]
    found = [*(item for item in inside if item.suffix in (".h5", ".hdf5")), *tables]
    if any(item.stem.endswith("_videos") for item in inside):
        raise DatasetNotUsable(
            "holds its frames as videos in a table (lance_video)",
            where=path,
            remedy="convert it with stable-worldmodel to hdf5",
        )
    if len(found) != 1:
        got = ", ".join(item.name for item in found[:5]) or "none"
        raise DatasetNotUsable(where=path, expected="an .h5 file or a .lance table, or a folder with one", got=got)
    return _rows(found[0])


def _camera(rows: SwmRows, asked: str | None) -> str:
    pictures = ", ".join(rows.pictures) or "none"
    if asked is not None and asked not in rows.pictures:
        raise ConfigError("is no column of pictures", where=rows.path, field="camera", got=asked, expected=pictures)
    if asked is not None or "pixels" in rows.pictures:
        return asked or "pixels"
    if len(rows.pictures) != 1:
        raise DatasetNotUsable(
            f"has {len(rows.pictures)} columns of pictures ({pictures})",
            where=rows.path,
            expected="pixels, or one column of uint8 (H, W, 3)",
            remedy=f"say which with {option('camera')}" if rows.pictures else None,
        )
    return rows.pictures[0]


def _outcome_of(first: dict[str, np.ndarray], path: Path) -> Outcome:
    """Where reward and end of an episode are; raises ConfigError if its rows do not say."""
    ends = [first[name].reshape(-1).astype(bool) for name in ENDS if name in first]
    if "reward" in first and not np.isnan(first["reward"]).all():
        at_first, at_last = _is_nan(first["reward"][0]), _is_nan(first["reward"][-1])
        if at_first != at_last:
            return "frame" if at_first else "action"
    elif not any(rows[-1] for rows in ends):
        return "action"
    if _begins_late(first):
        return "frame"
    raise ConfigError(
        "whether reward and end are in the row of their action, or of the frame that followed, its rows do not say",
        where=path,
        remedy=f"say {option('outcome', 'frame')} if World.collect recorded them, {option('outcome', 'action')} for others",
    )


def _end(name: str, rows: np.ndarray) -> bool:
    """Whether the last action ended the episode so; raises DatasetNotUsable if an earlier one did."""
    ended = flags(name, rows).reshape(len(rows))
    if ended[:-1].any():
        early = int(np.flatnonzero(ended)[0])
        raise DatasetNotUsable(f"{name} is set before the last action", expected=f"action {len(rows) - 1}", got=early)
    return bool(ended[-1])


def _require_following(rows: dict[str, np.ndarray]) -> None:
    """Raise DatasetNotUsable if a row is missing between two, stands in another place, or is of another episode."""
    for name in NUMBERS:
        if len(numbers := np.unique(rows.get(name, np.arange(0)))) > 1:
            what = "its rows are of several episodes: ep_len and ep_offset are those of other rows"
            raise DatasetNotUsable(what, expected=f"one {name}", got=numbers[:2].tolist())
    steps = rows[STEP].ravel() if STEP in rows else np.arange(0)
    if len(breaks := np.flatnonzero(np.diff(steps) != 1)):
        before, after = steps[breaks[0] : breaks[0] + 2].tolist()
        what = "its rows do not follow one another: one is missing, or in another place"
        raise DatasetNotUsable(what, expected=f"{STEP} {before + 1} after {before}", got=after)


def _begins_late(first: dict[str, np.ndarray]) -> bool:
    return STEP in first and first[STEP].ravel()[0] == 1


def _is_nan(row: np.ndarray) -> bool:
    return bool(np.isnan(row).any()) if np.asarray(row).dtype.kind == "f" else False
