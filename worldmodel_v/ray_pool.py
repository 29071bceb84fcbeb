"""A bounded, retrying map over Ray actors, and the connection to a cluster.

One loop serves collection and encoding. Tasks are handed out lazily, at most two in flight for each worker, so memory stays
flat however many there are; results come back in order of completion as bytes; nothing is written on a worker, so a task
that ran twice (Ray retries, a worker lost after finishing) leaves no trace. The object stores of all nodes together hold
at most `TASKS_IN_FLIGHT_PER_WORKER` tasks and as many results for each worker, and what Ray, which frees once a second, has
not swept yet.

A task belongs to nobody until a worker has started: where a node is gone for good, its replacement workers wait for a node
that may never come, and the others do the work. Rejected: Ray's own `max_task_retries`, which hides which attempt produced
a result, and Ray Data, whose streaming executor has no hook for a single committer.
"""

import contextlib
import gc
import os
import shutil
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from worldmodel_v.errors import ClusterNotUsable, ConfigError, DiskFull, WorkerLost, WorldModelError, one_line
from worldmodel_v.interrupts import handlers_restored
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.steps import Step, reached

Task = TypeVar("Task")
Run = Callable[[Task], bytes]

TASKS_IN_FLIGHT_PER_WORKER = 2
"""A worker goes on with the second while the first one's result travels; the last tasks wait for whoever is free."""

ATTEMPTS = 4
"""How many workers a task may cost before the run gives up."""

CONNECT_SECONDS = 10.0
"""How long a cluster's address may take to answer."""

RAY_STOPS_SPILLING_AT = 0.95
"""The share of its disk from which Ray writes no more objects to it (its `local_fs_capacity_threshold`)."""

SMALLEST_FREE_BYTES = 256_000_000
"""Below this Ray's logs and sockets have no room either."""

SECONDS_BETWEEN_WARNINGS = 20.0
"""How often a run without any worker says so."""

SECONDS_WITHOUT_WORKERS = 1200.0
"""How long it waits for one: a preempted node is replaced within minutes."""

