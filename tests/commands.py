"""Starting this package's commands, and the scripts of tests, in processes of their own.

A fresh interpreter imports torch, Ray and numba for two to six seconds before it does anything, so a command is a fork of a
server that has imported them (`tests.fork_server`), unless its environment says something that is read at an import.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TextIO

BIN = Path(sys.executable).parent
SERVER = Path(__file__).with_name("fork_server.py")
READ_AT_AN_IMPORT = ("PYTHON", "NUMBA", "OMP", "MKL", "OPENBLAS", "RAY", "GRPC", "HOME", "XDG", "TMP", "LC_", "LANG", "LD_")
"""How the names of such variables begin."""

READ_LATE = ("PYTHONPATH", "RAY_ADDRESS")
"""But not these."""

LEFT_BY_RAY = {
    **{"RAY_AUTH_MODE": "token", "RAY_CLIENT_MODE": "0", "RAY_USAGE_STATS_ENABLED": "0"},
    **{"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_prestart_worker_first_driver": "0"},
    **{"PYTHONBREAKPOINT": "ray.util.rpdb._driver_set_trace"},
}
"""What a Ray in this process leaves in its environment, which a command does not find there."""


class ForkServer:
    """The server, which ends with this process, and what its environment was when it began."""

    def __init__(self) -> None:
        self._orders, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._environment = environment_here()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, SERVER, str(its.fileno())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._orders.close()
        self._process.wait()

    def can_fork(self, environment: Mapping[str, str]) -> bool:
        """Whether what a process of that environment would import is what the server has imported."""
        differs = {name for name, _ in self._environment.items() ^ environment.items()}
        return not any(name.startswith(READ_AT_AN_IMPORT) for name in differs.difference(READ_LATE))

    def fork(self, order: Mapping[str, object], streams: list[int]) -> socket.socket:
        """What tells the fork's number and its exit code, a message each."""
        answers, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            socket.send_fds(self._orders, [json.dumps(order).encode()], [*streams, its.fileno()])
        return answers


def environment_here() -> dict[str, str]:
    """What commands find in their environment unless they are given something else."""
    return dict(os.environ.items() - LEFT_BY_RAY.items()) | {"PYTHONHASHSEED": "0"}  # else some commands begin anew


@cache
def fork_server() -> ForkServer:
    return ForkServer()


class Fork:
    """A fork of the server: what of `subprocess.Popen` the tests use."""

    def __init__(self, words: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.args = words
        self.returncode: int | None = None
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        self._said = ("", "")
        order = {"words": words, "folder": str(folder), "environment": dict(environment)}
        with Path(os.devnull).open() as nothing:
            self._answers = fork_server().fork(order, [stream.fileno() for stream in (nothing, *self._files)])
        self.pid = int(self._answers.recv(16))

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._answers.settimeout(timeout)
            try:
                self.returncode = int(self._answers.recv(16))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
            self._answers.close()
            output, errors = map(_content, self._files)
            self._said = output, errors
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it said on both outputs, when it has ended."""
        self.wait(timeout)
        return self._said

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _content(file: TextIO) -> str:
    file.seek(0)
    with file:
        return file.read()


Process = Fork | subprocess.Popen[str]


def start(*argv: object, folder: Path | None = None, **environment: str) -> Process:
    """Start a command, or a script, in a process group of its own, which hears Ctrl-C even where the tests do not."""
    program = argv[0] if isinstance(argv[0], Path) else BIN / str(argv[0])
    words, folder, whole = [str(program), *map(str, argv[1:])], folder or Path.cwd(), environment_here() | environment
    if fork_server().can_fork(whole):
        return Fork(words, folder, whole)
    return subprocess.Popen(
        [sys.executable, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=whole,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def run(*argv: object, code: int = 0, folder: Path | None = None, **environment: str) -> tuple[str, str]:
    """What a command says on both outputs, which must leave with `code`."""
    process = start(*argv, folder=folder, **environment)
    output, errors = process.communicate()
    assert process.returncode == code, output + errors
    return output, errors


def finish(*argv: object) -> None:
    """Run a command to its end, which must be a good one."""
    run(*argv)


def wait_until(condition: Callable[[], bool], process: Process) -> None:
    """Poll while the process lives; fails if it ends first."""
    while not condition():
        assert process.poll() is None, f"ended before it could be interrupted: {process.communicate()}"
        time.sleep(0.02)


def options(settings: Mapping[str, object]) -> list[str]:
    """Settings as a command line has them."""
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def committed(dataset: Path) -> int:
    """How many shards it has so far."""
    index = dataset / "index.jsonl"
    return index.read_bytes().count(b"\n") if index.exists() else 0
