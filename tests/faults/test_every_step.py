"""kill -9 or Ctrl-C behind every step that a stage announces: what is left is whole, and a rerun completes it."""

import ast
import json
from pathlib import Path

import pytest

import worldmodel_v
from tests.commands import run
from tests.faults import every_step
from tests.faults.every_step import BEGUN, STAGES, make_inputs, put_begun, record_unbroken
from worldmodel_v.steps import Step

KILLED = {"begin": 0, "stopped": -9, "whole": 0, "finished": 0}
"""What becomes of one kill: the run died of it, left nothing torn, and was completed, which gave what an unbroken run gives."""

INTERRUPTED = {**KILLED, "stopped": 130, "left": 0}
"""The same of one Ctrl-C, which leaves no temporary file either."""

FINE = {"SIGKILL": KILLED, "SIGINT": INTERRUPTED}
SOME = {
    **{"collect": 6, "linkless": 8, "recover": 4, "encode": 8, "select": 10, "train": 20, "sharp": 20},
    **{"eval": 21, "minari": 4, "pipeline": 80},
}
EVERY = dict.fromkeys(STAGES, 1) | {"pipeline": 7}
"""A pipeline's steps are those of its stages."""


def stops(folder: Path, signal: str, strides: dict[str, int]) -> list[dict[str, object]]:
    asked = [f"{stage}:{stride}" for stage, stride in strides.items()]
    printed, errors = run(Path(every_step.__file__), folder, signal, *asked, PYTHONPATH=str(Path(__file__).parents[2]))
    found = [json.loads(line) for line in printed.splitlines()]
    assert [stop for stop in found if not FINE[signal].items() <= stop.items()] == [], errors
    for stage, stride in strides.items():
        numbers = [(stop["number"], stop["of"]) for stop in found if stop["stage"] == stage]
        number_of_steps = numbers[0][1]
        assert numbers == [(number, number_of_steps) for number in range(0, number_of_steps, stride)]
        assert len(numbers) >= 2
    return found


def test_killed_behind_some_of_its_steps_no_stage_loses_anything(tmp_path: Path) -> None:
    found = stops(tmp_path, "SIGKILL", SOME)
    assert {stop["stage"] for stop in found} == SOME.keys()


@pytest.mark.slow
@pytest.mark.parametrize("signal", FINE)
@pytest.mark.parametrize("stage", EVERY)
def test_stopped_behind_every_step_no_stage_loses_anything(stage: str, signal: str, tmp_path: Path) -> None:
    stops(tmp_path, signal, {stage: EVERY[stage]})


@pytest.mark.slow
def test_those_are_all_the_steps_that_have_a_name(tmp_path: Path) -> None:
    found: set[str] = set()
    for name, stride in EVERY.items():
        (folder := tmp_path / name).mkdir()
        make_inputs(STAGES[name], folder)
        STAGES[name].begin(folder / BEGUN)
        put_begun(folder, folder / "unbroken")
        announced, _ = record_unbroken(STAGES[name], folder / "unbroken")
        found.update(announced[::stride])
    assert found == {step.name for step in Step}


def test_every_step_that_has_a_name_is_announced_in_the_code() -> None:
    announced = set()
    for file in Path(worldmodel_v.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reached":
                announced.add(ast.unparse(node.args[0]).removeprefix("Step."))
    assert announced - {"step"} == {step.name for step in Step}