WORKER_ENVIRONMENT = {
    **{"OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"},
    # glibc keeps freed memory for the next block instead of giving it back and faulting it in again (2^25 is its limit)
    **{"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)},
}


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Where the work runs."""

    num_workers: int
    """Ray actors, one CPU each; 0 runs in this process, without Ray."""

    address: str | None = None
    """The Ray cluster to join; None starts a local one, unless RAY_ADDRESS names a cluster."""

    num_gpus_per_worker: float = 0.0


def map_tasks(
    setup: Callable[[], Run[Task]], tasks: Iterable[Task], settings: WorkerSettings, progress: Progress | None = None
) -> Iterator[tuple[Task, bytes]]:
    """Yield (task, result) for every task, in order of completion.

    `setup` runs once in each worker and returns what turns a task into bytes; both must be picklable. A dead worker is
    replaced and its tasks are given to others. Raises what `run` raised if it is one of our errors, WorkerLost if a task
    has cost `ATTEMPTS` workers, ClusterNotUsable if there is no cluster to run on.
    """
    if settings.num_workers == 0:
        run = setup()
        for task in tasks:
            result = _announced(run, task)
            reached(Step.RESULT_RECEIVED)
            yield task, result
        return
    progress = progress or Silent()
    with cluster(settings, progress), contextlib.closing(_Pool(setup, settings, progress)) as pool:
        yield from pool.map(iter(tasks))


class _Pool(Generic[Task]):
    """The workers, those that have started among them, and the tasks in flight."""

    def __init__(self, setup: Callable[[], Run[Task]], settings: WorkerSettings, progress: Progress) -> None:
        self._setup, self._settings, self._progress = setup, settings, progress
        self._workers: list[_Hand] = []
        self._starting: dict[Any, _Hand] = {}
        """The reference that answers when a worker has started -> the worker."""
        self._in_flight: dict[Any, tuple[Task, _Hand, int]] = {}
        """The result's reference -> (task, worker, attempt), in the order in which they were handed out."""
        self._failed_starts = 0
        for _ in range(settings.num_workers):
            self._start_worker()

    def map(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, bytes]]:
        queue = _Queue(tasks)
        self._hand_out(queue)
        while self._in_flight or queue.holds(1):
            done = self._take_one_that_is_done(queue)
            self._hand_out(queue)
            if done is not None:
                reached(Step.RESULT_RECEIVED)
                yield done

    def close(self) -> None:
        import ray

        for worker in self._workers:
            ray.kill(worker.actor, no_restart=True)

    def _hand_out(self, queue: "_Queue[Task]") -> None:
        """Everybody who has started gets a task, and a second one while there are enough for all."""
        for load in range(TASKS_IN_FLIGHT_PER_WORKER):
            for worker in self._workers:
                if worker.has_started and worker.load == load and queue.holds(len(self._workers) if load else 1):
                    task, attempt = queue.pop()
                    self._in_flight[worker.actor.run.remote(task)] = (task, worker, attempt)
                    worker.load += 1

    def _take_one_that_is_done(self, queue: "_Queue[Task]") -> tuple[Task, bytes] | None:
        """Wait for a result, or for a worker to start or to die; returns the task and its result if it was that."""
        import ray

        reference = self._wait()
        if reference in self._starting:
            self._welcome(reference)
            return None
        task, worker, attempt = self._in_flight[reference]
        try:
            return task, ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise _our_error(error) from error
        except ray.exceptions.RayError as error:
            self._replace(worker)
            if reference == worker.died_at:
                attempt = self._next_attempt(task, attempt, error)
            queue.put_back(task, attempt)
        finally:
            del self._in_flight[reference]
            worker.load -= 1
        return None

    def _wait(self) -> Any:
        """The reference of the next result or started worker; raises ClusterNotUsable if nobody has worked for too long."""
        import ray

        waited = 0.0
        while True:
            done, _ = ray.wait([*self._in_flight, *self._starting], num_returns=1, timeout=SECONDS_BETWEEN_WARNINGS)
            if done:
                return done[0]
            waited += SECONDS_BETWEEN_WARNINGS
            if not self._in_flight:
                total, free = (of.get("CPU", 0) for of in (ray.cluster_resources(), ray.available_resources()))
                message = f"no worker could start for {waited:g} s; the cluster has {total:g} CPUs, {free:g} of them free"
                if waited >= SECONDS_WITHOUT_WORKERS:
                    raise ClusterNotUsable(f"{message}; add nodes, then run the same command again: what is committed is kept")
                self._progress.say(f"{message}; waiting for a node")

    def _welcome(self, reference: Any) -> None:
        """A worker has started, or failed to."""
        import ray

        worker = self._starting.pop(reference)
        try:
            ray.get(reference)
        except ray.exceptions.RayError as error:
            self._failed_starts += 1
            if "failed to import" in str(error):
                raise ClusterNotUsable(
                    f"a node of the cluster cannot import this package ({str(error).strip().splitlines()[-1]}); install "
                    "worldmodel_v in the same version on every node"
                ) from error
            if self._failed_starts >= ATTEMPTS:
                raise WorkerLost(
                    f"{self._failed_starts} workers in turn died before their first task ({_first_line(error)}); look for "
                    "lack of memory on the nodes; what is committed is kept, and the same command continues"
                ) from error
            self._replace(worker)
        else:
            worker.has_started = True
            self._failed_starts = 0

    def _next_attempt(self, task: Task, attempt: int, error: Exception) -> int:
        """Which attempt a task comes to at which a worker died; raises WorkerLost if it was the last."""
        if attempt >= ATTEMPTS:
            raise WorkerLost(
                f"{task}: given to {attempt} workers, each of which died ({_first_line(error)}); look for lack of memory "
                "or a crash in the environment; what is committed is kept, and the same command continues"
            ) from error
        self._progress.say(f"a worker died ({_first_line(error)}); {task} is given to another (attempt {attempt + 1})")
        return attempt + 1

    def _replace(self, worker: "_Hand") -> None:
        """Start a worker for one that is dead or out of reach; each of its tasks reports the loss itself."""
        import ray

        if worker in self._workers:
            worker.died_at = self._running(worker)
            self._workers.remove(worker)
            ray.kill(worker.actor, no_restart=True)
            self._start_worker()

    def _running(self, worker: "_Hand") -> Any:
        """The task that a dead worker was at: the first of its tasks, by their references, that has no result."""
        import ray

        for reference in [reference for reference, (_, at, _) in self._in_flight.items() if at is worker]:
            try:
                ray.get(reference, timeout=0)
            except (ray.exceptions.RayError, TimeoutError):
                return reference
        return None

    def _start_worker(self) -> None:
        import ray

        options = {
            "num_cpus": 1,
            "num_gpus": self._settings.num_gpus_per_worker,
            "max_restarts": 0,
            "runtime_env": {"env_vars": WORKER_ENVIRONMENT},
        }
        worker = _Hand(ray.remote(**options)(_Worker).remote(self._setup))
        self._workers.append(worker)
        self._starting[worker.actor.ping.remote()] = worker


@dataclass(eq=False)
class _Hand:
    """A worker as the driver sees it."""

    actor: Any
    has_started: bool = False
    died_at: Any = None
    """The reference of the task at which it died, which alone is charged with the death."""

    load: int = 0
    """Tasks in flight."""


