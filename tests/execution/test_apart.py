"""A process beside the program, which may end while the program goes on."""

import json
from pathlib import Path

from tests.commands import run


def test_calls_come_back_however_they_end(tmp_path: Path) -> None:
    output, _ = run(Path(__file__).with_name("apart_alone.py"), tmp_path / "ended")
    assert json.loads(output) == {
        "counted": [1, 2],
        "worded": "--frame-size 5",
        "refused": "ConfigError: --frame-size 5: is wrong",
        "failed": "WorldModelError: a process apart failed with KeyboardInterrupt: no message; "
        "this is a defect, please report it",
        "the same process": 3,
        "left": "WorkerLost: its process ended with exit code 0",
        "another process": 1,
        "killed": "WorkerLost: its process ended by SIGKILL",
        "large": 32 << 20,
        "in this one": 0,
        "ended as Python ends": True,
    }
