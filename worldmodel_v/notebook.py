"""Progress in a notebook: a bar of text below the cell for each task, and warnings between them.

Stages that are called without a `Progress` use it in an interactive kernel (Jupyter and its like), and log warnings alone
anywhere else. It draws with IPython's display, which a kernel always has, so it needs no other package.
"""

import sys
import time
from typing import Any

from worldmodel_v.progress import Count, OnlyWarnings, Progress, facts_text
from worldmodel_v.untrusted import printable

WIDTH = 30
SECONDS_BETWEEN_DRAWINGS = 0.5


def shown(progress: Progress | None) -> Progress:
    """`progress`, or if there is none a bar below the cell in a notebook, and elsewhere warnings alone."""
    return progress or (NotebookProgress() if is_notebook() else OnlyWarnings())


def is_notebook() -> bool:
    """Whether this is the process of an interactive kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"


class NotebookProgress:
    """A line of text for each task, redrawn in its place; of the events only warnings are shown."""

    def task(self, title: str, total: int, unit: str, done: int = 0) -> "_Bar":
        """Begin a bar."""
        return _Bar(title, total, unit, done)

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        """Show a warning."""
        if warning:
            _Line().show(message)

    def say(self, message: str) -> None:
        """Show a warning."""
        self.event("note", message, warning=True)


class _Line:
    """A line below the cell, which can be replaced."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": printable(text)}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class _Bar:
    def __init__(self, title: str, total: int, unit: str, done: int) -> None:
        self._title, self._unit, self._count = title, unit, Count(done, total)
        self._facts: dict[str, Any] = {}
        self._line = _Line()
        self._draw()

    def advance(self, amount: int = 1, **facts: Any) -> None:
        self._count.advance(amount)
        self._facts = facts or self._facts
        if time.monotonic() - self._drawn >= SECONDS_BETWEEN_DRAWINGS:
            self._draw()

    def close(self) -> None:
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        filled = WIDTH * min(self._count.done, self._count.total) // max(self._count.total, 1)
        bar = "█" * filled + "░" * (WIDTH - filled)
        self._line.show(f"{self._title} {bar} {self._count.in_words(self._unit)} {facts_text(self._facts)}".rstrip())
