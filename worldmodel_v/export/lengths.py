"""Formats whose sequences all have one length. If episodes differ in length, the user must choose what to do.

Legend: E episodes, T actions of an episode, L rows of every sequence.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.export.config import ExportConfig
from worldmodel_v.export.source import Source
from worldmodel_v.surface import option

MAX_LENGTH = 1_000_000
"""The limit of `length`: a sequence is made in memory, and all are padded to this length."""


@dataclass(frozen=True)
class Plan:
    """How episodes become sequences."""

    length: int
    """L"""

    keep: np.ndarray
    """bool (E,): the episodes that become a sequence."""

    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class EqualLengthConfig(ExportConfig):
    """Base class of the formats whose sequences all have one length."""

    pad: bool = False
    """Pad episodes to the length of the longest; with --length, pad to that and cut longer episodes."""

    truncate: bool = False
    """Cut episodes to the length of the shortest; with --length, cut to that and leave out shorter episodes."""

    length: int | None = None
    """Rows of each sequence, at most a million, with --pad or --truncate; both cut longer episodes."""

    final_row: ClassVar[bool]
    """Whether the format has a row for the final observation (T + 1 rows of an episode), or ends before it (T rows)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pad and self.truncate:
            raise ConfigError(f"is the opposite of {option('truncate', True)}", field="pad", got=True, remedy="choose one")
        if self.length is not None and not 2 <= self.length <= MAX_LENGTH:
            raise ConfigError(field="length", expected=f"2 to {MAX_LENGTH}", got=self.length)

    def check(self, source: Source) -> None:
        self.plan(source)

    def plan(self, source: Source) -> Plan:
        """What happens to each episode.

        Raises ConfigError if they differ and no choice was made, DatasetNotUsable if none is left.
        """
        rows = source.num_steps + self.final_row
        shortest, longest = int(rows.min()), int(rows.max())
        length = self.length or (shortest if self.truncate else longest)
        equal = shortest == longest == length
        if not (equal or self.pad or self.truncate):
            asked = "" if self.length is None else f" and {option('length', self.length)} is asked"
            raise ConfigError(
                f"its episodes make sequences of {shortest} to {longest} rows, {self.name} holds one length{asked}",
                where=self.data,
                remedy=f"choose {option('pad', True)} (shorter ones are continued) or {option('truncate', True)} (longer "
                f"ones are cut), alone or to a {option('length')}",
            )
        keep = rows >= length if self.truncate else np.ones(len(rows), dtype=bool)
        if not keep.any() or length < 2:
            raise DatasetNotUsable(
                f"no episode has {max(length, 2)} rows (the longest has {longest})",
                where=self.data,
                remedy=f"lower {option('length')}, or use {option('pad', True)}",
            )
        return Plan(length, keep, self._notes(rows, length, keep, source))

    def _notes(self, rows: np.ndarray, length: int, keep: np.ndarray, source: Source) -> list[str]:
        notes = []
        if len(out := source.episode_ids[~keep]):
            listed = ", ".join(map(str, out[:5])) + (", …" if len(out) > 5 else "")
            notes.append(
                f"unequal lengths: {len(out)} of {len(rows)} episodes have fewer than {length} rows and are left out ({listed})"
            )
        if cut := int(np.maximum(rows[keep] - length, 0).sum()):
            episodes = int((rows[keep] > length).sum())
            notes.append(
                f"unequal lengths: {episodes} episodes are cut to {length} rows; {cut} of {int(rows.sum())} rows are left out"
            )
        if padded := int(np.maximum(length - rows[keep], 0).sum()):
            episodes = int((rows[keep] < length).sum())
            notes.append(
                f"unequal lengths: {episodes} episodes are continued to {length} rows; {padded} of {length * int(keep.sum())} "
                "rows are padding (the final observation again, no action, no reward)"
            )
        if not self.final_row and (complete := int((rows[keep] == length).sum())):
            notes.append(f"final observation: not held, so the last transition of {complete} episodes is missing")
        return notes


def observed(rows: np.ndarray, length: int) -> np.ndarray:
    """Observations (T + 1, …) as a sequence of `length` rows: cut, or continued with the final one."""
    return rows[np.minimum(np.arange(length), len(rows) - 1)]


def filled(rows: np.ndarray, length: int, value: float | bool) -> np.ndarray:
    """Any other column as a sequence of `length` rows: cut, or continued with `value`."""
    out = np.full((length, *rows.shape[1:]), value, dtype=rows.dtype)
    out[: len(rows)] = rows[:length]
    return out


def led_here(rows: np.ndarray) -> np.ndarray:
    """Results of actions (T, …) in the rows of the observations that they led to (T + 1, …); 0 in the first row."""
    return np.concatenate([np.zeros((1, *rows.shape[1:]), rows.dtype), rows])
