"""The connection to a Ray cluster, joined or started. It fails within seconds where Ray would wait forever."""

import atexit
import contextlib
import importlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worldmodel_v.errors import ClusterNotUsable, OutputNotUsable, PackageMissing, WorkerLost
from worldmodel_v.execution.ray_errors import ends, first_line
from worldmodel_v.execution.settings import WorkerSettings
from worldmodel_v.execution.watcher import watched
from worldmodel_v.interrupts import handlers_restored
from worldmodel_v.own_modules import folder
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.surface import option
from worldmodel_v.words import counted

CONNECT_SECONDS = 10.0
"""How long a cluster's address may take to answer."""

SECONDS_BETWEEN_TRIES = 0.05

SERVERS = ("raylet", "gcs_server")
"""The processes that a Ray does nothing without, as Ray calls them."""

ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""What we ask a cluster's head before Ray joins it."""

TRIES_FOR_A_DRIVER = 3
"""How often we ask a head through ray:// to start a driver: a few in a hundred die when they fork (Ray's issue 63202)."""

STILLBORN = "Starting Ray client server failed"
"""The head's message if the driver died."""

RAY_STOPS_SPILLING_AT = 0.95
"""If its disk is this full, Ray writes no more objects to it (its `local_fs_capacity_threshold`)."""

SMALLEST_FREE_BYTES = 256_000_000
"""Below this, Ray's logs and sockets have no room either."""


@contextlib.contextmanager
def cluster(settings: WorkerSettings, progress: Progress | None = None) -> Iterator[None]:
    """A Ray connection for the duration of a block: the caller's if there is one, else to `address` or RAY_ADDRESS, else local.

    Raises ClusterNotUsable if there is no cluster, or if it lacks resources. Without `progress`, it must have room for all
    workers. With `progress`, room for one is enough: the others wait for a node, which `progress` reports.
    Raises OutputNotUsable if Ray's disk is full.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # one Python a core, none with the workers' environment
    try:
        import ray
    except ImportError as error:
        raise PackageMissing(
            f"workers need Ray, which is not installed ({error})", remedy="pip install ray, or ask for 0 workers"
        ) from error
    leave_the_terminal_as_it_is()
    with contextlib.nullcontext() if ray.is_initialized() else _connected(settings, progress or Silent()):
        _require_resources(settings, progress)
        _look_at_rays_disk(progress or Silent())
        _say_what_is_joined(progress or Silent())
        yield


def require_local_ray(*, within: float = 0.0) -> None:
    """Raise WorkerLost if this process has started a Ray whose raylet or GCS server is dead, or dies `within` seconds.

    Such a Ray never recovers: no node can join it. Ray itself would wait for ever, or end this process without a word as soon
    as it sends or takes anything large. So call this first. The raylet ends itself if one of its agents dies. Of a cluster
    that was joined, this says nothing and waits for nothing: there, nodes come and go.
    """
    give_up = time.monotonic() + within
    while (end := end_of_local_ray()) is None and has_local_ray() and time.monotonic() < give_up:
        time.sleep(SECONDS_BETWEEN_TRIES)
    if end is not None:
        raise WorkerLost(
            f"the local Ray is lost: its {end}",
            remedy="look for lack of memory (the kernel's log names what it killed); what is committed is kept, and the same "
            "command continues",
        )


def has_local_ray() -> bool:
    """Whether this process has started a Ray."""
    from ray._private import worker

    return worker._global_node is not None and bool(worker._global_node.all_processes)


def end_of_local_ray() -> str | None:
    """Which server of a Ray that this process has started is dead, and how it ended; None if there is none."""
    from ray._private import worker

    for name, process in worker._global_node.dead_processes() if has_local_ray() else ():
        if name in SERVERS:
            code = process.returncode
            return f"{name} was killed by signal {-code}" if code < 0 else f"{name} left, as it does without its agents"
    return None


@contextlib.contextmanager
def _connected(settings: WorkerSettings, progress: Progress) -> Iterator[None]:
    """A connection of our own. A local Ray ends with the block, or with this process."""
    import ray

    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    with watched() if address == "local" else contextlib.nullcontext():
        try:
            _connect(address, settings, progress)
            yield
        finally:
            ray.shutdown()


def _connect(address: str, settings: WorkerSettings, progress: Progress) -> None:
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        if shutil.which("bash") is None:  # Ray would wait for its workers for ever
            raise ClusterNotUsable(
                f"Ray starts its workers with bash, and PATH={os.environ.get('PATH', '')!r} has none",
                remedy="add the folder of bash to PATH (often /usr/bin), install bash, or ask for 0 workers",
            )
        _have_a_token()
        options |= {"include_dashboard": False, "num_cpus": max(settings.num_workers, os.cpu_count() or 1)}
    if folder() is not None and not address.startswith("ray://"):
        options["job_config"] = _without_this_folder()
    try:
        _require_answer(address)
        _init(options, progress)
    except Exception as error:
        if "ersion mismatch" in str(error):
            versions = " ".join(str(error).split())
            raise ClusterNotUsable(
                f"the Ray cluster at {address!r} is another than ours: {versions}", remedy="install the same"
            ) from error
        if address == "local" and ("AF_UNIX" in str(error) or isinstance(error, UnicodeError)):
            raise ClusterNotUsable(
                f"a local Ray cannot make its sockets in the temporary folder: {first_line(error)}",
                remedy="set RAY_TMPDIR to a folder with a short name in ASCII, such as /tmp",
            ) from error
        if address == "local":
            raise ClusterNotUsable(
                f"a local Ray cannot start: {type(error).__name__}: {ends(error)}; its logs are in "
                "/tmp/ray/session_latest/logs (or below RAY_TMPDIR)",
                remedy="mend the cause, or ask for 0 workers",
            ) from error
        raise ClusterNotUsable(
            f"no Ray cluster at {address!r}: {ends(error)}",
            remedy="start one with `ray start --head`, join this machine to it with `ray start --address` (or use "
            f"ray://HOST:10001), or leave out {option('address')} and RAY_ADDRESS for a local one",
        ) from error


def _without_this_folder() -> Any:
    """Keep Ray from putting our working directory first on the workers' path; it does so unless a directory travels to them."""
    from ray.job_config import JobConfig

    job_config = JobConfig()
    job_config._runtime_env_has_working_dir = lambda: True
    return job_config


