"""Clusters that are none, or not ours: named in seconds, where Ray itself waits for minutes or for ever."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

import worldmodel_v.jobs
from tests.commands import BIN, start
from tests.integration.test_cluster import COLLECT
from worldmodel_v.errors import ClusterNotUsable
from worldmodel_v.execution import WorkerSettings, connection
from worldmodel_v.execution.connection import cluster
from worldmodel_v.jobs import Jobs
from worldmodel_v.progress import Silent

WITHOUT_THE_PACKAGE = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "worldmodel_v":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
OF_ANOTHER_RAY = """
import importlib.abc, sys
class Older(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "ray.scripts":
            import ray
            ray.__version__ = "2.9.9"
sys.meta_path.insert(0, Older())
"""
NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}
PATIENT = {"RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "120", "GRPC_ENABLE_FORK_SUPPORT": "0"}
"""A head that starts a server for a ray:// client waits for it even on a busy machine, and does not kill it at its fork."""


@pytest.fixture
def silent() -> Iterator[str]:
    """Something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closing() -> Iterator[str]:
    """Something that hangs up at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                connection, _ = server.accept()
                goodbye = connection.recv(1) == b"!"
                connection.close()
                if goodbye:
                    return

        thread = threading.Thread(target=hang_up)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        with socket.create_connection(server.getsockname()) as connection:
            connection.sendall(b"!")
        thread.join()


@pytest.fixture
def unconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process counts as one without a Ray, though other tests may have left theirs to it."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connection, worldmodel_v.jobs):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 0.5)


@pytest.mark.usefixtures("impatient", "unconnected")
@pytest.mark.parametrize("what", ["silent", "closing"])
@pytest.mark.parametrize("how", ["HOST:PORT", "ray://", "auto"])
def test_where_something_else_listens(
    what: str, how: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = request.getfixturevalue(what)
    address = f"ray://{target}" if how == "ray://" else target
    if how == "auto":
        monkeypatch.setenv("RAY_ADDRESS", target)
    with (
        pytest.raises(ClusterNotUsable, match=f"no Ray cluster at '{address}': something else listens there; start one with"),
        cluster(WorkerSettings(num_workers=1, address="auto" if how == "auto" else address)),
    ):
        pass


def tries(monkeypatch: pytest.MonkeyPatch, *failures: str) -> list[dict[str, object]]:
    """The options of each call of `ray.init` to come; the first of them fail, a failure each."""
    calls: list[dict[str, object]] = []

    def init(**options: object) -> None:
        calls.append(options)
        if len(calls) <= len(failures):
            raise ConnectionAbortedError(f"Initialization failure from server:\nTraceback (…):\n{failures[len(calls) - 1]}")

    monkeypatch.setattr(ray, "init", init)
    return calls


STILLBORN = "RuntimeError: Starting Ray client server failed. See its log."


@pytest.mark.usefixtures("unconnected")
@pytest.mark.parametrize(("failure", "number"), [("RuntimeError: see its log", 1), (STILLBORN, 3)])
def test_a_client_server_that_cannot_start_a_driver(failure: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tries(monkeypatch, *[failure] * 9)
    expected = (
        f"a local Ray cannot start: ConnectionAbortedError: Initialization failure from server: {failure}; its logs are in"
    )
    with pytest.raises(ClusterNotUsable, match=expected), cluster(WorkerSettings(num_workers=1)):
        pass
    assert len(calls) == number


@pytest.mark.usefixtures("unconnected")
def test_a_local_ray_without_bash_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PATH", "")
    expected = r"^Ray starts its workers with bash, and PATH='' has none; add the folder of bash"
    with pytest.raises(ClusterNotUsable, match=expected), cluster(WorkerSettings(num_workers=1)):
        pass


@pytest.mark.usefixtures("unconnected")
@pytest.mark.parametrize("error", [KeyError("raylet"), AssertionError(), PermissionError(13, "Permission denied", "/tmp/ray")])
def test_a_local_ray_that_cannot_start_is_told_in_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    told = rf"{type(error).__name__}: [^\n]+; its logs are in [^\n]+"
    expected = rf"^a local Ray cannot start: {told}; mend the cause, or ask for 0 workers$"
    with pytest.raises(ClusterNotUsable, match=expected), cluster(WorkerSettings(num_workers=1)):
        pass


def test_a_driver_that_dies_as_it_is_forked_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tries(monkeypatch, STILLBORN, STILLBORN)
    connection._connect("local", WorkerSettings(num_workers=1), Silent())
    assert len(calls) == 3
    assert calls[0] == calls[1] == calls[2]


@pytest.mark.usefixtures("impatient")
def test_a_job_server_that_never_answers(silent: str) -> None:
    with pytest.raises(ClusterNotUsable, match=f"no Ray job server at http://{silent}: ReadTimeout: .*; on the head node: pip"):
        Jobs(f"http://{silent}")


@contextmanager
def head(folder: Path, customize: str = "", **environment: str) -> Iterator[tuple[str, str]]:
    """A cluster of one node whose Python begins with `customize`: its HOST:PORT, and its ray://HOST:PORT."""
    (folder / "python").mkdir(exist_ok=True)
    (folder / "python" / "sitecustomize.py").write_text(customize)
    port, client_port = free_ports(2)
    command = ("start", "--head", "--block", "--port", port, "--ray-client-server-port", client_port, "--num-cpus", 2)
    sizes = ("--object-store-memory", 100_000_000, "--include-dashboard", "false", "--temp-dir", folder / "ray")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "ray", *map(str, (*command, *sizes))],
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": str(folder / "python"), "RAY_USAGE_STATS_ENABLED": "0"} | PATIENT | environment,
            start_new_session=True,
        )
    try:
        give_up = time.monotonic() + 300
        while "Ray runtime started" not in (folder / "log").read_text():
            assert time.monotonic() < give_up, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}", f"ray://127.0.0.1:{client_port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def free_ports(number: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Path]:
    """A folder with a path that is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="wm-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def refused(*command: object, **environment: str) -> str:
    """What a command says that must be refused."""
    process = start(*command, "--quiet", **environment)
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    return errors


@pytest.mark.slow
def test_a_cluster_whose_nodes_lack_the_package(short: Path, tmp_path: Path, stamp_rollouts: Path, stamp_vae: Path) -> None:
    lack = (
        "a node of the cluster cannot import this package (ModuleNotFoundError: No module named 'worldmodel_v'); install "
        "worldmodel_v in the same version on every node"
    )
    with head(short, WITHOUT_THE_PACKAGE, **NO_TOKEN) as (address, client_address):
        collecting = ("wm-collect", "--workers", 1, *COLLECT)
        encoding = ("wm-encode", "--data", stamp_rollouts, "--vae", stamp_vae, "--workers", 1, "--device", "cpu")
        training = ("wm-train", "--data", stamp_rollouts, "--num-workers", 2, "--steps", 3, "--holdout-every", 4)
        for number, command in enumerate((collecting, encoding, (*training, "--batch-size", 16, "--device", "cpu"))):
            assert lack in refused(*command, "--out", tmp_path / str(number), "--address", address, **NO_TOKEN)
        assert "worldmodel_v" in refused(*collecting, "--out", tmp_path / "client", "--address", client_address, **NO_TOKEN)


@pytest.mark.slow
def test_a_cluster_with_other_code_of_the_package(short: Path, tmp_path: Path, stamp_rollouts: Path) -> None:
    package = short / "python" / "worldmodel_v"
    shutil.copytree(Path(worldmodel_v.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "preprocessing.py").open("a") as file:
        file.write("# another resizing\n")
    with head(short, **NO_TOKEN) as (address, _):
        collecting = ("wm-collect", "--workers", 1, *COLLECT)
        training = ("wm-train", "--data", stamp_rollouts, "--num-workers", 2, "--steps", 3, "--holdout-every", 4)
        for number, command in enumerate((collecting, (*training, "--batch-size", 16, "--device", "cpu"))):
            errors = refused(*command, "--out", tmp_path / str(number), "--address", address, **NO_TOKEN)
            assert f"the worker on {socket.gethostname()} has other code of worldmodel_v than the process" in errors
            assert f"({package}); install the same code on every node" in errors


@pytest.mark.slow
def test_a_cluster_of_another_ray(short: Path, tmp_path: Path) -> None:
    with head(short, OF_ANOTHER_RAY, **NO_TOKEN) as addresses:
        for number, address in enumerate(addresses):
            errors = refused(
                "wm-collect", "--workers", 1, *COLLECT, "--out", tmp_path / str(number), "--address", address, **NO_TOKEN
            )
            assert f"the Ray cluster at '{address}' is another than ours: " in errors
            assert "The cluster was started with: Ray: 2.9.9 Python: " in errors
            assert errors.endswith("; install the same\n")


@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token(short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    with head(short, **token) as (address, _):
        collecting = ("wm-collect", "--workers", 1, *COLLECT, "--address", address)
        errors = refused(*collecting, "--out", tmp_path / "without")
        assert "it asks for a token, as a head does whose user has a ~/.ray/auth_token; set RAY_AUTH_MODE=token and" in errors
        process = start(*collecting, "--out", tmp_path / "with", **token)
        _, errors = process.communicate()
        assert process.returncode == 0, errors


@pytest.mark.slow
def test_a_cluster_without_the_resources(short: Path, tmp_path: Path, stamp_rollouts: Path) -> None:
    with head(short, **NO_TOKEN) as (address, _):
        training = ("wm-train", "--data", stamp_rollouts, "--num-workers", 4, "--steps", 3, "--holdout-every", 4)
        errors = refused(*training, "--device", "cpu", "--out", tmp_path / "vae", "--address", address, **NO_TOKEN)
        assert "4 workers of 1 CPU need 4, the cluster has 2; ask for fewer workers, or add nodes" in errors
