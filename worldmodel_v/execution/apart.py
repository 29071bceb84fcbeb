"""A process apart for other people's code: it may crash, hang or leave, and costs its work alone.

A command makes an `Apart` before it starts a thread and before it runs other people's code. This forks a helper, which does
nothing but fork again: each of its forks runs what it is sent, until it dies and the next one takes its place. So a fork finds
no lock that a thread holds, and no library that cannot be forked. Everything is imported already, and a start takes a few
milliseconds. Rejected: a fresh interpreter, which imports for seconds, and forking the command itself, whose bars have a
thread.

A fork that leaks memory or descriptors is ended between two tasks, and the next one takes its place.

The helper and its forks leave Ctrl-C to the command, and end with it. What other people's code prints goes to standard error.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import os
import pickle
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection, Pipe, wait
from types import TracebackType
from typing import Any, NoReturn, Self

from worldmodel_v import steps
from worldmodel_v.compiler import compilation_watched
from worldmodel_v.errors import EpisodeFailed, WorkerLost, WorldModelError, one_line
from worldmodel_v.execution.executor import Failure, Run, Task
from worldmodel_v.execution.here import Here
from worldmodel_v.execution.worker import MAX_GROWTH_BYTES, Worker
from worldmodel_v.interrupts import interruptions_ignored
from worldmodel_v.own_modules import folder
from worldmodel_v.process import output_to_stderr
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.surface import current, worded
from worldmodel_v.telemetry import Tally

DIE_WITH_THE_PARENT = 1
"""Linux's PR_SET_PDEATHSIG."""

SECONDS_TO_END = 5.0
"""How long other people's code may take for what it does when Python ends."""

LONGEST_NUMBER = 32
"""Bytes of what the helper says: the number of a fork, and how it ended."""


class Apart:
    """An `Executor` of one process beside this one, which is made anew when it has died; use it as a context manager."""

    def __init__(self) -> None:
        """Make it before there are other threads than the main one."""
        self._helper, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of NumPy's threads, which bear a fork
            self._helper_pid = os.fork()
        if not self._helper_pid:
            self._helper.close()
            _fork_at_each_order(theirs)
        theirs.close()
        self._pid: int | None = None
        self._connection: Connection | None = None
        self._is_busy = False

    def call(self, function: Callable[..., Any], *arguments: Any, progress: Progress) -> Any:
        """What the function returns in the process apart, whose events go to `progress`.

        Raises the function's error if it is one of ours, and WorkerLost, saying how the process ended, if it ended instead.
        """
        connection = self._connection or self._begin()
        self._is_busy = True
        with contextlib.suppress(ConnectionError):  # it has died meanwhile
            connection.send((current(), function, arguments))
        while True:
            kind, content = self._received(connection)
            if kind == "event":
                name, message, warning, facts = content
                progress.event(name, message, warning=warning, **facts)
                continue
            self._is_busy = False
            if kind == "error":
                raise content
            return content

    def try_tasks(
        self,
        setup: Callable[[], Run[Task]],
        tasks: Iterable[Task],
        *,
        attempts: int,
        progress: Progress,
        tally: Tally,
    ) -> Generator[tuple[Task, bytes | Failure]]:
        """As `Executor` says, one task after another."""

        def run(task: Task) -> bytes:
            result, leaks = self.call(_run, packed, task, progress=progress)
            if leaks:
                message = "the process beside this one holds more and more memory or open files and is replaced"
                progress.event("worker_replaced", message, stage=tally.stage)
                self.rest()
            if isinstance(result, EpisodeFailed):
                raise result
            return result

        packed = pickle.dumps(setup)
        return Here().try_tasks(lambda: run, tasks, attempts=attempts, progress=progress, tally=tally)

    def rest(self) -> None:
        """End the process, whatever it does; the next call begins another."""
        if self._connection is None or self._pid is None:
            return
        self._connection.close()
        if self._is_busy or not wait([self._helper], SECONDS_TO_END):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._helper.recv(LONGEST_NUMBER)
        self._connection = self._pid = None

    def close(self) -> None:
        """End the process for good."""
        self.rest()
        self._helper.close()
        os.waitpid(self._helper_pid, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _begin(self) -> Connection:
        self._connection, theirs = Pipe()
        with theirs:
            socket.send_fds(self._helper, [b"fork"], [theirs.fileno()])
        self._pid = int(self._helper.recv(LONGEST_NUMBER))
        return self._connection

    def _received(self, connection: Connection) -> tuple[str, Any]:
        """The next message of the process; raises WorkerLost if it has ended."""
        if connection in wait([connection, self._helper]):
            with contextlib.suppress(EOFError, OSError):
                return connection.recv()
        code = int(self._helper.recv(LONGEST_NUMBER) or -signal.SIGKILL)  # the helper has been killed, and its fork with it
        connection.close()
        self._connection = self._pid = None
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise WorkerLost(f"its process ended {how}")


def _fork_at_each_order(orders: socket.socket) -> NoReturn:
    """What the helper does: it forks, says the fork's number, and how it has ended."""
    _end_with_the_parent()
    interruptions_ignored()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    atexit._clear()  # what was registered is the command's
    gc.freeze()  # so that no collection touches the pages that are shared
    with contextlib.suppress(ConnectionError):
        while True:
            order, descriptors, _, _ = socket.recv_fds(orders, LONGEST_NUMBER, 1)
            if not order:
                break
            fork = os.fork()
            if not fork:
                orders.close()
                _serve(Connection(descriptors[0]))
            os.close(descriptors[0])
            orders.send(str(fork).encode())
            orders.send(str(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])).encode())
    os._exit(0)


def _serve(connection: Connection) -> NoReturn:
    """What a fork does: it calls what it is sent, and sends the result back."""
    _end_with_the_parent()
    steps.listener = None  # the command announces the steps of its tasks
    with output_to_stderr(), compilation_watched(_Relay(connection)):
        with contextlib.suppress(EOFError, OSError):
            while True:
                surface, function, arguments = connection.recv()
                with worded(surface):
                    answer = _answer(function, arguments)
                _flush()
                connection.send(answer)
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        _flush()
    os._exit(0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "result", function(*arguments)
    except WorldModelError as error:
        return "error", error
    except BaseException as error:
        found = f"a process apart failed with {one_line(error)}"
        return "error", WorldModelError(found, remedy="this is a defect, please report it")


class _Relay(Silent):
    """Sends events to the process that it works for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        self._connection.send(("event", (name, message, warning, facts)))


@functools.cache
def _worker(packed: bytes) -> Worker:
    return Worker(pickle.loads(packed), folder(), MAX_GROWTH_BYTES)


def _run(packed: bytes, task: Any) -> tuple[bytes | EpisodeFailed, bool]:
    return _worker(packed).run(task)


def _end_with_the_parent() -> None:
    """Where the system can: be killed if the parent is gone, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_THE_PARENT, signal.SIGKILL)
