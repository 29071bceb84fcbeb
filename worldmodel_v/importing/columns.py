"""A recorded episode as the columns of a dataset: frames as uint8 RGB of one size, actions and the rest in their dtypes.

Every check names the part, what was expected and what was found. Values are rounded to float32 where a column has it, as when
they are collected; whole numbers are never changed.

Legend: T actions, T + 1 rows; H, W raw frame; C channels, 1 or 3.
"""

from typing import Any

import numpy as np

from worldmodel_v.envs.frames import frame_preprocessor
from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.importing.frames import LazyFrames
from worldmodel_v.importing.recording import Recorded, leave_out
from worldmodel_v.importing.spaces import bounds_of
from worldmodel_v.preprocessing import FULL, Preprocessing
from worldmodel_v.records import without_loss
from worldmodel_v.schema import DTYPES, ActionSpace, Column, Schema
from worldmodel_v.surface import option


def require_frames(frames: np.ndarray | LazyFrames) -> None:
    """Raise DatasetNotUsable unless these are frames, uint8 (T + 1, H, W) or (T + 1, H, W, C)."""
    if frames.dtype != np.uint8:
        raise DatasetNotUsable(expected="frames of uint8, 0 to 255", got=f"{frames.dtype} {frames.shape}")
    if not (frames.ndim == 3 or (frames.ndim == 4 and frames.shape[3] in (1, 3))):
        expected = "frames (rows, H, W), (rows, H, W, 1) or (rows, H, W, 3)"
        raise DatasetNotUsable(expected=expected, got=frames.shape)


def is_storable(rows: np.ndarray | Any) -> bool:
    """Whether a column can hold such rows, of an array, of what a file says of one, or of a dataset in HDF5."""
    return rows.dtype.name in DTYPES and 0 not in rows.shape[1:]


def flags(name: str, rows: np.ndarray, where: Any = None) -> np.ndarray:
    """bool of the same shape; raises DatasetNotUsable if a value is neither 0 nor 1 (NaN, a text)."""
    if not (known := np.isin(rows, (0, 1)) if rows.dtype.kind in "fiub" else np.zeros(rows.shape, np.bool_)).all():
        raise DatasetNotUsable(where=where, expected=f"{name}: 0 or 1, or false or true", got=rows[~known][0].item())
    return rows.astype(np.bool_)


def without_it() -> str:
    """The remedy for an episode that cannot be imported."""
    return f"leave the episode out with {option('skip')}, into another directory"


def columns_of(recorded: Recorded, schema: Schema, preprocessing: Preprocessing, raw_shape: tuple[int, ...]) -> dict[str, Any]:
    """The columns, (T + 1, …) each; raises DatasetNotUsable if the episode is not what the first one was."""
    require_frames(recorded.frames)
    if recorded.frames.shape[1:] != raw_shape:
        raise DatasetNotUsable(expected=f"frames of {raw_shape}, as in the first episode", got=recorded.frames.shape[1:])
    num_steps = len(recorded.action)
    if num_steps < 1:
        raise DatasetNotUsable(expected="at least one action", got=0, remedy=without_it())
    given = {**({} if recorded.state is None else {"state": recorded.state}), **recorded.extras}
    expected = [column.name for column in schema.by_role("state", "extra")]
    if (found := [*given]) != expected:
        raise DatasetNotUsable(expected=f"beside frames, actions and rewards {expected}, as in the first episode", got=found)
    _require_rows("frames", recorded.frames, num_steps + 1)
    ended = np.zeros(num_steps + 1, np.bool_)
    ended[-2] = True
    columns = {
        "pixels": _pixels(recorded.frames, preprocessing),
        "action": _actions(recorded.action, schema.actions),
        "reward": _rewards(recorded.reward, schema["reward"], num_steps),
        "terminated": ended & recorded.terminated,
        "truncated": ended & (recorded.truncated or not recorded.terminated),
    }
    for column in schema.by_role("state", "extra"):
        columns[column.name] = _rows(column, np.asarray(given[column.name]), num_steps + 1)
    return {column.name: columns[column.name] for column in schema.data_columns}


