"""How progress looks: on terminals of any width, after an interruption, and as lines of a file."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

from tests.commands import BIN, committed, environment_here, options
from worldmodel_v.cli import progress as module
from worldmodel_v.cli.progress import ROOM_FOR_A_KEY, _BarTask, _lines, open_progress
from worldmodel_v.progress import Count, LogFormat

STAMP = options({"env": "worldmodel_v/Stamp-v0", "episodes": 100_000, "policy": "random", "workers": 0, "out": "out"})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, in seconds: set it."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


# Rates


def test_a_rate_forgets_the_start_up(clock: list[float]) -> None:
    count = Count(100, 1000)
    clock[0] += 500
    count.advance(4)
    assert (count.per_second(), count.seconds_left()) == (None, None)
    for _ in range(3):
        clock[0] += 2
        count.advance(4)
    assert (count.per_second(), count.seconds_left()) == (2.0, (1000 - 116) / 2)


def test_a_rate_is_that_of_the_last_minute(clock: list[float]) -> None:
    count = Count(0, 10**6)
    for seconds, units in ((600, 1), (120, 10)):
        for _ in range(seconds):
            clock[0] += 1
            count.advance(units)
    assert count.per_second() == pytest.approx(10, rel=0.01)
    clock[0] += 60  # a stall shows
    assert (count.per_second() or 0) < 6


def test_units_that_take_minutes_have_a_rate(clock: list[float]) -> None:
    count = Count(0, 100)
    for _ in range(30):
        clock[0] += 300
        count.advance(1)
    assert count.per_second() == 1 / 300


def test_a_task_of_one_advance_is_rated_by_all_its_time(clock: list[float]) -> None:
    count = Count(2, 10)
    clock[0] += 4
    count.advance(8)
    assert (count.per_second(), count.seconds_left()) == (2.0, 0.0)
    assert Count(3, 3).per_second() is None


# Bars


@pytest.mark.parametrize("width", range(24, 161))
def test_a_bar_keeps_count_rate_and_time_left_at_every_width(width: int, clock: list[float]) -> None:
    task = _BarTask("collect", "episodes", Count(0, 40))
    for _ in range(11):
        clock[0] += 2
        task.advance(3, frames=12345, bytes=10**7)
    (line,) = _lines([task], width - ROOM_FOR_A_KEY, "━")
    assert line.cell_len <= width - ROOM_FOR_A_KEY
    assert "33/40" in line.plain
    assert "0:00:05 left" in line.plain
    assert ("1.5/s" in line.plain) == (width >= 27)
    assert ("frames=12345" in line.plain) == (width >= 78)
    assert line.plain.count("━") == 20 or "frames" not in line.plain


def test_a_bar_that_is_closed_says_how_long_it_took_and_bars_stand_below_each_other(clock: list[float]) -> None:
    first, second = _BarTask("collect", "episodes", Count(0, 8)), _BarTask("read", "frames", Count(0, 1000))
    clock[0] += 90
    first.advance(8)
    first.close()
    clock[0] += 5
    assert [line.plain for line in _lines([first, second], 77, "-")] == [
        "collect --------------------    8/8 episodes 5.3/min in 0:01:30",
        "read                         0/1000 frames           -:--:-- left",
    ]


class Terminal:
    """A command at a terminal, and what that shows."""

    def __init__(self, folder: Path, *words: object, columns: int = 80) -> None:
        self._ours, its = pty.openpty()
        self.screen = pyte.Screen(columns, 24)
        self._stream, self.sent = pyte.ByteStream(self.screen), b""
        self.resize(columns)
        command = [str(BIN / str(words[0])), *map(str, words[1:])]
        environment = {name: value for name, value in environment_here().items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            **dict.fromkeys(("stdin", "stdout", "stderr"), its),
            cwd=folder,
            env=environment | {"TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(its)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Take what is sent, until the condition holds or the command has ended."""
        try:
            while not condition() and (piece := os.read(self._ours, 65536)):
                self.sent += piece
                self._stream.feed(piece)
        except OSError:  # the terminal is gone: all has been read
            return

    def end(self) -> list[str]:
        """The lines of the screen when the command has ended."""
        self.read_until(lambda: False)
        os.close(self._ours)
        self.process.wait()
        return [line.rstrip() for line in self.screen.display if line.strip()]


