"""The small rollouts of the tests of training, and a user's command line."""

from pathlib import Path

from tests.commands import run
from tests.training.conftest import tiny_rollouts

__all__ = ["command", "tiny_rollouts"]


def command(folder: Path, name: str, *arguments: object, code: int = 0) -> str:
    """What a command, or a script of the folder, says on both outputs, run there; it must leave with `code`."""
    program = folder / name if name.endswith(".py") else name
    return "".join(run(program, *arguments, code=code, folder=folder, PYTHONPATH=str(folder), COLUMNS="400"))
