"""Progress on standard error: a bar with rate and time left on a terminal, a plain line now and then when piped."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from worldmodel_v.progress import Progress, Silent

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def open_progress(*, quiet: bool) -> Iterator[Progress]:
    """The progress that fits where standard error goes."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        with _BarProgress() as bars:
            yield bars
    else:
        yield _LineProgress()


class _Rate:
    """Units per second, the units that were there at the start left out."""

    def __init__(self, done: int) -> None:
        self.done, self._before, self._start = done, done, time.monotonic()

    def per_second(self) -> float:
        return (self.done - self._before) / max(time.monotonic() - self._start, 1e-9)


class _BarProgress:
    """rich's bars."""

    def __init__(self) -> None:
        self._rich = RichProgress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}  {task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
            console=Console(stderr=True),
        )

    def __enter__(self) -> "_BarProgress":
        self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rich.stop()

    def task(self, title: str, total: int, unit: str, done: int = 0) -> "_BarTask":
        task_id = self._rich.add_task(title, total=total, completed=done, unit=unit, rate="", facts="")
        return _BarTask(self._rich, task_id, _Rate(done))

    def say(self, message: str) -> None:
        self._rich.console.print(message, highlight=False)


class _BarTask:
    def __init__(self, rich: RichProgress, task_id: Any, rate: _Rate) -> None:
        self._rich, self._task_id, self._rate = rich, task_id, rate

    def advance(self, amount: int = 1, **facts: Any) -> None:
        self._rate.done += amount
        fields: dict[str, Any] = {"rate": f"{self._rate.per_second():.1f}/s"}
        if facts:
            fields["facts"] = _facts_text(facts)
        self._rich.update(self._task_id, advance=amount, **fields)

    def close(self) -> None:
        self._rich.stop_task(self._task_id)


class _LineProgress:
    """One line at the beginning, every ten seconds, and at the end of each task."""

    def task(self, title: str, total: int, unit: str, done: int = 0) -> "_LineTask":
        return _LineTask(title, total, unit, done)

    def say(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)


class _LineTask:
    def __init__(self, title: str, total: int, unit: str, done: int) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._rate, self._facts, self._last = _Rate(done), "", time.monotonic()

    def advance(self, amount: int = 1, **facts: Any) -> None:
        self._rate.done += amount
        self._facts = _facts_text(facts) or self._facts
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._print()

    def close(self) -> None:
        self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        rate = self._rate.per_second()
        left = (self._total - self._rate.done) / rate if rate else 0.0
        line = f"{self._title}: {self._rate.done}/{self._total} {self._unit}, {rate:.1f}/s, {left:.0f} s left {self._facts}"
        print(line.rstrip(), file=sys.stderr, flush=True)


def _facts_text(facts: dict[str, Any]) -> str:
    return " ".join(f"{name}={value:.1f}" if isinstance(value, float) else f"{name}={value}" for name, value in facts.items())
