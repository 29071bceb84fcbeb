"""A bounded, retrying map over Ray actors, and the connection to a cluster.

One loop serves collection and encoding. Tasks are handed out lazily, at most two in flight for each worker, so memory stays
flat however many there are; results come back in order of completion as bytes; nothing is written on a worker, so a task
that ran twice (Ray retries, a worker lost after finishing) leaves no trace. The object stores of all nodes together hold
at most `TASKS_IN_FLIGHT_PER_WORKER` tasks and as many results for each worker, and what Ray, which frees once a second, has
not swept yet.

A task belongs to nobody until a worker has started: where a node is gone for good, its replacement workers wait for a node
that may never come, and the others do the work. Rejected: Ray's own `max_task_retries`, which hides which attempt produced
a result, and Ray Data, whose streaming executor has no hook for a single committer.

A worker whose memory has grown by more than `max_growth_bytes` since its first task is replaced between two tasks, so that an
environment that leaks fills no node however long a run is.
"""

import contextlib
import gc
import os
import shutil
import socket
import time
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from worldmodel_v.errors import (
    ClusterNotUsable,
    ConfigError,
    DiskFull,
    EpisodeFailed,
    WorkerLost,
    WorldModelError,
    one_line,
)
from worldmodel_v.interrupts import handlers_restored
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.steps import Step, reached
from worldmodel_v.telemetry import COUNTERS, GAUGES, Tally

Task = TypeVar("Task")
Run = Callable[[Task], bytes]

TASKS_IN_FLIGHT_PER_WORKER = 2
"""A worker goes on with the second while the first one's result travels; the last tasks wait for whoever is free."""

ATTEMPTS = 4
"""How often a task is tried before it is given up."""

CONNECT_SECONDS = 10.0
"""How long a cluster's address may take to answer."""

ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""What a cluster's head is asked before Ray is told to join it."""

TRIES_FOR_A_DRIVER = 3
"""How often a head is asked through ray:// to start a driver: a few in a hundred die at their fork (Ray's issue 63202)."""

STILLBORN = "Starting Ray client server failed"
"""What the head says then."""

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

    max_growth_bytes: int | None = None
    """How much more memory than after its first task a worker may hold before it is replaced by a fresh one; None: any."""


