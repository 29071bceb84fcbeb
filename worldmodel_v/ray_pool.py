"""A bounded, retrying map over Ray actors, and the connection to a cluster.

One loop serves collection and encoding. Tasks are handed out lazily, about two in flight for each worker, so memory stays
flat however many there are; results come back in order of completion as bytes; nothing is written on a worker, so a task
that ran twice (Ray retries, a worker lost after finishing) leaves no trace. Rejected: Ray's own `max_task_retries`, which
hides which attempt produced a result, and Ray Data, whose streaming executor has no hook for a single committer.
"""

import contextlib
import gc
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from worldmodel_v.errors import ClusterNotUsable, ConfigError, WorkerLost, WorldModelError, one_line
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
    with cluster(settings), contextlib.closing(_Pool(setup, settings, progress or Silent())) as pool:
        yield from pool.map(iter(tasks))


class _Pool(Generic[Task]):
    """The actors, the tasks in flight, and the attempts that each task has cost."""

    def __init__(self, setup: Callable[[], Run[Task]], settings: WorkerSettings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._setup = setup
        self._workers = [self._start_worker() for _ in range(settings.num_workers)]
        self._in_flight: dict[Any, tuple[Task, int, int]] = {}
        """The result's reference -> (task, worker's place, attempt)."""

    def map(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, bytes]]:
        import ray

        upcoming = _Lookahead(tasks, len(self._workers))
        for _ in range(TASKS_IN_FLIGHT_PER_WORKER):
            for place in range(len(self._workers)):
                self._submit_next(upcoming, place)
        while self._in_flight:
            (reference,), _ = ray.wait(list(self._in_flight), num_returns=1)
            if reference not in self._in_flight:
                continue
            task, place, attempt = self._in_flight.pop(reference)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise _our_error(error) from error
            except ray.exceptions.RayError as error:
                self._give_to_another(task, place, attempt, error)
                continue
            self._submit_next(upcoming, place)
            reached(Step.RESULT_RECEIVED)
            yield task, result

    def close(self) -> None:
        import ray

        for worker in self._workers:
            ray.kill(worker, no_restart=True)

    def _submit_next(self, upcoming: "_Lookahead[Task]", place: int) -> None:
        is_idle = all(busy != place for _, busy, _ in self._in_flight.values())
        if upcoming.has_next and (is_idle or upcoming.has_enough):
            self._submit(upcoming.pop(), place, attempt=1)

    def _submit(self, task: Task, place: int, attempt: int) -> None:
        self._in_flight[self._workers[place].run.remote(task)] = (task, place, attempt)

    def _give_to_another(self, task: Task, place: int, attempt: int, error: Exception) -> None:
        """Replace a dead worker (once, though each of its tasks reports the death) and submit the task again."""
        if attempt >= ATTEMPTS:
            raise WorkerLost(
                f"{task}: given to {attempt} workers, each of which died ({_first_line(error)}); look for lack of memory "
                "or a crash in the environment; what is committed is kept, and the same command continues"
            ) from error
        self._progress.say(f"a worker died ({_first_line(error)}); {task} is given to another (attempt {attempt + 1})")
        if not self._is_alive(place):
            self._workers[place] = self._start_worker()
        self._submit(task, place, attempt + 1)

    def _is_alive(self, place: int) -> bool:
        import ray

        try:
            ray.get(self._workers[place].ping.remote())
        except ray.exceptions.RayError:
            return False
        return True

    def _start_worker(self) -> Any:
        import ray

        options = {
            "num_cpus": 1,
            "num_gpus": self._settings.num_gpus_per_worker,
            "max_restarts": 0,
            "runtime_env": {"env_vars": WORKER_ENVIRONMENT},
        }
        return ray.remote(**options)(_Worker).remote(self._setup)


class _Lookahead(Generic[Task]):
    """An iterator that knows whether `enough` more items are to come."""

    def __init__(self, items: Iterator[Task], enough: int) -> None:
        self._items, self._enough = items, enough
        self._next: deque[Task] = deque()

    @property
    def has_next(self) -> bool:
        return self._holds(1)

    @property
    def has_enough(self) -> bool:
        return self._holds(self._enough)

    def pop(self) -> Task:
        return self._next.popleft()

    def _holds(self, number: int) -> bool:
        while len(self._next) < number:
            try:
                self._next.append(next(self._items))
            except StopIteration:
                return False
        return True


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
        """Answers if the actor is alive."""


def _announced(run: Run[Task], task: Task) -> bytes:
    reached(Step.TASK_TAKEN)
    result = run(task)
    reached(Step.TASK_DONE)
    return result


@contextlib.contextmanager
def cluster(settings: WorkerSettings) -> Iterator[None]:
    """A Ray connection for the time of a block: the caller's if there is one, else RAY_ADDRESS's or `address`'s, else local."""
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
        _require_resources(settings)
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
        _require_listener(address)
        with _signal_handlers_kept():
            ray.init(**options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterNotUsable(
            f"no Ray cluster at {address!r}: {_first_line(error)}; start one with `ray start --head`, or leave out --address "
            "(and RAY_ADDRESS) for a local one"
        ) from error


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Put the handlers of Ctrl-C and SIGTERM back: `ray.init` has a SIGTERM print a stack of addresses and abort."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _require_listener(address: str) -> None:
    """Raise OSError unless something listens at HOST:PORT or ray://HOST:PORT; `ray.init` itself would wait for ever."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def _require_resources(settings: WorkerSettings) -> None:
    """Raise ClusterNotUsable unless the cluster could ever hold all workers; Ray itself would wait for ever."""
    import ray

    total = ray.cluster_resources()
    for resource, each in (("CPU", 1.0), ("GPU", settings.num_gpus_per_worker)):
        wanted, there = settings.num_workers * each, total.get(resource, 0)
        if wanted > there:
            raise ClusterNotUsable(
                f"{settings.num_workers} workers of {each:g} {resource} need {wanted:g}, the cluster has {there:g}; "
                "ask for fewer workers, or add nodes"
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
