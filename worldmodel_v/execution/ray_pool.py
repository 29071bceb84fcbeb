"""A bounded, retrying map over Ray actors.

One loop serves collection and encoding. It hands out tasks lazily, at most two in flight for each worker, so memory stays flat,
however many tasks there are. Results come back as bytes, in order of completion. Workers write nothing, so a task that ran
twice (Ray retries, a worker lost after finishing) leaves no trace. The object stores of all nodes together hold, for each
worker, at most `TASKS_IN_FLIGHT_PER_WORKER` tasks and as many results, plus what Ray, which frees once a second, still holds.

Tasks go only to workers that have started. If a node is gone for good, its replacement workers wait for a node that may never
come, and the other workers run the tasks. Rejected: Ray's own `max_task_retries`, which hides which attempt produced a result;
and Ray Data, whose streaming executor has no hook for a single committer.

A worker whose memory has grown by more than `max_growth_bytes` since its first task is replaced between two tasks, and so is
one with so many more open files that half of those it may have are gone. So an environment may leak memory or descriptors,
however long a run is.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic

from worldmodel_v.errors import ClusterNotUsable, EpisodeFailed, WorkerLost
from worldmodel_v.execution.connection import cluster, require_local_ray
from worldmodel_v.execution.executor import ATTEMPTS, Failure, Run, Task
from worldmodel_v.execution.in_flight import Hand, HandedOut, Queue
from worldmodel_v.execution.metrics import exported
from worldmodel_v.execution.ray_errors import first_line, lack_of_a_module, our_error
from worldmodel_v.execution.settings import WorkerSettings
from worldmodel_v.execution.worker import WORKER_ENVIRONMENT, Worker, code_sha256, require_code
from worldmodel_v.own_modules import folder
from worldmodel_v.progress import Progress
from worldmodel_v.steps import Step, reached
from worldmodel_v.telemetry import Tally

TASKS_IN_FLIGHT_PER_WORKER = 2
"""A worker runs the second while the first one's result travels; the last tasks wait for a worker that is free."""

SECONDS_BETWEEN_LOOKS = 1.0
"""How often a run that waits looks whether its local Ray still lives, and reminds Ray's agents of its gauges."""

SECONDS_UNTIL_RAY_IS_DEAD = 0.5
"""A worker may be known to be dead a moment before the raylet that took it along."""

SECONDS_BETWEEN_WARNINGS = 20.0
"""How often a run warns while it has no worker."""

SECONDS_WITHOUT_WORKERS = 1200.0
"""How long a run waits for a worker: a preempted node is replaced within minutes."""


class RayPool:
    """An `Executor` of Ray workers, which live as long as one map. It replaces dead workers and gives their tasks to others."""

    def __init__(self, settings: WorkerSettings, *, apart: bool = False) -> None:
        """With `apart`, a worker has one task in flight, so that a Failure's seconds count that task alone."""
        self._settings = settings
        self._in_flight_per_worker = 1 if apart else TASKS_IN_FLIGHT_PER_WORKER

    def try_tasks(
        self,
        setup: Callable[[], Run[Task]],
        tasks: Iterable[Task],
        *,
        attempts: int,
        progress: Progress,
        tally: Tally,
    ) -> Generator[tuple[Task, bytes | Failure]]:
        """As `Executor` says, and raises ClusterNotUsable if there is no cluster to run on."""
        with (
            cluster(self._settings, progress),
            exported(tally),
            contextlib.closing(_Pool(setup, self._settings, progress, tally, attempts, self._in_flight_per_worker)) as pool,
        ):
            yield from pool.map(iter(tasks))