def _have_a_token() -> None:
    """Write the token of a local cluster below the home, for this user alone, before Ray writes it for everybody to read. If it
    cannot be kept there, pass one to Ray's processes in the environment."""
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ or os.environ.get("RAY_AUTH_MODE") == "disabled":
        return
    try:
        file = Path.home() / ".ray" / "auth_token"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            with tempfile.NamedTemporaryFile(dir=file.parent) as new:  # which is made with the mode 0600
                new.write(secrets.token_hex(32).encode())
                new.flush()
                with contextlib.suppress(FileExistsError):  # another command was faster
                    os.link(new.name, file)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def leave_the_terminal_as_it_is() -> None:
    """Stop Ray's colorama from printing an escape sequence at the end of the process: rich would show it as a line of text."""
    initialise: Any = importlib.import_module("colorama.initialise")
    atexit.unregister(initialise.reset_all)
    initialise.atexit_done = True


def _init(options: dict[str, Any], progress: Progress) -> None:
    import ray

    for tries_left in reversed(range(TRIES_FOR_A_DRIVER)):
        try:
            with handlers_restored(), _warnings_are_no_errors():  # under Ray's, a SIGTERM would print addresses and abort
                ray.init(**options)
            return
        except ConnectionAbortedError as error:
            if STILLBORN not in str(error) or not tries_left:
                raise
            progress.say("the cluster's head lost the process that it had started for us; it is asked again")


@contextlib.contextmanager
def _warnings_are_no_errors() -> Iterator[None]:
    """Within the block, new processes do not have PYTHONWARNINGS: with `error`, Ray's own do not start."""
    told = os.environ.pop("PYTHONWARNINGS", None)
    try:
        yield
    finally:
        if told is not None:
            os.environ["PYTHONWARNINGS"] = told


def _require_answer(address: str) -> None:
    """Raise OSError if no Ray cluster that accepts us answers at HOST:PORT or ray://HOST:PORT; Ray would wait far longer."""
    scheme, _, target = address.rpartition("://")
    host, _, port = target.rpartition(":")
    if not host or scheme not in ("", "ray"):  # Ray itself finds the cluster, or refuses the address
        return
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        _require_cluster(target, is_client_server=scheme == "ray")


def _require_cluster(target: str, is_client_server: bool) -> None:
    """Call what every cluster's head answers, with or without a token; a client server answers "unimplemented"."""
    try:
        import grpc
    except ImportError:
        raise PackageMissing(
            "joining a Ray cluster needs grpcio, which is not installed", remedy="pip install 'worldmodel_v[cluster]'"
        ) from None

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
    """Raise ClusterNotUsable if Ray itself would wait forever, or report how many workers will wait."""
    import ray

    total = ray.cluster_resources()
    for resource, each in (("CPU", 1.0), ("GPU", settings.num_gpus_per_worker)):
        wanted, there = settings.num_workers * each, total.get(resource, 0)
        if wanted > there:
            workers, need = counted(settings.num_workers, "worker"), "needs" if settings.num_workers == 1 else "need"
            lack = f"{workers} of {each:g} {resource} {need} {wanted:g}, the cluster has {there:g}"
            if progress is None or there < each:
                raise ClusterNotUsable(lack, remedy="ask for fewer workers, or add nodes")
            progress.say(f"{lack}: {there // each:g} begin, the others wait for nodes to join")


def _look_at_rays_disk(progress: Progress) -> None:
    """Raise OutputNotUsable, or warn, if Ray could not spill objects to the disk of its folder on this machine."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    folder = Path(node["ObjectStoreSocketName"]).parents[1]
    if not folder.exists():  # joined through ray://, the driver is not on a node
        return
    disk = shutil.disk_usage(folder)
    advice = "free some space, or have Ray use another disk (`ray start --temp-dir DIR`; a local Ray: RAY_TMPDIR=DIR)"
    if disk.free < SMALLEST_FREE_BYTES:
        raise OutputNotUsable(f"no disk space for Ray: {disk.free / 1e6:.0f} MB are free", where=folder, remedy=advice)
    if (full := 1 - disk.free / disk.total) >= RAY_STOPS_SPILLING_AT:
        progress.say(
            f"{folder}: the disk is {full:.0%} full, so that Ray spills nothing to it and fails if its object store "
            f"({node['Resources'].get('object_store_memory', 0) / 1e9:.1f} GB) fills up; {advice}"
        )


def _say_what_is_joined(progress: Progress) -> None:
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    address, cpus = ray.get_runtime_context().gcs_address, ray.cluster_resources().get("CPU", 0)
    offering = [node for node in nodes if node["MetricsExportPort"] > 0]  # -1 without Ray's extra `default`
    metrics = [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in offering]
    more = f" and {len(metrics) - 1} more" if len(metrics) > 1 else ""
    message = f"Ray at {address}: {cpus:g} CPUs, nodes: {len(nodes)}" + (f", metrics: {metrics[0]}{more}" if metrics else "")
    progress.event("ray_joined", message, address=address, nodes=len(nodes), cpus=cpus, metrics=metrics)
