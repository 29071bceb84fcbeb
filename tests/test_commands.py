"""A fork of the server of `tests.commands` does what a fresh interpreter does, so that tests may take the one for the other."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.commands import Fork, start

PROGRAMS = {
    "what it finds": "import os, sys; print(sys.argv, os.getcwd(), os.environ['FOUND'], sys.path[:2], sys.stdin.read())",
    "a code": "import sys; print('half'); sys.exit(3)",
    "a message": "raise SystemExit('no such thing')",
    "an error": "import atexit; atexit.register(print, 'goodbye'); {}['key']",
    "a thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()",
    "native output": "import ctypes; ctypes.CDLL(None).puts(b'from C')",
    "an interruption": "raise KeyboardInterrupt",
    "a death": "import os; os.kill(os.getpid(), 9)",
}
CODES = {"a code": 3, "a message": 1, "an error": 1, "an interruption": -signal.SIGINT, "a death": -signal.SIGKILL}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_fork_is_what_a_fresh_interpreter_is(name: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAMS[name])
    given = {"FOUND": "it", "PYTHONPATH": str(tmp_path / "modules")}
    both = [start(script, "a b", folder=tmp_path, **given, **more) for more in ({}, {"PYTHONNOUSERSITE": "1"})]
    assert [type(process) for process in both] == [Fork, subprocess.Popen]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [CODES.get(name, 0)] * 2
    assert said[0][0] == said[1][0]
    assert said[0][1].splitlines()[-1:] == said[1][1].splitlines()[-1:]


def test_a_fork_that_runs_is_signalled_by_its_number(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text("import time\ntime.sleep(600)")
    process = start(script)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    process.send_signal(signal.SIGTERM)  # nothing is there any more
