"""kill -9 or Ctrl-C behind every step that a stage announces: what is left is whole, and a rerun completes it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import worldmodel_v
from tests.faults.every_step import STAGES
from worldmodel_v.steps import Step

KILLED = {"begin": 0, "stopped": -9, "whole": 0, "finished": 0, "same": 0}
"""What becomes of one kill: the run died of it, left nothing torn, was completed, and gave what an unbroken run gives."""

INTERRUPTED = {**KILLED, "stopped": 130, "left": 0}
"""The same of one Ctrl-C, which leaves no temporary file either."""

FINE = {"SIGKILL": KILLED, "SIGINT": INTERRUPTED}
SOME = {
    "SIGKILL": {
        "collect": 6,
        "linkless": 8,
        "recover": 4,
        "encode": 8,
        "select": 10,
        "train": 20,
        "sharp": 20,
        "eval": 21,
        "minari": 4,
        "pipeline": 80,
    },
    "SIGINT": {"collect": 12, "encode": 12, "train": 30, "minari": 4, "preview": 2},
}
EVERY = dict.fromkeys(STAGES, 1) | {"pipeline": 7}
"""A pipeline's steps are those of its stages."""


def stops(folder: Path, signal: str, strides: dict[str, int]) -> list[dict[str, object]]:
    asked = [f"{stage}:{stride}" for stage, stride in strides.items()]
    command = [sys.executable, "-m", "tests.faults.every_step", str(folder), signal, *asked]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert finished.returncode == 0, finished.stderr
    found = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [stop for stop in found if not FINE[signal].items() <= stop.items()] == [], finished.stderr
    return found


@pytest.mark.parametrize("signal", ["SIGKILL", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_stopped_behind_some_of_its_steps_no_stage_loses_anything(signal: str, tmp_path: Path) -> None:
    found = stops(tmp_path, signal, SOME[signal])
    assert {stop["stage"] for stop in found} == SOME[signal].keys()
    assert all(sum(stop["stage"] == stage for stop in found) >= 2 for stage in SOME[signal])


@pytest.mark.slow
@pytest.mark.parametrize("signal", FINE)
def test_stopped_behind_every_step_no_stage_loses_anything(signal: str, tmp_path: Path) -> None:
    found = stops(tmp_path, signal, EVERY)
    for stage, stride in EVERY.items():
        numbers = [stop["number"] for stop in found if stop["stage"] == stage]
        assert numbers == list(range(0, stride * len(numbers), stride))
    assert {stop["step"] for stop in found} == {step.name for step in Step}


def test_every_step_that_has_a_name_is_announced_in_the_code() -> None:
    announced = set()
    for file in Path(worldmodel_v.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reached":
                announced.add(ast.unparse(node.args[0]).removeprefix("Step."))
    assert announced - {"step"} == {step.name for step in Step}
