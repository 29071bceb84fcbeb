"""Which columns of a table are the action and its outcome, and an episode's rows of them.

Legend: R rows of the table, T actions, N = T + 1 frames.
"""

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.importing.columns import flags
from worldmodel_v.importing.order import require_in_order
from worldmodel_v.importing.recording import further
from worldmodel_v.importing.tables import Table
from worldmodel_v.records import NO_SEED
from worldmodel_v.surface import option

EPISODE = "episode"
"""The column of a table of all episodes: which one a row is of, from 0 in the order of the videos' names."""

END_COLUMNS = ("terminated", "truncated")


@dataclass(frozen=True, kw_only=True)
class ActionColumns:
    """The columns by their part; None for what the table does not have."""

    action: tuple[str, ...]
    reward: str | None
    terminated: str | None
    truncated: str | None
    seed: str | None
    extras: tuple[str, ...]
    """All others of numbers, in the table's order."""

    left_out: tuple[str, ...]
    """All that are no numbers, or that the user leaves out."""

    @classmethod
    def of(
        cls,
        table: Table,
        where: Path,
        *,
        action: Sequence[str],
        index: Sequence[str],
        without: Collection[str],
        **named: tuple[str, bool],
    ) -> "ActionColumns":
        """`action` are the columns that the user names; `named` has the other parts' columns, and whether the user named it.
        Those of `index` belong to no part. Those of `without` are left out.

        Raises ConfigError if one that the user names is not there, or is in the action already, or if one of `without` is of
        another part; DatasetNotUsable if none is the action, or if one of a part is no numbers.
        """
        for field, names in {"action": action, **{part: [name] for part, (name, said) in named.items() if said}}.items():
            if missing := [name for name in names if name not in table]:
                raise ConfigError(
                    "the table has no such column", where=where, field=field, got=missing[0], expected=", ".join(table)
                )
        actions = tuple(action) or _actions(table, where)
        if not actions:
            raise DatasetNotUsable(
                "has no column of actions",
                where=where,
                expected="action, or action_0, action_1, …",
                got=", ".join(table),
                remedy=f"name them with {option('action')}",
            )
        again = [("action", name) for name in actions if actions.count(name) > 1]
        again += [(part, name) for part, (name, said) in named.items() if said and name in actions]
        for field, name in again:
            raise ConfigError("is in the action already", where=where, field=field, got=name)
        found = {part: name if name in table and name not in actions else None for part, (name, _) in named.items()}
        taken = {*actions, *found.values(), *index}
        others = [name for name in table if name not in taken]
        wanted = further(others, without, where)
        _require_numbers(table, [name for name in table if name in taken], found["seed"], where)
        left_out = tuple(name for name in others if name not in wanted or not _has_rows(table[name]))
        return cls(action=actions, **found, extras=tuple(name for name in others if name not in left_out), left_out=left_out)

    def require_numbers(self, table: Table, where: Path) -> None:
        """Raise DatasetNotUsable if a column that is imported holds anything else in this table."""
        _require_numbers(table, [name for name in table if name not in self.left_out], self.seed, where)

    def actions(self, table: Table) -> np.ndarray:
        """(R, …): the column's own shape, or a vector of several columns."""
        if len(self.action) == 1:
            return table[self.action[0]]
        return np.concatenate([table[name].reshape(len(table[name]), -1) for name in self.action], axis=1)

    def outcome(self, table: Table, num_steps: int, where: Path) -> tuple[bool, bool]:
        """(terminated, truncated) of an episode of T actions; False for a column that is not there.

        Raises DatasetNotUsable if it ends before its last action, or goes on after it ended.
        """
        ends = []
        for part in END_COLUMNS:
            name = getattr(self, part)
            rows = np.zeros(num_steps, bool) if name is None else flags(name, table[name][:num_steps], where).reshape(num_steps)
            early = np.flatnonzero(rows[: num_steps - 1])
            if len(early):
                raise DatasetNotUsable(
                    f"{name} is set before the episode's last action",
                    where=where,
                    expected=f"row {num_steps - 1}",
                    got=early[0],
                )
            ends.append(bool(rows[num_steps - 1]))
        return ends[0], ends[1]

    def acts_last(self, table: Table, where: Path) -> bool:
        """Whether the last of T + 1 rows holds an action, which no frame follows: it is not NaN, and the row before no end."""
        rows = np.asarray(self.actions(table))
        if len(rows) < 2 or (rows.dtype.kind == "f" and np.isnan(rows[-1]).all()):
            return False
        return not any(self.outcome(table, len(rows) - 1, where))

    def require_no_outcome_alone(self, table: Table, where: Path) -> None:
        """Raise DatasetNotUsable if the last row has a reward or an end, and no action (NaN): they stand a row too late."""
        last = np.asarray(self.actions(table)[-1])
        if last.dtype.kind != "f" or not np.isnan(last).all():
            return
        for name in (self.reward, self.terminated, self.truncated):
            if name is not None and np.nan_to_num(table[name][-1].astype(np.float64), nan=0.0).any():
                raise DatasetNotUsable(
                    f"{name} is {table[name][-1].item()} in the last row, where no action is",
                    where=where,
                    expected="rewards and ends in the rows of the actions that brought them",
                    remedy="move them one row up",
                )

    def require_in_order(self, table: Table, where: Path) -> None:
        """As `order.require_in_order`, of all further columns, those that are left out too."""
        require_in_order({name: table[name] for name in (*self.extras, *self.left_out)}, where)

    def seed_of(self, table: Table, where: Path) -> int | None:
        """The seed, if the table has one that is not -1; raises DatasetNotUsable unless it is one whole number of 63 bits."""
        if self.seed is None:
            return None
        seeds = np.unique(table[self.seed])
        if len(seeds) != 1 or not NO_SEED <= seeds[0] < 2**63 or seeds[0] != int(seeds[0]):
            expected = f"{self.seed}: one whole number in all rows, 0 to 2^63 - 1, or -1 if it is not known"
            raise DatasetNotUsable(where=where, expected=expected, got=seeds[:3].tolist())
        return int(seeds[0])

    def beside_frames(self, table: Table, num_frames: int) -> dict[str, np.ndarray]:
        """The further columns, (N, …): as they are if there is a row for each frame. Otherwise NaN stands beside the final
        frame, and whole numbers are float64 (whole numbers that float64 cannot hold raise DatasetNotUsable)."""
        return {name: _with_last_row(table[name], name, num_frames) for name in self.extras}


