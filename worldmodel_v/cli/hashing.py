"""Texts have the same hashes in every run of a command, as they have in its workers.

Python draws the hashes of texts, and so the order of sets, when it starts. A world that depends on them would be another one
each time the command runs.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

VARIABLE = "PYTHONHASHSEED"


def hash_alike() -> None:
    """Begin this command anew with PYTHONHASHSEED=0, unless it has that, or is a part of another program."""
    program, *words = sys.argv
    command = Path(program).name
    typed = ([program, *words], ["-m", "worldmodel_v", command.removeprefix("wm-"), *words])
    is_the_program = command.startswith("wm-") and any(sys.orig_argv[-len(line) :] == line for line in typed)
    if is_the_program and sys.executable and os.environ.get(VARIABLE) != "0":
        with suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, VARIABLE: "0"})