def refuse_idle_address(address: str | None, num_workers: int) -> None:
    """Raise ConfigError for a cluster that is named where no worker would be on it."""
    if address and not num_workers:
        raise ConfigError(
            f"--address {address}: without workers nothing is done on a cluster; ask for --workers, or leave it out"
        )


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A task that was given up."""

    error: EpisodeFailed | WorkerLost
    """How the last try ended."""

    reason: str
    """The same in few words."""

    attempts: int
    seconds: float
    """How long the last try took, from the moment at which it was handed out."""

    @property
    def died(self) -> bool:
        """Whether the last try ended with its worker."""
        return isinstance(self.error, WorkerLost)


def map_tasks(
    setup: Callable[[], Run[Task]],
    tasks: Iterable[Task],
    settings: WorkerSettings,
    progress: Progress | None = None,
    tally: Tally | None = None,
) -> Iterator[tuple[Task, bytes]]:
    """Yield (task, result) for every task, in order of completion.

    `setup` runs once in each worker and returns what turns a task into bytes; both must be picklable. A dead worker is
    replaced and its tasks are given to others. `tally` counts what happens here, and Ray's metrics show it. Raises what `run`
    raised if it is one of our errors, WorkerLost if a task has cost `ATTEMPTS` workers, ClusterNotUsable if there is no cluster
    to run on.
    """
    for task, outcome in try_tasks(setup, tasks, settings, progress, tally):
        if isinstance(outcome, Failure):
            raise outcome.error
        yield task, outcome


def try_tasks(
    setup: Callable[[], Run[Task]],
    tasks: Iterable[Task],
    settings: WorkerSettings,
    progress: Progress | None = None,
    tally: Tally | None = None,
    *,
    attempts: int = ATTEMPTS,
    apart: bool = False,
) -> Iterator[tuple[Task, bytes | Failure]]:
    """`map_tasks` that yields a Failure where a task ended in EpisodeFailed, or in its worker's death, at each of `attempts`.

    With `apart` a worker has one task in flight, so that a failure's seconds are the task's own. Other errors are raised.
    """
    progress, tally = progress or Silent(), tally or Tally("tasks", Path())
    if settings.num_workers == 0:
        run = setup()
        for task in tasks:
            outcome = _tried_here(run, task, attempts, progress, tally)
            reached(Step.RESULT_RECEIVED)
            yield task, outcome
        return
    in_flight = 1 if apart else TASKS_IN_FLIGHT_PER_WORKER
    with (
        cluster(settings, progress),
        _exported(tally),
        contextlib.closing(_Pool(setup, settings, progress, tally, attempts, in_flight)) as pool,
    ):
        yield from pool.map(iter(tasks))


def _tried_here(run: Run[Task], task: Task, attempts: int, progress: Progress, tally: Tally) -> bytes | Failure:
    attempt, start = 1, time.monotonic()
    while True:
        try:
            return _announced(run, task)
        except EpisodeFailed as error:
            if attempt >= attempts:
                return Failure(error=error, reason=str(error), attempts=attempt, seconds=time.monotonic() - start)
            attempt, start = attempt + 1, time.monotonic()
            tally.count(retries=1)
            message = f"{error}; {task} is tried again (attempt {attempt})"
            facts = {"stage": tally.stage, "task": str(task), "attempt": attempt, "reason": str(error)}
            progress.event("task_retried", message, warning=True, **facts)


class _Pool(Generic[Task]):
    """The workers, those that have started among them, and the tasks in flight."""

    def __init__(
        self,
        setup: Callable[[], Run[Task]],
        settings: WorkerSettings,
        progress: Progress,
        tally: Tally,
        attempts: int,
        in_flight: int,
    ) -> None:
        self._setup, self._settings, self._progress, self._tally = setup, settings, progress, tally
        self._attempts, self._in_flight_per_worker = attempts, in_flight
        self._workers: list[_Hand] = []
        self._starting: dict[Any, _Hand] = {}
        """The reference that answers when a worker has started -> the worker."""
        self._in_flight: dict[Any, _HandedOut[Task]] = {}
        """By the result's reference, in the order in which they were handed out."""
        self._failed_starts = 0
        for _ in range(settings.num_workers):
            self._start_worker()

    def map(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, bytes | Failure]]:
        queue = _Queue(tasks)
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

    def _hand_out(self, queue: "_Queue[Task]") -> None:
        """Everybody who has started gets a task, and a second one while there are enough for all."""
        for worker in [worker for worker in self._workers if worker.has_grown and not worker.load]:
            if queue.holds(1):
                self._replace(worker, None)
        for load in range(self._in_flight_per_worker):
            for worker in self._workers:
                ready = worker.has_started and not worker.has_grown and worker.load == load
                if ready and queue.holds(len(self._workers) if load else 1):
                    handed_out = _HandedOut(*queue.pop(), worker)
                    self._in_flight[worker.actor.run.remote(handed_out.task)] = handed_out
                    worker.load += 1

    def _take_one_that_is_done(self, queue: "_Queue[Task]") -> tuple[Task, bytes | Failure] | None:
        """Wait for a result, or for a worker to start or to die; returns a task that is done or given up, and its outcome."""
        import ray

        reference = self._wait()
        if reference in self._starting:
            self._welcome(reference)
            return None
        handed_out = self._in_flight[reference]
        task, worker = handed_out.task, handed_out.worker
        try:
            result, growth = ray.get(reference)
            worker.has_grown |= self._settings.max_growth_bytes is not None and growth > self._settings.max_growth_bytes
            return task, result
        except ray.exceptions.RayTaskError as error:
            ours = _our_error(error)
            if not isinstance(ours, EpisodeFailed):
                raise ours from error
            return self._failed(handed_out, queue, ours)
        except ray.exceptions.RayError as error:
            self._replace(worker, error)
            if reference == worker.died_at:
                return self._failed(handed_out, queue, error)
            queue.put_back(task, handed_out.attempt)
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
                facts = {"waited_seconds": waited, "cpus": total, "free_cpus": free}
                self._event("waiting_for_node", f"{message}; waiting for a node", warning=True, **facts)

    def _welcome(self, reference: Any) -> None:
        """A worker has started, or failed to."""
        import ray

        worker = self._starting.pop(reference)
        try:
            worker.host, worker.pid = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._failed_starts += 1
            if lack := lack_of_the_package(error):
                raise lack from error
            if self._failed_starts >= ATTEMPTS:
                raise WorkerLost(
                    f"{self._failed_starts} workers in turn died before their first task ({_first_line(error)}); look for "
                    "lack of memory on the nodes; what is committed is kept, and the same command continues"
                ) from error
            self._replace(worker, error)
        else:
            worker.has_started = True
            self._failed_starts = 0
            self._event("worker_started", f"a worker started ({worker.name})", host=worker.host, pid=worker.pid)

    def _failed(self, handed_out: "_HandedOut[Task]", queue: "_Queue[Task]", error: Exception) -> tuple[Task, Failure] | None:
        """Put a task back whose try has failed, or whose worker has died; returns its failure if that was the last try."""
        task, attempt, died = handed_out.task, handed_out.attempt, not isinstance(error, EpisodeFailed)
        reason = f"a worker died ({_first_line(error)})" if died else str(error)
        if attempt < self._attempts:
            self._tally.count(retries=1)
            message = f"{task} is given to another worker" if died else f"{reason}; {task} is tried again"
            facts = {"task": str(task), "attempt": attempt + 1, "reason": _first_line(error) if died else reason}
            self._event("task_retried", f"{message} (attempt {attempt + 1})", warning=True, **facts)
            queue.put_back(task, attempt + 1)
            return None
        seconds = time.monotonic() - handed_out.at
        if isinstance(error, EpisodeFailed):
            return task, Failure(error=error, reason=reason, attempts=attempt, seconds=seconds)
        lost = WorkerLost(
            f"{task}: given to {attempt} workers, each of which died ({_first_line(error)}); look for lack of memory "
            "or a crash in the environment; what is committed is kept, and the same command continues"
        )
        return task, Failure(error=lost, reason=reason, attempts=attempt, seconds=seconds)

    def _replace(self, worker: "_Hand", error: Exception | None) -> None:
        """Start a worker for one that is dead or out of reach, whose tasks each report the loss, or that has grown."""
        import ray

        if worker in self._workers:
            worker.died_at = self._running(worker)
            self._workers.remove(worker)
            self._tell_of_replacement(worker, error)
            ray.kill(worker.actor, no_restart=True)
            self._start_worker()

    def _tell_of_replacement(self, worker: "_Hand", error: Exception | None) -> None:
        facts: dict[str, Any] = {"host": worker.host, "pid": worker.pid}
        if error is None:
            grown = f"a worker ({worker.name}) holds more and more memory and is replaced"
            self._event("worker_replaced", grown, **facts)
        else:
            reason = _first_line(error)
            self._event("worker_died", f"a worker died ({worker.name}: {reason})", warning=True, **facts, reason=reason)

    def _running(self, worker: "_Hand") -> Any:
        """The task that a dead worker was at: the first of its tasks, by their references, that has no result."""
        import ray

        for reference in [reference for reference, task in self._in_flight.items() if task.worker is worker]:
            try:
                ray.get(reference, timeout=0)
            except ray.exceptions.RayTaskError:  # a result too
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
            worker = _Hand(ray.remote(**options)(_Worker).remote(self._setup))
        except ImportError as error:  # through ray://, the head itself looks at what it is sent
            raise lack_of_the_package(error) or error from error
        self._workers.append(worker)
        self._starting[worker.actor.ping.remote()] = worker


