"""The way of every text to standard output and standard error.

Texts come from files of strangers too, so only what a terminal shows is printed, never what it would obey
(`untrusted.printable`). A line breaks only where this package breaks it. JSON spells out such characters itself.

Standard error takes everything: where it is full, closed or read by nobody, what is written is lost, and the work goes on.
Standard output raises OSError, also where the shell has closed it (`>&-`), because a result that is lost is a failure.
"""

import io
import json
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from worldmodel_v.untrusted import printable

PIPED_WIDTH = 240
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
COLOURS = re.compile(r"\x1b\[[\d;]*m")

_turn = threading.Lock()


def plain(text: object) -> Text:
    """A text for rich, which neither rich nor the terminal takes for more than that."""
    return Text(printable(str(text)))


def results() -> Console:
    """A console on standard output, as wide as the terminal; piped, so wide that no path or hash is folded."""
    return _Results(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)


class _Results(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        """As rich does; where there is no terminal, without the spaces that fill a table's lines."""
        if sys.stdout.isatty():
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        print("\n".join(map(str.rstrip, captured.get().split("\n"))), end="")

    def on_broken_pipe(self) -> None:
        """Let the caller have the BrokenPipeError, which rich is handling, instead of leaving."""
        raise


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value, default=str, indent=2))


def print_lines(text: str) -> None:
    """A piece of somebody else's lines on standard output, as they are divided."""
    print("\n".join(map(printable, text.split("\n"))), end="", flush=True)


def print_line(line: str) -> None:
    """Print a whole line on standard error, from any thread."""
    with _turn:
        print(f"{printable(line)}\n", end="", file=sys.stderr, flush=True)


def open_closed_streams() -> None:
    """Where the shell has closed a standard stream, have something there, before another file takes its number.

    It refuses to be written to, as the closed stream would.
    """
    for number in range(STANDARD_ERROR + 1):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
    if sys.stdout is None:
        sys.stdout = open(STANDARD_OUTPUT, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(STANDARD_ERROR, "w", closefd=False)  # noqa: SIM115


def take_streams() -> None:
    """Let both streams be as described above, also for warnings, log records and tracebacks.

    Where somebody else has replaced the streams, as a test does, nothing is changed.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for characters that the terminal's encoding lacks
    if sys.__stderr__ not in (sys.stderr, None):
        return
    buffer = io.BufferedWriter(_Unfailing(STANDARD_ERROR, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(buffer, sys.stderr.encoding, "backslashreplace", line_buffering=True)
    warnings.showwarning = _show_warning
    logging.lastResort = _Lines(logging.WARNING)
    sys.excepthook = _show_traceback
    threading.excepthook = lambda lost: _show_traceback(lost.exc_type, lost.exc_value, lost.exc_traceback)


class _Unfailing(io.FileIO):
    """A file where writing always succeeds."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


class _Lines(logging.Handler):
    """Prints log records that nobody else takes, as Python's last resort does."""

    def emit(self, record: logging.LogRecord) -> None:
        _print_all(self.format(record).split("\n"))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = warnings.formatwarning(COLOURS.sub("", str(message)), category, filename, lineno, line)  # Gymnasium's are coloured
    _print_all(text.rstrip("\n").split("\n"))


def _show_traceback(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    _print_all("".join(traceback.format_exception(kind, error, where)).rstrip("\n").split("\n"))


def _print_all(lines: Iterable[str]) -> None:
    for line in lines:
        print_line(line)
