"""A small training from the commands' end."""

from pathlib import Path
from typing import Any

from tests import commands

LOOP = {"batch_size": 16, "checkpoint_every": 4, "log_every": 2, "holdout_every": 4, "learning_rate": 0.003, "device": "cpu"}


def run(folder: Path, program: str, *words: object, code: int = 0) -> str:
    output, errors = commands.run(program, *words, "--quiet", code=code, folder=folder)
    return output if code == 0 else errors


def options(settings: dict[str, Any]) -> list[object]:
    words: list[object] = []
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", *(value if isinstance(value, tuple) else [value])]
    return words
