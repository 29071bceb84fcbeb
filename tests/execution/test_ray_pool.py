"""Who gets which task, what is held meanwhile, and what happens when workers die or cannot start."""

import functools
import itertools
import os
import shutil
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builders import Sayings
from tests.cluster.namespaces import wait_until
from worldmodel_v.errors import ClusterNotUsable, OutputNotUsable, ShardDamaged, WorkerLost
from worldmodel_v.execution import RayPool, WorkerSettings, map_tasks, ray_pool
from worldmodel_v.execution.executor import ATTEMPTS
from worldmodel_v.execution.ray_pool import TASKS_IN_FLIGHT_PER_WORKER
from worldmodel_v.telemetry import Tally

PATIENCE_SECONDS = 300

ONE, TWO = (RayPool(WorkerSettings(num_workers=num_workers)) for num_workers in (1, 2))


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
    done = list(map_tasks(TWO, functools.partial(worker, tmp_path / "marker"), tasks))
    assert sorted(task for task, _ in done) == sorted(tasks)
    assert all(result == task.encode() for task, result in done)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("num_tasks", [0, 1, 2, 3, 7])
def test_every_task_is_done_once_however_few_there_are(num_tasks: int) -> None:
    tasks = [f"task {i}" for i in range(num_tasks)]
    done = map_tasks(TWO, functools.partial(worker, Path("unused")), tasks)
    assert sorted(task for task, _ in done) == tasks


@pytest.mark.usefixtures("local_ray")
def test_what_was_handed_out_before_the_tasks_fail_is_still_done() -> None:
    def tasks() -> Iterator[str]:
        yield from ("first", "second", "third")
        raise ShardDamaged("the fourth cannot be read")

    results = map_tasks(TWO, functools.partial(worker, Path("unused")), tasks())
    assert sorted(task for task, _ in itertools.islice(results, 3)) == ["first", "second", "third"]
    with pytest.raises(ShardDamaged, match="the fourth cannot be read"):
        next(results)


# Workers that die, or cannot start


def deadly() -> Callable[[str], bytes]:
    """A worker that dies of "poison"."""

    def run(task: str) -> bytes:
        time.sleep(0.05)
        if task == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        return task.encode()

    return run


@contextmanager
def taken(num_cpus: int) -> Iterator[None]:
    """Somebody else on the cluster holds so many CPUs."""
    import ray

    @ray.remote(num_cpus=num_cpus)
    class Holder:
        def ping(self) -> None:
            pass

    holder = Holder.remote()
    ray.get(holder.ping.remote())
    yield
    ray.kill(holder)


@pytest.mark.usefixtures("local_ray")
def test_a_task_that_kills_its_workers_is_given_up_and_those_behind_it_are_not_charged() -> None:
    sayings, tally = Sayings(), Tally("deeds", Path("out"))
    with pytest.raises(WorkerLost, match=f"poison: given to {ATTEMPTS} workers, each of which died"):
        list(map_tasks(ONE, deadly, ["poison", *"abcdef"], sayings, tally))
    retried = sayings.facts("task_retried")
    assert [(facts["stage"], facts["task"], facts["attempt"]) for facts in retried] == [
        ("deeds", "poison", attempt) for attempt in range(2, ATTEMPTS + 1)
    ]
    started, died = (
        [(facts["host"], facts["pid"]) for facts in sayings.facts(f"worker_{what}")] for what in ("started", "died")
    )
    assert died == started
    assert len(died) == len(set(died)) == ATTEMPTS
    assert [line.partition(" (")[0] for line in sayings.lines] == [
        *("a worker died", "poison is given to another worker") * (ATTEMPTS - 1),
        "a worker died",
    ]
    assert tally.values["retries"] == ATTEMPTS - 1
    assert (tally.values["tasks_in_flight"], tally.values["workers"]) == (0, 0)


@pytest.mark.usefixtures("local_ray")
def test_workers_that_cannot_start_hold_no_tasks() -> None:
    tasks = [f"task {i}" for i in range(9)]
    with taken(1):
        done = list(map_tasks(TWO, deadly, tasks))
    assert sorted(task for task, _ in done) == tasks


