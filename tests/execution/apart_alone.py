"""What a process apart does with calls of several kinds: prints one JSON object."""

import atexit
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from worldmodel_v.errors import ConfigError, WorldModelError
from worldmodel_v.execution import Apart
from worldmodel_v.progress import Silent
from worldmodel_v.surface import on_the_command_line, option, worded

calls: list[int] = []


def count() -> int:
    """How often this process was called."""
    calls.append(0)
    return len(calls)


def refuse() -> None:
    raise ConfigError("is wrong", field="frame_size", got=5)


def fail() -> None:
    raise KeyboardInterrupt


def at_the_end(file: Path) -> None:
    atexit.register(file.touch)


def said(apart: Apart, function: Any, *arguments: Any) -> Any:
    try:
        return apart.call(function, *arguments, progress=Silent())
    except WorldModelError as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    with Apart() as apart, worded(on_the_command_line):
        found = {
            "counted": [said(apart, count), said(apart, count)],
            "worded": said(apart, option, "frame_size", 5),
            "refused": said(apart, refuse),
            "failed": said(apart, fail),
            "the same process": said(apart, count),
            "left": said(apart, os._exit, 0),
            "another process": said(apart, count),
            "killed": said(apart, signal.raise_signal, signal.SIGKILL),
            "large": len(said(apart, bytes, 32 << 20)),
            "in this one": len(calls),
        }
        said(apart, at_the_end, file)
    found["ended as Python ends"] = file.exists()
    print(json.dumps(found))  # noqa: T201
