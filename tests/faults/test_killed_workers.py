"""kill -9 of Ray workers behind every step that they announce, at every task: the run completes by itself, as if unbroken."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import Sayings
from tests.conftest import stamp_config
from tests.faults.deadly_worker import MARKS, DeadlyWorker
from tests.faults.every_step import SMALL, STAGES, dataset_content, make_inputs
from worldmodel_v.collection import collect, collector
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.execution import ray_pool
from worldmodel_v.progress import Progress
from worldmodel_v.steps import Step
from worldmodel_v.storage import open_dataset

TASKS = {
    "collect": ("shard 0 (episodes 0 to 1)", "shard 1 (episodes 2 to 3)", "shard 2 (episode 4)"),
    "encode": ("shard 0", "shard 1", "shard 2"),
}
STEPS_OF_A_TASK = [step.name for step in Step if step.name.startswith("TASK_")]


def collect_with_workers(out: Path, progress: Progress) -> object:
    return collect(stamp_config(out, **SMALL, workers=2), progress)


def encode_with_workers(out: Path, progress: Progress) -> object:
    paths = {"data": out.parent / "rollouts", "vae": out.parent / "vae"}
    return encode(EncodeConfig(**paths, out=out, device="cpu", workers=2), progress)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("stage", "run"),
    [("collect", collect_with_workers), ("encode", encode_with_workers)],
)
def test_workers_killed_at_every_task_cost_nothing(
    stage: str, run: Callable[[Path, Progress], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks, out, said = tmp_path / "marks", tmp_path / "out", Sayings()
    marks.mkdir()
    make_inputs(STAGES[stage], tmp_path)
    STAGES[stage].run(tmp_path / "unbroken")
    monkeypatch.setattr(ray_pool, "Worker", DeadlyWorker)
    monkeypatch.setattr(collector, "TRIES_TOGETHER", ray_pool.ATTEMPTS)  # each shard is to survive two deaths
    monkeypatch.setitem(ray_pool.WORKER_ENVIRONMENT, MARKS, str(marks))
    run(out, said)

    deaths = {mark.name for mark in marks.iterdir()}
    assert deaths == {f"{step} of {task}" for step, task in itertools.product(STEPS_OF_A_TASK, TASKS[stage])}
    tries = [line for line in said.lines if "is given to another worker (attempt " in line]
    assert len(tries) == len(set(tries)) == len(deaths)  # one each, though a result that was on its way may bear the blame
    assert dataset_content(out) == dataset_content(tmp_path / "unbroken")
    assert open_dataset(out).num_episodes == 5
