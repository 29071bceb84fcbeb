"""Who gets which task: nothing waits behind a slow worker while another is free."""

import functools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from worldmodel_v.ray_pool import WorkerSettings, map_tasks

PATIENCE_SECONDS = 60


def worker(marker: Path) -> Callable[[str], bytes]:
    """A worker to whom "wait" means until somebody has done "mark"."""

    def run(task: str) -> bytes:
        if task == "mark":
            marker.touch()
        give_up = time.monotonic() + PATIENCE_SECONDS
        while task == "wait" and not marker.exists():
            if time.monotonic() > give_up:
                raise TimeoutError("nobody made the mark")
            time.sleep(0.01)
        return task.encode()

    return run


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("before", [0, 1, 6])
def test_the_last_task_goes_to_whoever_is_free(tmp_path: Path, before: int) -> None:
    tasks = [*(f"task {i}" for i in range(before)), "wait", "short", "mark"]
    done = list(map_tasks(functools.partial(worker, tmp_path / "marker"), tasks, WorkerSettings(num_workers=2)))
    assert sorted(task for task, _ in done) == sorted(tasks)
    assert all(result == task.encode() for task, result in done)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("num_tasks", [0, 1, 2, 3, 7])
def test_every_task_is_done_once_however_few_there_are(num_tasks: int) -> None:
    tasks = [f"task {i}" for i in range(num_tasks)]
    done = map_tasks(functools.partial(worker, Path("unused")), tasks, WorkerSettings(num_workers=2))
    assert sorted(task for task, _ in done) == tasks