@dataclass(eq=False)
class _Hand:
    """A worker as the driver sees it."""

    actor: Any
    has_started: bool = False
    host: str | None = None
    pid: int | None = None
    died_at: Any = None
    """The reference of the task at which it died, which alone is charged with the death."""

    load: int = 0
    """Tasks in flight."""

    has_grown: bool = False
    """Whether it holds so much more memory than at first that it gets no further task."""

    @property
    def name(self) -> str:
        return f"process {self.pid} on {self.host}" if self.has_started else "at its start"


@dataclass(eq=False)
class _HandedOut(Generic[Task]):
    """A task in flight."""

    task: Task
    attempt: int
    worker: _Hand
    at: float = field(default_factory=time.monotonic)


class _Queue(Generic[Task]):
    """Tasks to hand out, each with its attempt: first those that were put back, then the iterator's, taken when needed."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self._tasks = tasks
        self._next: deque[tuple[Task, int]] = deque()
        self.error: Exception | None = None
        """What the iterator raised: there are no further tasks then, and those before are done first."""

    def holds(self, number: int) -> bool:
        """Whether at least so many tasks are to come."""
        while len(self._next) < number:
            try:
                self._next.append((next(self._tasks), 1))
            except StopIteration:
                return False
            except Exception as error:
                self.error = error
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
        self._bytes_at_first = 0

    def run(self, task: Any) -> tuple[bytes, int]:
        """The task's result, and by how many bytes this process has grown since its first task."""
        if self._run is None:
            self._run = self._setup()
            gc.freeze()  # what Ray and numba loaded is never garbage: the collector need not walk through it again
        result = _announced(self._run, task)
        self._bytes_at_first = self._bytes_at_first or _resident_bytes()
        return result, _resident_bytes() - self._bytes_at_first

    def ping(self) -> tuple[str, int]:
        """Answers, when the actor has started, on which host and as which process."""
        return socket.gethostname(), os.getpid()


