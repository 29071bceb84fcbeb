"""A recorded figure, judged by its mean over windows of steps: one step says little."""

from collections.abc import Callable, Mapping

from worldmodel_v.autoencoders.base import Finding

WINDOW = 200
"""Steps over which a figure is averaged."""


class WindowWatch:
    """Judges a figure by its mean over each window."""

    def __init__(self, figure: str, judge_mean: Callable[[int, float], Finding | None]) -> None:
        """`judge_mean(step, mean)` gives the problem that a mean shows."""
        self._figure, self._judge_mean = figure, judge_mean
        self._values: list[float] = []
        self._first: int | None = None

    def judge(self, step: int, figures: Mapping[str, float]) -> Finding | None:
        """The problem that the last window shows, if it ends at this step; `figures` are those recorded of it."""
        if self._figure not in figures:
            return None
        self._values.append(figures[self._figure])
        self._first = step if self._first is None else self._first
        if step - self._first < WINDOW:
            return None
        mean = sum(self._values) / len(self._values)
        self._values, self._first = [], None
        return self._judge_mean(step, mean)
