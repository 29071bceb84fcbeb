"""One system call of a command fails, or all from one on: it says so in one line or ends well, and a rerun completes it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.every_call import COMMANDS, KINDS

SOME = dict.fromkeys(COMMANDS, 6) | {"collect": 24, "train": 24, "encode": 20, "select": 12, "npz": 12, "minari": 18}
"""At least one of each kind that a command makes: some 160 tries of a second each."""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `failing_calls.c`, for LD_PRELOAD."""
    if not sys.platform.startswith("linux") or (compiler := shutil.which("cc")) is None:
        pytest.skip("the calls are made to fail by a library for Linux, which cc compiles")
    library = tmp_path_factory.mktemp("shim") / "failing_calls.so"
    source = Path(__file__).with_name("failing_calls.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def tries(shim: Path, folder: Path, numbers: dict[str, int], *fault: str) -> list[dict[str, object]]:
    """What came of each try; nothing may be wrong about any."""
    asked = [f"{command}:{number}" for command, number in numbers.items()]
    finished = subprocess.run(
        [sys.executable, "-m", "tests.faults.every_call", str(folder), *asked, *fault],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "LD_PRELOAD": str(shim)},
    )
    assert finished.returncode == 0, finished.stderr
    found = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [told for told in found if told["wrong"]] == [], finished.stderr
    return found


@pytest.mark.slow
def test_where_calls_of_every_kind_fail_each_command_says_so_or_ends_well_and_a_rerun_completes_it(
    shim: Path, tmp_path: Path
) -> None:
    found = tries(shim, tmp_path, SOME)
    assert {told["command"] for told in found} == SOME.keys()
    assert {told["kind"] for told in found} >= {*KINDS} - {"mmap"}  # today nothing maps a file
    assert {told["code"] for told in found} == {0, 1, 2}


@pytest.mark.slow
def test_on_a_file_system_without_links_collecting_and_encoding_give_the_same_bytes(shim: Path, tmp_path: Path) -> None:
    for told in tries(shim, tmp_path, {"collect": 1, "encode": 1}, "link:EPERM"):
        assert (told["code"], told["kind"], told["stays"]) == (0, "link", True)