@pytest.mark.usefixtures("local_ray")
def test_a_cluster_without_room_for_any_worker_is_waited_for_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "SECONDS_BETWEEN_WARNINGS", 0.5)
    monkeypatch.setattr(ray_pool, "SECONDS_WITHOUT_WORKERS", 1.5)
    sayings = Sayings()
    expected = "no worker has started for 1.5 s; the cluster has 2 CPUs, 0 of them free; add nodes, then run the same"
    with taken(2), pytest.raises(ClusterNotUsable, match=expected):
        list(map_tasks(TWO, deadly, ["a"], sayings))
    waiting = "the cluster has 2 CPUs, 0 of them free; waiting for one to start, or for a node"
    assert [facts["waited_seconds"] for facts in sayings.facts("waiting_for_node")] == [0.5, 1.0]
    assert sayings.lines == [f"no worker has started for {seconds} s; {waiting}" for seconds in ("0.5", "1")]


@pytest.mark.usefixtures("local_ray")
def test_a_cluster_with_room_for_some_workers_is_used_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    sayings = Sayings()
    assert list(map_tasks(RayPool(WorkerSettings(num_workers=3)), deadly, ["a"], sayings)) == [("a", b"a")]
    lack = "3 workers of 1 CPU need 3, the cluster has 2"
    assert sayings.lines[0] == f"{lack}: 2 begin, the others wait for nodes to join"  # a busy machine says more
    with pytest.raises(
        ClusterNotUsable, match="1 worker of 1 GPU needs 1, the cluster has 0; ask for fewer workers, or add nodes"
    ):
        list(map_tasks(RayPool(WorkerSettings(num_workers=1, num_gpus_per_worker=1)), deadly, ["a"]))


@pytest.mark.usefixtures("local_ray")
def test_a_node_without_a_module_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = types.ModuleType("absent_there")
    absent.Worker = type("Worker", (ray_pool.Worker,), {"__module__": "absent_there"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "absent_there", absent)
    monkeypatch.setattr(ray_pool, "Worker", absent.Worker)
    expected = (
        r"a worker lacks the module absent_there \(ModuleNotFoundError: No module named 'absent_there'\); install it on every "
        r"node, or have its folder on their Python path \(wm-pipeline submit --working-dir sends one\), or do without workers"
    )
    with pytest.raises(ClusterNotUsable, match=expected):
        list(map_tasks(ONE, deadly, ["a"]))


# What is held meanwhile


def echo() -> Callable[[bytes], bytes]:
    return lambda task: task


@pytest.mark.usefixtures("local_ray")
def test_the_object_store_holds_the_tasks_in_flight_and_no_more_however_many_there_are() -> None:
    """Ray frees in batches, once a second, so a quick run is given that time now and then."""
    size, num_tasks = 1_000_000, 40
    bound = 1.01 * size * 2 * TASKS_IN_FLIGHT_PER_WORKER * 2
    done = map_tasks(TWO, echo, (bytes([i]) * size for i in range(num_tasks)))
    for number, (task, result) in enumerate(done):
        assert result == task
        if number % 10 == 9:
            wait_until(lambda: object_store_bytes() <= bound, PATIENCE_SECONDS, lambda: f"{object_store_bytes()} bytes")
    assert number == num_tasks - 1


@pytest.mark.usefixtures("local_ray")
def test_the_disk_of_rays_folder_is_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real, free, sayings = shutil.disk_usage, 50_000_000, Sayings()

    def usage(folder: Path) -> object:
        total = real(folder).total if free < 1e9 else 100 * free
        return type(real(folder))(total, total - free, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(
        OutputNotUsable, match=r"/session_[\w-]+: no disk space for Ray: 50 MB are free; free some space, or have Ray use"
    ):
        list(map_tasks(ONE, deadly, ["a"], sayings))
    free = 2_000_000_000
    assert list(map_tasks(ONE, deadly, ["a"], sayings)) == [("a", b"a")]
    (line,) = [line for line in sayings.lines if "the disk" in line]  # on a busy machine others say that Ray is slow
    assert ": the disk is 99% full, so that Ray spills nothing to it and fails if its object store (" in line


def object_store_bytes() -> int:
    """What the object stores of all nodes hold."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    return get_memory_info_reply(state).store_stats.object_store_bytes_used
