"""The small rollouts of the tests of training, and a user's command line."""

import os
import subprocess
import sys
from pathlib import Path

from tests.train.conftest import tiny_rollouts

__all__ = ["command", "tiny_rollouts"]


def command(folder: Path, name: str, *arguments: object, code: int = 0) -> str:
    """What a command, or a script of the folder, says on both outputs, run there; it must leave with `code`."""
    program = [sys.executable, folder / name] if name.endswith(".py") else [Path(sys.executable).with_name(name)]
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "400"}
    done = subprocess.run(
        [*map(str, program), *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
