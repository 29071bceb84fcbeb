"""A process that has imported what the commands import, and computed nothing; each of its forks becomes one of them.

    python tests/fork_server.py DESCRIPTOR

Orders come over a Unix socket, one a message (`tests.commands`): what to run, with the descriptors of its standard streams and
of a socket that is told the fork's process number and, when it has ended, its exit code. A fork then is what a fresh
interpreter would be, but for the modules that are imported already: its folder, environment, path, streams and signals are
those of the order. It ends as Python ends, but that it does not take the modules apart, of which it would have to copy
every page that it shares with the server.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

ROOMS = ("collection", "training", "encoding", "evaluation", "selection", "export", "pipeline", "inspection", "jobs")
COMMANDS = ("collect", "train", "encode", "eval", "select", "export", "inspect", "pipeline")
LATE = ("ray", "torch._dynamo", "torch.utils.tensorboard", "torch.export", "torchmetrics.functional.image", "hdf5plugin")
LATE += ("sklearn.manifold", "sklearn.metrics", "sklearn.neighbors")
"""What the package imports when it gets there."""

LONGEST_ORDER = 1 << 18


def serve(orders: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork at each order, and tell how each fork ends; returns in the forks alone, with their order and three streams."""
    selector = selectors.DefaultSelector()
    selector.register(orders, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is not orders:
                selector.unregister(key.fileobj)
                os.close(key.fd)
                fork, answers = key.data
                tell(answers, os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]))
                answers.close()
                continue
            order, descriptors, _, _ = socket.recv_fds(orders, LONGEST_ORDER, 4)
            if not order:
                sys.exit()
            *streams, answer = descriptors
            answers = socket.socket(fileno=answer)
            if not (fork := os.fork()):
                for other in list(selector.get_map().values()):
                    if other.fileobj is not orders:
                        os.close(other.fd)
                        other.data[1].close()
                for held in (answers, orders, selector):
                    held.close()
                return json.loads(order), streams
            for descriptor in streams:
                os.close(descriptor)
            tell(answers, fork)
            selector.register(os.pidfd_open(fork), selectors.EVENT_READ, (fork, answers))


def tell(answers: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody asks any more
        answers.send(str(number).encode())


def become(order: dict[str, Any], streams: list[int], path: list[str]) -> None:
    """Make of a fork what a fresh interpreter would be in its place."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = order["words"]
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path = [str(Path(sys.argv[0]).parent), *given, *path]
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        os.dup2(streams[number], number)
        os.close(streams[number])
        before, lines = getattr(sys, name), number == 2 or os.isatty(number)
        now = open(number, mode, 1 if lines else -1, before.encoding, before.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, now)
        setattr(sys, f"__{name}__", now)
    np.random.seed()  # the interpreter's own generator sees to itself


if __name__ == "__main__":
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [entry for entry in sys.path[1:] if entry not in given]
    for name in (*(f"worldmodel_v.{room}" for room in ROOMS), *(f"worldmodel_v.cli.{name}" for name in COMMANDS), *LATE):
        importlib.import_module(name)
    gc.freeze()
    become(*serve(socket.socket(fileno=int(sys.argv[1]))), path)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
        if not isinstance(left.code, int | None):  # a message
            sys.stderr.write(f"{left.code}\n")
    except BaseException as error:
        sys.excepthook(*sys.exc_info())
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ctypes.CDLL(None).fflush(None)  # what native code has printed
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)
