"""Progress on standard error: bars on a terminal, plain lines when piped, one JSON object a line on request.

On a terminal, bars count shards, steps and frames; only events that no bar shows are printed above them. Elsewhere, each event
is one line, and every ten seconds there is one more: of each task under way, or that the command is at work.

Rejected: rich's own rates, which need two units within their window, so that a shard a minute has none.
"""

import json
import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from worldmodel_v.cli.terminal import plain, print_line
from worldmodel_v.progress import Count, LogFormat, Progress, Silent, duration, facts_text, rate_in_words
from worldmodel_v.untrusted import printable

SECONDS_BETWEEN_LINES = 10.0
SECONDS_UNTIL_LIFE = 2.0
"""After which a terminal shows that a command without a bar is at work."""

NARROWEST_BAR, WIDEST_BAR = 5, 20
ROOM_FOR_A_KEY = 3
"""Columns at the end of a line for the ^C that a terminal shows: where it wraps, it stays."""

SHOWN_BY_BARS = {"started", "ray_joined", "worker_started", "shard_committed", "evaluated", "checkpoint_written"}
"""Events that have no line of their own if there are bars."""


@contextmanager
def open_progress(program: str, *, quiet: bool, log_format: LogFormat) -> Iterator[Progress]:
    """The kind of progress that suits standard error; lines name `program`."""
    if quiet:
        yield Silent()
    elif log_format == "text" and sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal:
        with _BarProgress() as bars:
            yield bars
    else:
        with (_JsonProgress if log_format == "json" else _LineProgress)(program) as lines:
            yield lines


def print_json_event(program: str, name: str, message: str, level: str, facts: dict[str, Any]) -> None:
    """One event as one line of JSON on standard error."""
    time_ = datetime.now(UTC).isoformat(timespec="milliseconds")
    event = {"time": time_, "level": level, "program": program, "event": name, **facts, "message": message}
    print_line(json.dumps(event, default=str))


class _BarProgress:
    """rich's live display, of lines that fit: where a terminal is narrow, facts go first, then the bar, the unit, the title."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._tasks: list[_BarTask] = []
        self._drawn: list[int] = []
        """The lengths of the lines on the screen, which was so wide then:"""

        self._width = self._console.width
        self._is_ending, self._idle_since = False, time.monotonic()
        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=10)
        self._life = threading.Timer(SECONDS_UNTIL_LIFE, self._live.start)
        self._life.daemon = True

    def __enter__(self) -> "_BarProgress":
        self._life.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Draw the bars once more and leave them there; where there is none, leave nothing."""
        self._life.cancel()
        self._life.join()  # it may be at it
        self._is_ending = True
        self._live.transient = not self._tasks
        self._live.stop()

    def task(self, title: str, total: int, unit: str, done: int = 0) -> "_BarTask":
        """A bar; the first one begins the display."""
        task = _BarTask(title, unit, Count(done, total))
        self._tasks.append(task)
        self._live.start()
        return task

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        """A line above the bars."""
        if name not in SHOWN_BY_BARS:
            self._console.print(plain(_stamped(message)), soft_wrap=True)

    def say(self, message: str) -> None:
        """A line above the bars."""
        self.event("note", message, warning=True)

    def _draw(self) -> Group:
        """A line for each task, and one more if none of them is under way."""
        self._find_wrapped_lines()
        dash = "-" if self._console.options.ascii_only else "━"
        lines = _lines(list(self._tasks), self._width - ROOM_FOR_A_KEY, dash)
        if any(task.end is None for task in self._tasks):
            self._idle_since = time.monotonic()
        elif not self._is_ending and (idle := time.monotonic() - self._idle_since) >= SECONDS_UNTIL_LIFE:
            lines.append(plain(f"at work {duration(idle)}"))
        self._drawn = [line.cell_len for line in lines]
        return Group(*lines)

    def _find_wrapped_lines(self) -> None:
        """Tell rich on how many lines of the screen its last lines are: a terminal that was made narrower has wrapped them."""
        before, self._width = self._width, max(self._console.width, 1)
        if self._width < before and self._drawn:
            height = sum(max(math.ceil(length / self._width), 1) for length in self._drawn)
            self._live._live_render._shape = (self._width, height)


class _BarTask:
    def __init__(self, title: str, unit: str, count: Count) -> None:
        self.title, self.unit, self.count = title, unit, count
        self.facts: dict[str, Any] = {}
        self.end: tuple[float, float | None] | None = None
        """How long it took, and the rate, when it is closed."""

    def advance(self, amount: int = 1, **facts: Any) -> None:
        self.count.advance(amount)
        self.facts = facts or self.facts

    def close(self) -> None:
        self.end = (time.monotonic() - self.count.began, self.count.per_second())

    def cells(self) -> dict[str, str]:
        """The words of its line, but for its facts; the time is what is left, or at the end what it took."""
        rate = self.count.per_second() if self.end is None else self.end[1]
        left = self.count.seconds_left()
        return {
            "title": self.title,
            "count": f"{self.count.done}/{self.count.total}",
            "unit": self.unit,
            "rate": "" if rate is None else rate_in_words(rate),
            "time": f"in {duration(self.end[0])}" if self.end else f"{'-:--:--' if left is None else duration(left)} left",
        }

    def bar(self, width: int, dash: str) -> Text:
        """As rich's `BarColumn` looks."""
        full = width * min(self.count.done, self.count.total) // max(self.count.total, 1)
        return Text.assemble((dash * full, "bar.complete"), ((" " if dash == "-" else dash) * (width - full), "bar.back"))