@pytest.mark.usefixtures("stamp_rollouts")  # so that what is run is compiled already
def test_a_narrower_terminal_and_ctrl_c_leave_no_litter(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "wm-collect", *STAMP)
    terminal.read_until(lambda: committed(tmp_path / "out") >= 2 and b" left" in terminal.sent)
    seen = len(terminal.sent)
    terminal.resize(40)
    terminal.read_until(lambda: terminal.sent[seen:].count(b"\x1b[2K") >= 5)  # it is drawn again, and again
    terminal.type(b"\x03")
    lines = terminal.end()
    assert terminal.process.returncode == 130
    assert lines[0].startswith("collect")
    assert " in 0:0" in lines[0]
    assert "".join(lines[1:]) == "wm-collect: interrupted; what is committed is kept, and the same command continues"


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes standard error a terminal of a kind."""

    def set_terminal(kind: str) -> None:
        monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", kind)

    return set_terminal


def test_a_command_without_a_bar_sends_no_escape_and_no_empty_line(
    at_a_terminal: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_a_terminal("xterm")
    monkeypatch.setattr(module, "SECONDS_UNTIL_LIFE", 600.0)
    with open_progress("wm-inspect", quiet=False, log_format="text"):
        pass
    assert capsys.readouterr().err == ""


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    at_a_terminal: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    at_a_terminal("dumb")
    with open_progress("wm-train", quiet=False, log_format="text") as progress:
        progress.task("train", 1, "steps").close()
    assert "Z train: 0/1 steps\n" in capsys.readouterr().err


def test_a_terminal_shows_life_before_the_first_bar_and_forgets_it(
    at_a_terminal: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_a_terminal("xterm")
    monkeypatch.setattr(module, "SECONDS_UNTIL_LIFE", 0.01)
    shown = ""
    with open_progress("wm-eval", quiet=False, log_format="text"):
        while "at work 0:00:0" not in shown:
            time.sleep(0.01)
            shown += capsys.readouterr().err
    screen = pyte.Screen(80, 24)
    pyte.Stream(screen).feed((shown + capsys.readouterr().err).replace("\n", "\r\n"))
    assert not "".join(screen.display).strip()
    assert (screen.cursor.x, screen.cursor.y) == (0, 0)


# Lines


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_comes_every_ten_seconds_even_if_nothing_advances(
    form: LogFormat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.02)

    def lines(words: str) -> list[str]:
        found: list[str] = []
        while len(found) < 2:
            time.sleep(0.01)
            found += [line for line in capsys.readouterr().err.splitlines() if words in line]
        return found

    with open_progress("wm-eval", quiet=False, log_format=form) as progress:
        idle = lines("wm-eval: at work, 0:00:0")
        task = progress.task("read", 5, "frames")
        busy = lines("read: 0/5 frames")
        task.advance(5)
        task.close()
        idle += lines("wm-eval: at work, 0:00:0")
    if form == "json":
        assert {json.loads(line)["event"] for line in idle} == {"working"}
        assert {json.loads(line)["event"] for line in busy} == {"progress"}
        assert json.loads(busy[0])["per_second"] is None


def test_a_task_that_is_closed_has_told_its_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.001)
    with open_progress("wm-eval", quiet=False, log_format="text") as progress:
        for _ in range(50):
            task = progress.task("read", 1, "frames")
            task.advance()
            task.close()
    told = [line for line in capsys.readouterr().err.splitlines() if "read" in line]
    finished = [line for line in told if "read: 1/1 frames" in line]
    assert len(finished) >= 50
    assert told[-1] in finished