def _require_numbers(table: Table, names: Sequence[str], seed: str | None, where: Path) -> None:
    """Raise DatasetNotUsable unless these are rows of numbers; the seed may be a single one."""
    if wrong := [name for name in names if not _has_rows(np.atleast_1d(table[name]) if name == seed else table[name])]:
        what = "not every value is a number, or true or false" if table[wrong[0]].ndim else "is a single value"
        raise DatasetNotUsable(f"{wrong[0]}: {what}", where=where, expected="a number in every row")


def _has_rows(rows: np.ndarray) -> bool:
    """Whether these are numbers, and not one for all rows."""
    return rows.dtype.kind in "fiub" and rows.ndim > 0


def _actions(table: Table, where: Path) -> tuple[str, ...]:
    """`action`, or action_0, action_1, … by their numbers; raises DatasetNotUsable if one is missing, or there twice."""
    if "action" in table:
        return ("action",)
    numbers = {name: int(found[1]) for name in table if (found := re.fullmatch(r"action[^\w]?_?(\d+)[^\w]?", name))}
    names = tuple(sorted(numbers, key=numbers.__getitem__))
    for before, name in itertools.pairwise(names):
        if numbers[name] != numbers[before] + 1:
            expected = "columns of actions whose numbers follow one another"
            got, remedy = f"{name} after {before}", f"name them with {option('action')}"
            raise DatasetNotUsable(where=where, expected=expected, got=got, remedy=remedy)
    return names


def _with_last_row(rows: np.ndarray, name: str, num_frames: int) -> np.ndarray:
    if len(rows) == num_frames:
        return rows
    floats = rows if rows.dtype.kind == "f" else rows.astype(np.float64)
    with np.errstate(invalid="ignore"):
        is_exact = rows.dtype.kind == "f" or np.array_equal(floats.astype(rows.dtype), rows)
    if not is_exact:
        raise DatasetNotUsable(f"{name}: whole numbers that float64 cannot hold, and no row beside the final frame")
    return np.concatenate([floats, np.full((1, *rows.shape[1:]), np.nan, floats.dtype)])