def _lines(tasks: list[_BarTask], room: int, dash: str) -> list[Text]:
    """Each task's title, bar, count, unit, rate, time and facts, below each other, in so many columns."""
    rows = [task.cells() for task in tasks]
    widths = {name: max(len(row[name]) for row in rows) for name in (rows[0] if rows else ())}
    for dropped in ("unit", "title", "rate"):
        if sum(widths.values()) + len(widths) - 1 > room:
            del widths[dropped]
    left = room - sum(widths.values()) - len(widths)
    bar = min(left, WIDEST_BAR) if left >= NARROWEST_BAR else 0
    lines = []
    for task, row in zip(tasks, rows, strict=True):
        cells: list[Text | str] = [
            row[name].rjust(width) if name == "count" else row[name].ljust(width) for name, width in widths.items()
        ]
        if bar:
            cells.insert("title" in widths, task.bar(bar, dash))
        line = plain(" ").join(cell if isinstance(cell, Text) else plain(cell) for cell in cells)
        line.rstrip()
        for name, value in task.facts.items():
            fact = f" {printable(facts_text({name: value}))}"
            if bar < WIDEST_BAR or line.cell_len + len(fact) > room:
                break
            line.append(fact)
        line.no_wrap, line.overflow = True, "crop"
        lines.append(line)
    return lines


class _LineProgress:
    """A line for each event, and every ten seconds one for each task, or that the command is at work."""

    def __init__(self, program: str) -> None:
        self._program, self._began = program, time.monotonic()
        self._tasks: list[_LineTask] = []
        self._latest = self._began
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._tell_now_and_then, daemon=True)

    def __enter__(self) -> "_LineProgress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._thread.join()

    def task(self, title: str, total: int, unit: str, done: int = 0) -> "_LineTask":
        """A task, of which a line is told every ten seconds and at its end."""
        task = _LineTask(self, title, unit, Count(done, total))
        self._tasks.append(task)
        return task

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        """A line."""
        self._latest = time.monotonic()
        self._print(name, message, warning, facts)

    def say(self, message: str) -> None:
        """A line."""
        self.event("note", message, warning=True)

    def _print(self, name: str, message: str, warning: bool, facts: dict[str, Any]) -> None:
        print_line(_stamped(message))

    def _tell_now_and_then(self) -> None:
        while not self._has_ended.wait(SECONDS_BETWEEN_LINES / 20):
            for task in list(self._tasks):
                task.tell_if_due()
            if not self._tasks and time.monotonic() - self._latest >= SECONDS_BETWEEN_LINES:
                seconds = round(time.monotonic() - self._began)
                self.event("working", f"{self._program}: at work, {duration(seconds)} so far", seconds=seconds)


class _JsonProgress(_LineProgress):
    """The same events as JSON."""

    def _print(self, name: str, message: str, warning: bool, facts: dict[str, Any]) -> None:
        print_json_event(self._program, name, message, "warning" if warning else "info", facts)


class _LineTask:
    def __init__(self, progress: _LineProgress, title: str, unit: str, count: Count) -> None:
        self._progress, self._title, self._unit, self._count = progress, title, unit, count
        self._latest = time.monotonic()
        self._facts: dict[str, Any] = {}
        self._turn, self._is_closed = threading.Lock(), False

    def advance(self, amount: int = 1, **facts: Any) -> None:
        self._count.advance(amount)
        self._facts = facts or self._facts

    def close(self) -> None:
        with self._turn:
            self._is_closed = True
            self._progress._tasks.remove(self)
            self._tell()

    def tell_if_due(self) -> None:
        """Tell of the task if it has been silent for ten seconds."""
        with self._turn:
            if not self._is_closed and time.monotonic() - self._latest >= SECONDS_BETWEEN_LINES:
                self._tell()

    def _tell(self) -> None:
        self._latest = time.monotonic()
        count, rate, left = self._count, self._count.per_second(), self._count.seconds_left()
        line = f"{self._title}: {count.in_words(self._unit)} {facts_text(self._facts)}"
        facts: dict[str, Any] = {"stage": self._title, "done": count.done, "total": count.total, "unit": self._unit}
        facts |= {"per_second": rate and round(rate, 3), "seconds_left": None if left is None else round(left, 1)}
        self._progress.event("progress", line.rstrip(), **facts, **self._facts)


def _stamped(message: str) -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {message}"
