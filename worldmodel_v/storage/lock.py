"""One writer at a time: a lock on a directory that the kernel drops when the process dies.

The lock is the kernel's (`flock`) and not the file's existence, so one that a dead process or another host left behind
holds nobody up. The file says who holds the lock, for the message to whoever comes second; what it says is never believed.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worldmodel_v.errors import DatasetBusy, NotADataset

LOCK_NAME = ".lock"


def lock_directory(path: Path) -> int:
    """Make a directory, take its lock and return the descriptor that holds it until it is closed.

    Raises NotADataset if the directory cannot be written to, DatasetBusy if another process holds the lock.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise NotADataset(f"{path}: cannot be written to ({error.strerror}); give a directory that can") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise DatasetBusy(f"{path}: another process{holder} is writing there; wait for it or stop it, then run again") from None
    _say_who_holds_it(descriptor)
    return descriptor


def _say_who_holds_it(descriptor: int) -> None:
    with suppress(OSError):  # a full disk holds nobody up either
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _holder(descriptor: int) -> str:
    line = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
    return f" ({line})" if line.isprintable() and line else ""


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """`lock_directory` for the time of a block."""
    descriptor = lock_directory(path)
    try:
        yield
    finally:
        os.close(descriptor)
