"""Progress on standard error: bars on a terminal, plain lines when piped, one JSON object a line on request.

On a terminal, bars count shards, steps and frames; only events that no bar shows are printed above them. Elsewhere, each event
is one line, and each task prints its progress every ten seconds.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from worldmodel_v.cli.terminal import plain, print_line
from worldmodel_v.progress import LogFormat, Progress, Silent
from worldmodel_v.untrusted import printable

SECONDS_BETWEEN_LINES = 10.0

SHOWN_BY_BARS = {"started", "ray_joined", "worker_started", "shard_committed", "evaluated", "checkpoint_written"}
"""Events that have no line of their own if there are bars."""


@contextmanager
def open_progress(program: str, *, quiet: bool, log_format: LogFormat) -> Iterator[Progress]:
    """The kind of progress that suits standard error; JSON lines name `program`."""
    if quiet:
        yield Silent()
    elif log_format == "json":
        yield _JsonProgress(program)
    elif sys.stderr.isatty():
        with _BarProgress() as bars:
            yield bars
    else:
        yield _LineProgress()


def print_json_event(program: str, name: str, message: str, level: str, facts: dict[str, Any]) -> None:
    """One event as one line of JSON on standard error."""
    time_ = datetime.now(UTC).isoformat(timespec="milliseconds")
    event = {"time": time_, "level": level, "program": program, "event": name, **facts, "message": message}
    print_line(json.dumps(event, default=str))


class _Rate:
    """Units per second, without the units that were there at the start."""

    def __init__(self, done: int) -> None:
        self.done, self._before, self._start = done, done, time.monotonic()

    def per_second(self) -> float:
        return (self.done - self._before) / max(time.monotonic() - self._start, 1e-9)


class _BarProgress:
    """rich's bars."""

    def __init__(self) -> None:
        self._rich = RichProgress(
            TextColumn("{task.description:<16}", markup=False),
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

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        if name not in SHOWN_BY_BARS:
            self._rich.console.print(plain(_stamped(message)), soft_wrap=True)

    def say(self, message: str) -> None:
        self.event("note", message, warning=True)


class _BarTask:
    def __init__(self, rich: RichProgress, task_id: Any, rate: _Rate) -> None:
        self._rich, self._task_id, self._rate = rich, task_id, rate

    def advance(self, amount: int = 1, **facts: Any) -> None:
        self._rate.done += amount
        fields: dict[str, Any] = {"rate": f"{self._rate.per_second():.1f}/s"}
        if facts:
            fields["facts"] = printable(_facts_text(facts))
        self._rich.update(self._task_id, advance=amount, **fields)

    def close(self) -> None:
        self._rich.stop_task(self._task_id)


class _LineProgress:
    """A line for each event, and for each task one every ten seconds and at its end."""

    def task(self, title: str, total: int, unit: str, done: int = 0) -> "_LineTask":
        return _LineTask(self, title, total, unit, done)

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        print_line(_stamped(message))

    def say(self, message: str) -> None:
        self.event("note", message, warning=True)


class _JsonProgress(_LineProgress):
    """The same events as JSON."""

    def __init__(self, program: str) -> None:
        self._program = program

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        print_json_event(self._program, name, message, "warning" if warning else "info", facts)


class _LineTask:
    def __init__(self, progress: _LineProgress, title: str, total: int, unit: str, done: int) -> None:
        self._progress, self._title, self._total, self._unit = progress, title, total, unit
        self._rate, self._last = _Rate(done), time.monotonic()
        self._facts: dict[str, Any] = {}

    def advance(self, amount: int = 1, **facts: Any) -> None:
        self._rate.done += amount
        self._facts = facts or self._facts
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._tell()

    def close(self) -> None:
        self._tell()

    def _tell(self) -> None:
        self._last = time.monotonic()
        done, rate = self._rate.done, self._rate.per_second()
        left = (self._total - done) / rate if rate else 0.0
        line = f"{self._title}: {done}/{self._total} {self._unit}, {rate:.1f}/s, {left:.0f} s left {_facts_text(self._facts)}"
        facts: dict[str, Any] = {"stage": self._title, "done": done, "total": self._total, "unit": self._unit}
        facts |= {"per_second": round(rate, 3), "seconds_left": round(left, 1) if rate else None}
        self._progress.event("progress", line.rstrip(), **facts, **self._facts)


def _stamped(message: str) -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {message}"


def _facts_text(facts: dict[str, Any]) -> str:
    return " ".join(f"{name}={_fact_text(name, value)}" for name, value in facts.items())


def _fact_text(name: str, value: Any) -> str:
    if name == "bytes":
        return f"{value / 1e6:.1f}MB"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
