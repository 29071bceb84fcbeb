"""How long work tells of itself, without printing: stages report to a `Progress` that the command line provides."""

from typing import Any, Protocol


class Task(Protocol):
    """One bar."""

    def advance(self, amount: int = 1, **facts: Any) -> None:
        """Move on by `amount` units; `facts` are shown beside the bar (loss=…, psnr=…)."""

    def close(self) -> None:
        """End the bar; the last state stays visible."""


class Progress(Protocol):
    """Where stages report. Implementations print, draw or ignore."""

    def task(self, title: str, total: int, unit: str, done: int = 0) -> Task:
        """Begin a bar of `total` units of which `done` are there already."""

    def say(self, message: str) -> None:
        """One line for the person who waits."""


class Silent:
    """Reports nothing: the default of every stage when called from Python."""

    def task(self, title: str, total: int, unit: str, done: int = 0) -> "Silent":
        return self

    def advance(self, amount: int = 1, **facts: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def say(self, message: str) -> None:
        pass
