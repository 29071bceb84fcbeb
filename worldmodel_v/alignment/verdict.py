"""From gains to a verdict: see the package's head for what follows from what."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from worldmodel_v.alignment.gains import FEWEST_ROWS, Gain, Rows, measure
from worldmodel_v.progress import Progress

SIGNIFICANT, NOTICEABLE = 3.5, 2.0
"""From so many standard errors on, a gain counts; from so many on, it may not be overlooked."""

SMALLEST_GAIN = 0.002
JUMP, NOTHING = 0.25, 0.1
"""Shares of the largest gain: from the first on, a gain is a jump; up to the second, it is nothing."""

KNOWN, DETERMINED = 0.01, 0.95
"""From so much R² on, the past tells of an action; from so much on, nothing is left of it."""

Answer = Literal["aligned", "late", "early", "undecidable"]


@dataclass(frozen=True)
class Verdict:
    """The answer, by how many rows (0 if aligned or undecidable), the shifts that are possible, and the evidence in words."""

    answer: Answer
    rows: int
    evidence: str
    possible: tuple[int, ...] = ()
    """Shifts in rows, late ones positive. Empty if nothing is known."""

    gains: dict[int, Gain] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.answer} by {self.rows}" if self.rows else self.answer


def judge(episodes: Sequence[Rows], progress: Progress | None = None) -> Verdict:
    """The verdict on some rows of a dataset; it is a function of them alone, and takes some seconds."""
    if not np.concatenate([rows.action for rows in episodes]).std(axis=0).any():
        return Verdict("undecidable", 0, "all actions are the same")
    gains = measure(episodes, progress)
    if not gains:
        return Verdict("undecidable", 0, f"there are fewer than {FEWEST_ROWS} rows with their neighbours")
    return decide(gains)


def decide(gains: dict[int, Gain]) -> Verdict:
    """The verdict that gains by offset give; see the module's head."""
    counted = [gain.size for gain in gains.values() if gain.errors >= SIGNIFICANT and gain.size >= SMALLEST_GAIN]
    if not counted:
        return _undecidable(gains, "no observation near an action tells of it more than what was known before")
    largest = max(counted)
    first = next(m for m, gain in gains.items() if gain.size >= JUMP * largest and gain.errors > NOTICEABLE)
    jump = gains[first]
    if jump.errors < SIGNIFICANT or any(
        gains[m].size > NOTHING * jump.size and gains[m].errors > NOTICEABLE for m in gains if m < first
    ):
        return _undecidable(gains, f"where actions begin to show is not clear: {_told(gains, first)}")
    if first == min(gains):
        return _undecidable(gains, f"actions show {-first} rows before their own, or earlier: {_told(gains, first)}")
    if jump.before > KNOWN:
        after = gains.get(first + 1)
        if jump.before + jump.size > DETERMINED:
            return _determined(gains, first)
        if first < 0 and after is not None and after.errors > NOTICEABLE and after.size > JUMP * jump.size:
            told = _told(gains, first)
            return _undecidable(gains, f"what a policy that looks does is not told from an effect: {told}")
    evidence = f"an action first shows in {_row(first + 1)}: {_told(gains, first)}"
    if first <= 0:
        return Verdict("late" if first else "aligned", -first, evidence, (-first,), gains)
    rewarded = [m for m, gain in gains.items() if gain.reward_errors >= SIGNIFICANT and gain.reward_size >= SMALLEST_GAIN]
    if rewarded and min(rewarded) in (0, first):
        early = min(rewarded)
        evidence += f", and in the reward of {_row(early)}"
        return Verdict("early" if early else "aligned", early, evidence, (-early,), gains)
    return Verdict("undecidable", 0, f"{_reading(first)}; {evidence}", tuple(range(-first, 1)), gains)


def _determined(gains: dict[int, Gain], first: int) -> Verdict:
    """Nothing is left of the actions: the observation shows what they did, or a policy without noise chose them on it."""
    why = f"{_reading(first)}, or {_shift(-first - 1)} and chosen without noise; actions are a function of what was seen"
    return Verdict("undecidable", 0, f"{why}: {_told(gains, first)}", tuple(range(-first - 1, max(-first, 0) + 1)), gains)


def _reading(first: int) -> str:
    late = f", or the world answers {first} {'row' if first == 1 else 'rows'} late" if first > 0 else ""
    return f"actions are {_shift(-first)}{late}"


def _shift(rows: int) -> str:
    """Late ones are positive."""
    return f"{'late' if rows > 0 else 'early'} by {abs(rows)}" if rows else "aligned"


def _undecidable(gains: dict[int, Gain], why: str) -> Verdict:
    return Verdict("undecidable", 0, why, (), gains)


def _told(gains: dict[int, Gain], first: int) -> str:
    """As `+0.31 of R² there (17 standard errors), at most +0.01 before`."""
    jump, before = gains[first], max((gains[m].size for m in gains if m < first), default=0.0)
    return f"{jump.size:+.3f} of R² ({jump.errors:.0f} standard errors), at most {max(before, 0.0):+.3f} before"


def _row(offset: int) -> str:
    return "its own row" if offset == 0 else f"the row {offset:+d}"