def _pixels(frames: np.ndarray | LazyFrames, preprocessing: Preprocessing) -> np.ndarray:
    """uint8 (T + 1, height, width, 3)."""
    is_same = preprocessing.crop == FULL and frames.shape[1:3] == preprocessing.frame_shape
    if not is_same:
        preprocess = frame_preprocessor(frames.shape[1:], preprocessing)
        pixels = np.empty((len(frames), *preprocessing.frame_shape, 3), np.uint8)
        for frame, out in zip(frames, pixels, strict=True):
            preprocess(np.ascontiguousarray(frame), out)
        return pixels
    colours = np.asarray(frames) if frames.ndim == 4 else np.asarray(frames)[..., None]
    return np.ascontiguousarray(colours if colours.shape[3] == 3 else np.broadcast_to(colours, (*colours.shape[:3], 3)))


def _actions(actions: np.ndarray, space: ActionSpace) -> np.ndarray:
    column = space.column()
    shape = actions.shape[1:]
    if shape not in (space.shape, column.row_shape) and {shape, space.shape} != {(), (1,)}:
        raise DatasetNotUsable(expected=f"actions of shape {space.shape}, as their space says", got=shape)
    given = exactly("action", actions.reshape(len(actions), *column.row_shape), column.dtype)
    if not (finite := np.isfinite(given)).all():
        step = int(np.argwhere(~finite)[0, 0])
        what = f"action {step} is {given[step].tolist()}"
        raise DatasetNotUsable(what, expected="finite numbers", remedy=without_it())
    if (bounds := bounds_of(space)) is not None:
        low, high = (bound.reshape(column.row_shape) for bound in bounds)
        inside = (given >= low) & (given <= high)
        if not inside.all():
            step = int(np.argwhere(~inside)[0, 0])
            raise DatasetNotUsable(
                f"action {step} is {given[step].tolist()}, outside of its space {space.record!r:.200}",
                remedy=f"state the space that they come from with {option('action_space')}",
            )
    return np.concatenate([given, np.full((1, *column.row_shape), column.fill_value, column.dtype)])


def _rewards(rewards: np.ndarray | None, column: Column, num_steps: int) -> np.ndarray:
    rows = np.full(num_steps + 1, np.nan, np.float32)
    if column.absent and rewards is not None and not np.isnan(rewards).all():
        raise DatasetNotUsable(expected="no rewards (NaN), as in the first episode", got=f"rewards such as {rewards.max()}")
    if rewards is not None and not column.absent:
        _require_rows("reward", rewards, num_steps)
        if rewards.size != num_steps:
            raise DatasetNotUsable(expected="a reward for each action", got=f"rewards of shape {rewards.shape}")
        rows[:-1] = exactly("reward", rewards.reshape(num_steps), "float32")
    return rows


def _rows(column: Column, values: np.ndarray, num_rows: int) -> np.ndarray:
    _require_rows(column.name, values, num_rows)
    if values.shape[1:] != column.row_shape:
        expected = f"{column.name} of shape {column.row_shape}, as in the first episode"
        raise DatasetNotUsable(expected=expected, got=values.shape[1:], remedy=leave_out(column.name))
    return exactly(column.name, values, column.dtype)


def _require_rows(name: str, values: np.ndarray | LazyFrames, num_rows: int) -> None:
    if len(values) != num_rows:
        raise DatasetNotUsable(expected=f"{num_rows} rows of {name}, beside the actions", got=len(values))


def exactly(name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    """Values in the dtype of their column: floats rounded, whole numbers never changed; raises DatasetNotUsable."""
    if values.dtype == dtype:
        return values
    if values.dtype.kind not in "fiub":
        raise DatasetNotUsable(expected=f"{name}: numbers", got=values.dtype)
    if (cast := without_loss(values, dtype)) is None:
        raise DatasetNotUsable(f"{name}: {values.dtype} values that {dtype} cannot hold")
    return cast
