"""A recorded figure, averaged over windows of steps: one step says little."""

from collections.abc import Mapping

WINDOW = 200
"""Steps over which a figure is averaged."""


class WindowMean:
    """The mean of a figure over each window."""

    def __init__(self, figure: str) -> None:
        self._figure = figure
        self._values: list[float] = []
        self._first: int | None = None

    def add(self, step: int, figures: Mapping[str, float]) -> float | None:
        """The mean over the window, if it ends at this step; `figures` are those recorded of it."""
        if self._figure not in figures:
            return None
        self._values.append(figures[self._figure])
        self._first = step if self._first is None else self._first
        if step - self._first < WINDOW:
            return None
        mean = sum(self._values) / len(self._values)
        self._values, self._first = [], None
        return mean
