"""What flows through the pipeline: one episode, with the columns of its dataset's schema.

Legend: T actions in the episode, so T + 1 rows.

A record is frozen, and checked when it is made, so that a wrong shape or dtype raises where it arises and not three stages
later. An episode of T actions is T + 1 rows in every column. The last row holds only the final observation; its action and
reward are their columns' fill.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from worldmodel_v.errors import EpisodeFailed
from worldmodel_v.schema import Column, Schema

Array = np.ndarray

NO_SEED = -1
"""The seed of an episode whose seed nobody recorded: no environment takes it."""

MAX_SEED = (1 << 63) - 1
"""The largest that int64, in which seeds are recorded, can hold."""


def without_loss(values: Array, dtype: str) -> Array | None:
    """Values in another dtype: floats rounded, whole numbers never changed; None if it cannot hold them."""
    if values.dtype.kind != "f" or np.dtype(dtype).kind != "f" or np.ma.is_masked(values):
        return unchanged(values, dtype)
    with np.errstate(all="ignore"):
        cast = values.astype(dtype)
    return cast if np.array_equal(np.isinf(cast), np.isinf(values)) else None


def unchanged(values: Array, dtype: str) -> Array | None:
    """The same numbers in another dtype; None if it cannot hold them, or if they are no numbers or are masked."""
    if values.dtype.kind not in "fiub" or np.ma.is_masked(values):
        return None
    with np.errstate(all="ignore"):
        cast = values.astype(dtype)
        back = cast.astype(values.dtype)  # compared as given: NumPy would round a large whole number to compare it
    is_same = np.array_equal(back, values, equal_nan=values.dtype.kind == "f")
    return cast if is_same and np.array_equal(cast < 0, values < 0) else None  # a number that wraps around comes back the same


class Origin(NamedTuple):
    """Which episode of which original dataset an episode was selected from."""

    dataset: int
    """Its place in `origins` of the selection in `dataset.json`, where the original's settings are."""

    episode: int
    """The episode's number there."""


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Episode:
    """One episode: frames of a rollout, or latents, row for row those of the episode that they were encoded from.

    Each column is an attribute (`episode.action`, `episode.pixels`, `episode.mu`), and also `columns[name]`.
    """

    schema: Schema
    """The columns of its dataset."""

    episode_id: int
    """Which episode of its dataset this is, from 0."""

    seed: int
    """The seed that the environment was reset with; NO_SEED if nobody recorded it."""

    policy: str = ""
    """Which policy drove it; for a mixture, the one that was drawn. Empty if the file does not say."""

    columns: Mapping[str, Array]
    """Every column of the schema except its index columns, in the schema's order: (T + 1, …) each."""

    origin: Origin | None = None
    """Where it was selected from; None if its dataset was not selected from others."""

    def __getattr__(self, name: str) -> Array:
        columns = self.__dict__.get("columns", {})
        if name in columns:
            return columns[name]
        raise AttributeError(f"{type(self).__name__} has no column {name!r}; it has {', '.join(columns)}")

    @property
    def num_rows(self) -> int:
        """T + 1"""
        return len(self.reward)

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""
        return self.num_rows - 1

    @property
    def episode_return(self) -> float:
        """The undiscounted sum of rewards, in float64."""
        return float(self.reward[:-1].sum(dtype=np.float64))

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the factors of the ground truth; empty where there is none."""
        return self.schema.state_names

    def __post_init__(self) -> None:
        expected = [column.name for column in self.schema.data_columns]
        self._require([*self.columns] == expected, f"expected the columns {expected}, got {[*self.columns]}")
        for column in self.schema.data_columns:
            self._check_column(column, self.columns[column.name])
        self._require(self.num_rows >= 2, f"expected at least one action, got {self.num_rows} rows")
        self._check_endings()

    def _check_column(self, column: Column, rows: Array) -> None:
        name = column.name
        self._require(rows.ndim > 0 and len(rows) == self.num_rows, f"{name} has {len(rows)} rows, reward has {self.num_rows}")
        if rows.dtype != column.dtype or rows.shape[1:] != column.row_shape:
            expected = f"{column.dtype} {list(column.row_shape)}"
            self._require(False, f"{name}: expected rows of {expected}, got {rows.dtype} {list(rows.shape[1:])}")
        values = rows
        if column.role in ("action", "reward"):
            is_fill = column.is_fill(rows)
            self._require(bool(is_fill[-1]), f"the last row must hold no {name}, but {column.fill}")
            self._require(column.fill == "nan" or not is_fill[:-1].any(), f"{name} is {column.fill} before the last row")
            self._require(not column.absent or bool(is_fill.all()), f"{name} was never recorded, and a row has one")
            values = rows[:-1]
        if rows.dtype.kind == "f" and column.role != "extra" and not column.absent:
            self._require_finite(name, values, column.parts)

    def _check_endings(self) -> None:
        ended = self.terminated | self.truncated
        self._require(not ended[:-2].any() and not ended[-1], "the episode goes on after it ended")
        self._require(bool(ended[-2]), "the last action neither terminated nor truncated the episode")

    def _require_finite(self, name: str, values: Array, parts: tuple[str, ...]) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            row, *place = np.argwhere(~finite)[0].tolist()
            part = f" ({parts[place[0]]})" if parts else ""
            self._require(False, f"{name}{part} is {values[row, *place]} in row {row}")

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise EpisodeFailed(f"episode {self.episode_id} (seed {self.seed}): {what}")

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {column.dtype}{list(column.shape)}" for name, column in self.columns.items())
        return f"{type(self).__name__}({self.episode_id}, seed {self.seed}, {self.num_steps} steps: {shapes})"


def index_rows(episode_id: int, num_rows: int) -> dict[str, Array]:
    """The index columns of an episode, int64 (T + 1,): the episode's number in every row, and each row's place in it."""
    return {"ep_idx": np.full(num_rows, episode_id, np.int64), "step_idx": np.arange(num_rows, dtype=np.int64)}