def _resident_bytes() -> int:
    """This process's memory; 0 where the system has no /proc, so that no worker is replaced there."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _announced(run: Run[Task], task: Task) -> bytes:
    reached(Step.TASK_TAKEN)
    result = run(task)
    reached(Step.TASK_DONE)
    return result


@contextlib.contextmanager
def _exported(tally: Tally) -> Iterator[None]:
    """Within the block, Ray's metrics follow the tally: `ray_worldmodel_v_frames_total` and so on, by stage and directory.

    This process sends them to its node's agent, which offers them to Prometheus, every ten seconds and when it leaves the
    cluster (`RAY_metrics_report_interval_ms`). A driver that joined through ray:// has no such agent: nothing is offered.
    """
    from ray.util.metrics import Counter, Gauge

    tags = {"stage": tally.stage, "out": urllib.parse.quote(os.fsencode(tally.out.absolute()))}  # Ray takes ASCII alone
    keys = tuple(tags)
    counters = {
        name: Counter(f"worldmodel_v_{name}_total", text, keys).set_default_tags(tags) for name, text in COUNTERS.items()
    }
    gauges = {name: Gauge(f"worldmodel_v_{name}", text, keys).set_default_tags(tags) for name, text in GAUGES.items()}

    def export(name: str, change: int) -> None:
        if name in gauges:
            gauges[name].set(change)
        elif change > 0:  # Ray refuses 0
            counters[name].inc(change)

    for name in gauges:  # counters are told as they grow, also before, where a run joins a cluster twice
        export(name, tally.values[name])
    tally.export = export
    try:
        yield
    finally:
        tally.export = None


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
        _connect(settings, progress or Silent())
    try:
        _require_resources(settings, progress)
        _look_at_rays_disk(progress or Silent())
        _say_what_is_joined(progress or Silent())
        yield
    finally:
        if ours:
            ray.shutdown()


def _connect(settings: WorkerSettings, progress: Progress) -> None:
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"include_dashboard": False, "num_cpus": max(settings.num_workers, os.cpu_count() or 1)}
    try:
        _require_answer(address)
        _init(options, progress)
    except (OSError, ValueError, RuntimeError) as error:
        if "ersion mismatch" in str(error):
            versions = " ".join(str(error).split())
            raise ClusterNotUsable(
                f"the Ray cluster at {address!r} is another than ours: {versions}; install the same"
            ) from error
        if address == "local" and ("AF_UNIX" in str(error) or isinstance(error, UnicodeError)):
            raise ClusterNotUsable(
                f"a local Ray cannot make its sockets in the temporary folder: {_first_line(error)}; set RAY_TMPDIR to a "
                "folder with a short name in ASCII, such as /tmp"
            ) from error
        raise ClusterNotUsable(
            f"no Ray cluster at {address!r}: {_ends(error)}; start one with `ray start --head`, join this machine to it "
            "with `ray start --address` (or use ray://HOST:10001), or leave out --address and RAY_ADDRESS for a local one"
        ) from error


def _init(options: dict[str, Any], progress: Progress) -> None:
    import ray

    for tries_left in reversed(range(TRIES_FOR_A_DRIVER)):
        try:
            with handlers_restored():  # a SIGTERM would print a stack of addresses and abort
                ray.init(**options)
            return
        except ConnectionAbortedError as error:
            if STILLBORN not in str(error) or not tries_left:
                raise
            progress.say("the cluster's head lost the process that it had started for us; it is asked again")


def _require_answer(address: str) -> None:
    """Raise OSError unless a Ray cluster that lets us in answers at HOST:PORT or ray://HOST:PORT; Ray waits far longer."""
    scheme, _, target = address.rpartition("://")
    host, _, port = target.rpartition(":")
    if not host or scheme not in ("", "ray"):  # Ray itself finds the cluster, or refuses the address
        return
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        _require_cluster(target, is_client_server=scheme == "ray")