class _Queue(Generic[Task]):
    """Tasks to hand out, each with its attempt: first those that were put back, then the iterator's, taken when needed."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self._tasks = tasks
        self._next: deque[tuple[Task, int]] = deque()

    def holds(self, number: int) -> bool:
        """Whether at least so many tasks are to come."""
        while len(self._next) < number:
            try:
                self._next.append((next(self._tasks), 1))
            except StopIteration:
                return False
        return True

    def pop(self) -> tuple[Task, int]:
        return self._next.popleft()

    def put_back(self, task: Task, attempt: int) -> None:
        self._next.appendleft((task, attempt))


class _Worker:
    """The actor: sets up at its first task (so that a failing setup is an error, not a death), then runs task after task."""

    def __init__(self, setup: Callable[[], Run[Any]]) -> None:
        self._setup = setup
        self._run: Run[Any] | None = None

    def run(self, task: Any) -> bytes:
        if self._run is None:
            self._run = self._setup()
            gc.freeze()  # what Ray and numba loaded is never garbage: the collector need not walk through it again
        return _announced(self._run, task)

    def ping(self) -> None:
        """Answers when the actor has started."""


def _announced(run: Run[Task], task: Task) -> bytes:
    reached(Step.TASK_TAKEN)
    result = run(task)
    reached(Step.TASK_DONE)
    return result


@contextlib.contextmanager
def cluster(settings: WorkerSettings, progress: Progress | None = None) -> Iterator[None]:
    """A Ray connection for the time of a block: the caller's if there is one, else RAY_ADDRESS's or `address`'s, else local.

    Raises ClusterNotUsable if there is none, or it lacks the resources: without `progress` for any of the workers, with
    it for all of them, since then it is told that some of them wait for a node. Raises DiskFull if Ray's disk is full.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"workers need Ray, which is not installed ({error}); pip install ray, or ask for 0 workers"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        _connect(settings)
    try:
        _require_resources(settings, progress)
        _look_at_rays_disk(progress or Silent())
        yield
    finally:
        if ours:
            ray.shutdown()


def _connect(settings: WorkerSettings) -> None:
    import ray

    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"include_dashboard": False, "num_cpus": max(settings.num_workers, os.cpu_count() or 1)}
    try:
        require_listener(address)
        with handlers_restored():  # a SIGTERM would print a stack of addresses and abort
            ray.init(**options)
    except (OSError, ValueError, RuntimeError) as error:
        if "ersion mismatch" in str(error):
            versions = " ".join(str(error).split())
            raise ClusterNotUsable(
                f"the Ray cluster at {address!r} is another than ours: {versions}; install the same"
            ) from error
        raise ClusterNotUsable(
            f"no Ray cluster at {address!r}: {_first_line(error)}; start one with `ray start --head`, join this machine to it "
            "with `ray start --address` (or use ray://HOST:10001), or leave out --address and RAY_ADDRESS for a local one"
        ) from error


def require_listener(address: str) -> None:
    """Raise OSError unless something listens at HOST:PORT or SCHEME://HOST:PORT; Ray itself would wait for ever."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def _require_resources(settings: WorkerSettings, progress: Progress | None) -> None:
    """Raise ClusterNotUsable where Ray itself would wait for ever, or say which workers will wait."""
    import ray

    total = ray.cluster_resources()
    for resource, each in (("CPU", 1.0), ("GPU", settings.num_gpus_per_worker)):
        wanted, there = settings.num_workers * each, total.get(resource, 0)
        if wanted > there:
            lack = f"{settings.num_workers} workers of {each:g} {resource} need {wanted:g}, the cluster has {there:g}"
            if progress is None or there < each:
                raise ClusterNotUsable(f"{lack}; ask for fewer workers, or add nodes")
            progress.say(f"{lack}: {there // each:g} begin, the others wait for nodes to join")


def _look_at_rays_disk(progress: Progress) -> None:
    """Raise DiskFull, or warn, if Ray could not spill objects to the disk of its folder on this machine."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    folder = Path(node["ObjectStoreSocketName"]).parents[1]
    if not folder.exists():  # joined through ray://, the driver is no node
        return
    disk = shutil.disk_usage(folder)
    advice = "free some space, or have Ray use another disk (`ray start --temp-dir DIR`; a local Ray: RAY_TMPDIR=DIR)"
    if disk.free < SMALLEST_FREE_BYTES:
        raise DiskFull(f"{folder}: no disk space for Ray: {disk.free / 1e6:.0f} MB are free; {advice}")
    if (full := 1 - disk.free / disk.total) >= RAY_STOPS_SPILLING_AT:
        progress.say(
            f"{folder}: the disk is {full:.0%} full, so that Ray spills nothing to it and fails if its object store "
            f"({node['Resources'].get('object_store_memory', 0) / 1e9:.1f} GB) fills up; {advice}"
        )


def _our_error(error: Any) -> WorldModelError:
    """The error that a worker raised, as itself if it is ours, and named otherwise."""
    cause = error.cause
    if isinstance(cause, WorldModelError):
        return cause
    return WorldModelError(f"a worker failed with {one_line(cause)}; this is a defect, please report it")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
