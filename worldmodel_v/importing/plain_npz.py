"""A plain folder of one `.npz` for each episode, whatever its arrays are called; what `wm-export npz` writes, too.

Row t of the frames is what action t was chosen on; reward and ends of row t are what action t brought. Of T actions there are
T + 1 frames. The arrays of actions, rewards and ends have T rows, or T + 1 of which the last is empty (NaN, or for whole
numbers one below the smallest of the space), as this package writes them. A reward or an end in the row of the final
observation is refused: it would stand with the frame that it led to. With as many actions as frames, and a last action
that is one, the final observation is not there: see `without_last_action`.

Further arrays with a row for each frame become columns; all others are left out, and said.

Legend: T actions, F frames.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.importing.columns import flags, is_storable, without_it
from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.npz_files import Header, read_arrays, read_headers
from worldmodel_v.importing.npz_folder import NpzFolder
from worldmodel_v.importing.order import require_in_order
from worldmodel_v.importing.recording import Lack, Recorded, Recording, named, without_last_action
from worldmodel_v.importing.spaces import parse_space
from worldmodel_v.schema import ActionSpace
from worldmodel_v.surface import option

NONE = "none"
STATE, STATE_NAMES = "state", "state_names"


@dataclass(frozen=True, kw_only=True)
class NpzImportConfig(ImportConfig):
    """Episodes as one .npz each, with frames and the action chosen on each; what wm-export npz writes, or anybody else.

    Arrays: frames (T + 1 rows), actions, rewards and ends (T rows, or T + 1 with an empty last one). If there is no frame after
    the last action, that action is left out. Further arrays of T + 1 rows become columns.
    """

    frames: str = "pixels"
    """The array of frames, uint8 (rows, H, W, 3), (rows, H, W, 1) or (rows, H, W)."""

    layout: Literal["HWC", "CHW"] = "HWC"
    """Axes of a frame that has channels."""

    action: str = "action"
    """The array of actions."""

    reward: str = "reward"
    """The array of rewards, or none."""

    terminated: str = "terminated"
    """The array that says in which row the world ended the episode, or none."""

    truncated: str = "truncated"
    """The array that says in which row a time limit ended it, or none."""

    name: ClassVar[str] = "npz"
    placement: ClassVar[str] = "row t: the frame o_t, the action a_t chosen on it, and its reward and end"

    def open(self) -> Recording:
        return _Folder(self)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.terminated == NONE != self.truncated:
            raise ConfigError(
                "without an array of terminations says nothing", field="truncated", got=self.truncated, remedy="say none too"
            )


class _Folder(NpzFolder):
    def __init__(self, config: NpzImportConfig) -> None:
        self._config = config
        self._named = {
            role: getattr(config, role)
            for role in ("frames", "action", "reward", "terminated", "truncated")
            if role in ("frames", "action") or getattr(config, role) != NONE
        }
        try:
            super().__init__(Path(config.from_), required=self._named.values())
        except DatasetNotUsable as error:
            raise _with_remedy(error, self._named) from None
        self.state_names = _state_names(self.files[0])
        headers = read_headers(self.files[0])
        num_frames = headers[config.frames].shape[:1]
        found = [name for name in headers if self._is_extra(name, headers[name], num_frames)]
        self._extras = [name for name in found if name not in config.without]
        used = {*self._named.values(), *self._extras, *((STATE, STATE_NAMES) if self.state_names else ())}
        self.notes = self.left_out(used, config.without)
        self._has_final = True
        with named(self.where(0)):
            self._has_final = not self._acts_last(self._read(0))
        missing: list[Lack] = [] if self._has_final else ["final observation"]
        missing += ["reward"] if config.reward == NONE else []
        missing += ["termination"] if config.terminated == NONE else ["truncation"] if config.truncated == NONE else []
        self.lacks = (*missing, "seed")

    def episode(self, number: int) -> Recorded:
        """As `Recording` says."""
        if self.state_names and (found := _state_names(self.files[number])) != self.state_names:
            raise DatasetNotUsable(expected=f"the state's names {self.state_names}, as in the first episode", got=found)
        recorded = self._read(number)
        acts_last = self._acts_last(recorded)
        if acts_last == self._has_final:
            expected = "as many actions as frames" if not self._has_final else "a frame after the last action"
            got = f"{len(recorded.action)} actions and {len(recorded.frames)} frames"
            raise DatasetNotUsable(expected=f"{expected}, as in the first episode", got=got)
        return without_last_action(recorded) if acts_last else recorded

    def _is_extra(self, name: str, header: Header, num_frames: tuple[int, ...]) -> bool:
        is_free = name not in {*self._named.values(), STATE_NAMES} and not (name == STATE and self.state_names)
        return is_free and is_storable(header) and header.shape[:1] == num_frames

    def _acts_last(self, recorded: Recorded) -> bool:
        return len(recorded.action) == len(recorded.frames)

    def _read(self, number: int) -> Recorded:
        """An episode with its empty last row removed, if there is one: T + 1 frames and T or T + 1 actions."""
        state = [STATE] if self.state_names else []
        arrays = read_arrays(self.files[number], [*self._named.values(), *self._extras, *state])
        named = {role: arrays[name] for role, name in self._named.items()}
        frames, action, reward = named["frames"], named["action"], named.get("reward")
        if self._config.layout == "CHW" and frames.ndim == 4:
            frames = np.moveaxis(frames, 1, 3)
        if self._config.layout == "HWC" and _is_chw(frames):
            expected = "frames (rows, H, W), (rows, H, W, 1) or (rows, H, W, 3)"
            raise DatasetNotUsable(
                expected=expected, got=frames.shape, remedy=f"if the channels come first, say {option('layout', 'CHW')}"
            )
        if action.ndim == 0 or frames.ndim == 0:
            raise DatasetNotUsable(expected="a row for each frame and action", got="a single number")
        if 0 < len(action) == len(frames) and _is_empty(action[-1], self._config.action_space):
            action = action[:-1]
        extras = {name: arrays[name] for name in self._extras}
        require_in_order(extras)
        num_steps = len(action)
        if num_steps < 1:
            raise DatasetNotUsable(expected="at least one action", got=0, remedy=without_it())
        if num_steps not in (len(frames) - 1, len(frames)):
            expected = f"as many actions as frames ({len(frames)}) or one less"
            raise DatasetNotUsable(expected=expected, got=f"{len(action)} actions")
        return Recorded(
            frames=frames,
            action=action,
            reward=None if reward is None else _of_steps("reward", reward, num_steps, len(frames)),
            terminated=_ends("terminated", named.get("terminated"), num_steps, len(frames)),
            truncated=_ends("truncated", named.get("truncated"), num_steps, len(frames)),
            state=arrays[STATE] if self.state_names else None,
            extras=extras,
        )


def _is_chw(frames: np.ndarray) -> bool:
    return frames.ndim == 4 and frames.shape[1] in (1, 3) and frames.shape[3] not in (1, 3)


def _with_remedy(error: DatasetNotUsable, named: dict[str, str]) -> DatasetNotUsable:
    role = next((role for role, name in named.items() if error.expected == f"an array {name!r}"), None)
    or_none = "" if role in ("frames", "action") else ", or say none"
    remedy = error.remedy if role is None else f"name it with {option(role)}{or_none}"
    return DatasetNotUsable(error.what, **error.parts | {"remedy": remedy})


def _state_names(path: Path) -> tuple[str, ...]:
    """As `wm-export npz` writes them; none if the file has no state with names."""
    headers = read_headers(path)
    names, state = headers.get(STATE_NAMES), headers.get(STATE)
    if names is None or state is None or names.dtype.kind != "U" or names.shape != state.shape[1:]:
        return ()
    return tuple(read_arrays(path, [STATE_NAMES])[STATE_NAMES].tolist())


def _is_empty(action: np.ndarray, stated: str | None) -> bool:
    """Whether the last row holds no action: NaN, or the whole number that says so in the space that the user states."""
    if action.dtype.kind == "f":
        return bool(np.isnan(action).all())
    if stated is None:
        return False
    space = ActionSpace(parse_space(stated, action.shape))
    return space.kind != "continuous" and bool((action == space.fill).all())


def _of_steps(name: str, rows: np.ndarray, num_steps: int, num_frames: int) -> np.ndarray:
    """(T, …): without the empty row of the final observation, if there is one."""
    if rows.ndim == 0 or len(rows) not in (num_steps, num_frames):
        raise DatasetNotUsable(expected=f"{num_steps} rows of {name}, beside the actions", got=rows.shape)
    if len(rows) > num_steps and (rows[-1] == rows[-1]).any() and np.any(rows[-1]):
        raise DatasetNotUsable(
            f"{name} is {rows[-1].tolist()} in the row of the final observation, where no action is",
            expected="rewards and ends in the rows of the actions that brought them",
            remedy="move them one row up",
        )
    return rows[:num_steps]


def _ends(name: str, rows: np.ndarray | None, num_steps: int, num_frames: int) -> bool:
    """Whether the last action ended the episode; raises DatasetNotUsable if the episode goes on after an end."""
    if rows is None:
        return False
    ends: np.ndarray = np.any(flags(name, _of_steps(name, rows, num_steps, num_frames)).reshape(num_steps, -1), axis=1)
    if ends[:-1].any():
        raise DatasetNotUsable(f"{name} in row {int(ends.argmax())}, and the episode goes on", expected="one episode a file")
    return bool(ends[-1])