def _require_cluster(target: str, is_client_server: bool) -> None:
    """Ask what any cluster's head answers, with or without a token; a client server answers that it does not know."""
    import grpc

    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(ALIVE)(b"", timeout=CONNECT_SECONDS)
            answer = grpc.StatusCode.OK
        except grpc.RpcError as error:
            answer = error.code()
    if answer is grpc.StatusCode.UNAUTHENTICATED and os.environ.get("RAY_AUTH_MODE") != "token":
        raise ConnectionRefusedError(
            "it asks for a token, as a head does whose user has a ~/.ray/auth_token; set RAY_AUTH_MODE=token and have the same "
            "file here, or set RAY_AUTH_MODE=disabled wherever `ray start` runs"
        )
    expected = (grpc.StatusCode.UNIMPLEMENTED,) if is_client_server else (grpc.StatusCode.OK,)
    if answer not in (*expected, grpc.StatusCode.UNAUTHENTICATED):
        raise ConnectionError("something else listens there")


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


def _say_what_is_joined(progress: Progress) -> None:
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    address, cpus = ray.get_runtime_context().gcs_address, ray.cluster_resources().get("CPU", 0)
    metrics = [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in nodes]
    where = metrics[0] if len(metrics) == 1 else f"{metrics[0]} and {len(metrics) - 1} more"
    message = f"Ray at {address}: {cpus:g} CPUs, nodes: {len(nodes)}, metrics: {where}"
    progress.event("ray_joined", message, address=address, nodes=len(nodes), cpus=cpus, metrics=metrics)


def lack_of_the_package(error: BaseException) -> ClusterNotUsable | None:
    """What to raise for a worker's death if its node cannot import this package, which Ray tells in several ways."""
    if not any(sign in str(error) for sign in ("failed to import", "No module named")):
        return None
    return ClusterNotUsable(
        f"a node of the cluster cannot import this package ({str(error).strip().splitlines()[-1]}); install "
        "worldmodel_v in the same version on every node"
    )


def _our_error(error: Any) -> WorldModelError:
    """The error that a worker raised, as itself if it is ours, and named otherwise."""
    cause = error.cause
    if isinstance(cause, WorldModelError):
        return cause
    return WorldModelError(f"a worker failed with {one_line(cause)}; this is a defect, please report it")


def _ends(error: BaseException) -> str:
    """The first line and the last, where Ray puts a whole traceback of another process into a message."""
    first, last = _lines(error)[0], _lines(error)[-1]
    return first if first == last else f"{first} {last}"


def _first_line(error: BaseException) -> str:
    return _lines(error)[0]


def _lines(error: BaseException) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]
