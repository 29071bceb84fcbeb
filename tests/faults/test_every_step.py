"""kill -9 of the committing process behind every step that it announces: what is left is whole, and a rerun completes it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import worldmodel_v
from tests.faults.every_step import STAGES
from worldmodel_v.steps import Step

FINE = {"begin": 0, "killed": -9, "whole": 0, "finished": 0, "same": 0}
"""What becomes of one kill: the run died of it, left nothing torn, was completed, and gave what an unbroken run gives."""


def kills(stage: str, folder: Path, stride: int) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "tests.faults.every_step", stage, str(folder), str(stride)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert finished.returncode == 0, finished.stderr
    found = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [kill for kill in found if not FINE.items() <= kill.items()] == [], finished.stderr
    return found


@pytest.mark.parametrize(("stage", "stride"), [("collect", 6), ("recover", 4), ("encode", 8), ("train", 20)])
def test_killed_behind_some_of_its_steps_a_stage_loses_nothing(stage: str, stride: int, tmp_path: Path) -> None:
    assert len(kills(stage, tmp_path, stride)) >= 4


@pytest.mark.slow
def test_killed_behind_every_step_no_stage_loses_anything(tmp_path: Path) -> None:
    reached = set()
    for stage in STAGES:
        (tmp_path / stage).mkdir()
        found = kills(stage, tmp_path / stage, 1)
        assert [kill["number"] for kill in found] == list(range(len(found)))
        reached |= {kill["step"] for kill in found}
    assert reached == {step.name for step in Step}


def test_every_step_that_has_a_name_is_announced_in_the_code() -> None:
    announced = set()
    for file in Path(worldmodel_v.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reached":
                announced.add(ast.unparse(node.args[0]).removeprefix("Step."))
    assert announced - {"step"} == {step.name for step in Step}