class _Pool(Generic[Task]):
    """The workers, whether started or starting, and the tasks in flight."""

    def __init__(
        self,
        setup: Callable[[], Run[Task]],
        settings: WorkerSettings,
        progress: Progress,
        tally: Tally,
        attempts: int,
        in_flight: int,
    ) -> None:
        self._setup = functools.partial(_with_code, code_sha256(), setup)
        self._settings, self._progress, self._tally = settings, progress, tally
        self._attempts, self._in_flight_per_worker = attempts, in_flight
        self._workers: list[Hand] = []
        self._starting: dict[Any, Hand] = {}
        """The reference that answers when a worker has started -> the worker."""
        self._in_flight: dict[Any, HandedOut[Task]] = {}
        """By the result's reference, in the order in which they were handed out."""
        self._failed_starts = 0
        for _ in range(settings.num_workers):
            self._start_worker()

    def map(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, bytes | Failure]]:
        queue = Queue(tasks)
        self._hand_out(queue)
        while self._in_flight or queue.holds(1):
            done = self._take_one_that_is_done(queue)
            self._hand_out(queue)
            self._measure()
            if done is not None:
                reached(Step.RESULT_RECEIVED)
                yield done
        if queue.error is not None:
            raise queue.error

    def close(self) -> None:
        import ray

        for worker in self._workers:
            ray.kill(worker.actor, no_restart=True)
        self._workers.clear()
        self._in_flight.clear()
        self._measure()

    def _measure(self) -> None:
        self._tally.measure(tasks_in_flight=len(self._in_flight), workers=sum(worker.has_started for worker in self._workers))

    def _event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        self._progress.event(name, message, warning=warning, stage=self._tally.stage, **facts)

    def _hand_out(self, queue: Queue[Task]) -> None:
        """Give each worker that has started a task, and a second one while there are enough for all workers."""
        for worker in [worker for worker in self._workers if worker.leaks and not worker.load]:
            if queue.holds(1):
                self._replace(worker, None)
        for load in range(self._in_flight_per_worker):
            for worker in self._workers:
                ready = worker.has_started and not worker.leaks and worker.load == load
                if ready and queue.holds(len(self._workers) if load else 1):
                    require_local_ray()
                    handed_out = HandedOut(*queue.pop(), worker)
                    self._in_flight[worker.actor.run.remote(handed_out.task)] = handed_out
                    worker.load += 1

    def _take_one_that_is_done(self, queue: Queue[Task]) -> tuple[Task, bytes | Failure] | None:
        """Wait for a result, or for a worker to start or to die; return a task that is done or given up, and its outcome."""
        import ray

        reference = self._wait()
        if reference in self._starting:
            self._welcome(reference)
            return None
        handed_out = self._in_flight[reference]
        task, worker = handed_out.task, handed_out.worker
        try:
            result, leaks = ray.get(reference)
            worker.leaks |= leaks
            return self._failed(handed_out, queue, result) if isinstance(result, EpisodeFailed) else (task, result)
        except ray.exceptions.RayTaskError as error:
            raise our_error(error) from error
        except ray.exceptions.RayError as error:
            require_local_ray(within=SECONDS_UNTIL_RAY_IS_DEAD)
            self._replace(worker, error)
            if reference == worker.died_at:
                return self._failed(handed_out, queue, error)
            queue.put_back(task, handed_out.attempt)
        finally:
            del self._in_flight[reference]
            worker.load -= 1
        return None

    def _wait(self) -> Any:
        """The reference of the next result or started worker.

        Raises ClusterNotUsable if no worker has run for too long, and WorkerLost if the local Ray is dead.
        """
        import ray

        waited = 0.0
        while True:
            if (done := self._next_within(SECONDS_BETWEEN_WARNINGS)) is not None:
                return done
            waited += SECONDS_BETWEEN_WARNINGS
            if not self._in_flight:
                total, free = (of.get("CPU", 0) for of in (ray.cluster_resources(), ray.available_resources()))
                message = f"no worker has started for {waited:g} s; the cluster has {total:g} CPUs, {free:g} of them free"
                if waited >= SECONDS_WITHOUT_WORKERS:
                    raise ClusterNotUsable(
                        message, remedy="add nodes, then run the same command again: what is committed is kept"
                    )
                facts = {"waited_seconds": waited, "cpus": total, "free_cpus": free}
                self._event("waiting_for_node", f"{message}; waiting for one to start, or for a node", warning=True, **facts)

    def _next_within(self, seconds: float) -> Any:
        """The reference of the next result or started worker; None if there is none for so long."""
        import ray

        give_up = time.monotonic() + seconds
        while True:
            left = max(give_up - time.monotonic(), 0.0)
            done, _ = ray.wait([*self._in_flight, *self._starting], num_returns=1, timeout=min(left, SECONDS_BETWEEN_LOOKS))
            require_local_ray()
            self._tally.remind()
            if done or not left:
                return done[0] if done else None

    def _welcome(self, reference: Any) -> None:
        """Note that a worker has started, or replace one that failed to start."""
        import ray

        worker = self._starting.pop(reference)
        try:
            worker.host, worker.pid = ray.get(reference)
        except ray.exceptions.RayError as error:
            require_local_ray(within=SECONDS_UNTIL_RAY_IS_DEAD)
            self._failed_starts += 1
            if lack := lack_of_a_module(error):
                raise lack from error
            if self._failed_starts >= ATTEMPTS:
                raise WorkerLost(
                    f"{self._failed_starts} workers in turn died before their first task ({first_line(error)})",
                    remedy="look for lack of memory on the nodes; what is committed is kept, and the same command continues",
                ) from error
            self._replace(worker, error)
        else:
            worker.has_started = True
            self._failed_starts = 0
            self._event("worker_started", f"a worker started ({worker.name})", host=worker.host, pid=worker.pid)

    def _failed(self, handed_out: HandedOut[Task], queue: Queue[Task], error: Exception) -> tuple[Task, Failure] | None:
        """Put back a task whose attempt failed, or whose worker died; return its Failure if that was the last attempt."""
        task, attempt, died = handed_out.task, handed_out.attempt, not isinstance(error, EpisodeFailed)
        reason = f"a worker died ({first_line(error)})" if died else str(error)
        if attempt < self._attempts:
            self._tally.count(retries=1)
            message = f"{task} is given to another worker" if died else f"{reason}; {task} is tried again"
            facts = {"task": str(task), "attempt": attempt + 1, "reason": first_line(error) if died else reason}
            self._event("task_retried", f"{message} (attempt {attempt + 1})", warning=True, **facts)
            queue.put_back(task, attempt + 1)
            return None
        seconds = time.monotonic() - handed_out.at
        if isinstance(error, EpisodeFailed):
            return task, Failure(error=error, reason=reason, attempts=attempt, seconds=seconds)
        lost = WorkerLost(
            f"{task}: given to {attempt} workers, each of which died ({first_line(error)})",
            remedy="look for lack of memory or a crash in the environment; what is committed is kept, and the same command "
            "continues",
        )
        return task, Failure(error=lost, reason=reason, attempts=attempt, seconds=seconds)

    def _replace(self, worker: Hand, error: Exception | None) -> None:
        """Replace a worker that is dead or unreachable (each of its tasks reports this), or that leaks."""
        import ray

        if worker in self._workers:
            worker.died_at = self._running(worker)
            self._workers.remove(worker)
            self._tell_of_replacement(worker, error)
            ray.kill(worker.actor, no_restart=True)
            self._start_worker()

    def _tell_of_replacement(self, worker: Hand, error: Exception | None) -> None:
        facts: dict[str, Any] = {"host": worker.host, "pid": worker.pid}
        if error is None:
            grown = f"a worker ({worker.name}) holds more and more memory or open files and is replaced"
            self._event("worker_replaced", grown, **facts)
        else:
            reason = first_line(error)
            self._event("worker_died", f"a worker died ({worker.name}: {reason})", warning=True, **facts, reason=reason)

    def _running(self, worker: Hand) -> Any:
        """The reference of the task that a dead worker was running: the first of its tasks without a result."""
        import ray

        for reference in [reference for reference, task in self._in_flight.items() if task.worker is worker]:
            try:
                ray.get(reference, timeout=0)
            except ray.exceptions.RayTaskError:  # this counts as a result too
                continue
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
        try:
            worker = Hand(ray.remote(**options)(Worker).remote(self._setup, folder(), self._settings.max_growth_bytes))
        except ImportError as error:  # through ray://, the head itself imports what it is sent
            raise lack_of_a_module(error) or error from error
        self._workers.append(worker)
        self._starting[worker.actor.ping.remote()] = worker


def _with_code(sha256: str, setup: Callable[[], Run[Task]]) -> Run[Task]:
    """In a worker: its setup, if it has the code of this package that the driver has."""
    require_code(sha256)
    return setup()
