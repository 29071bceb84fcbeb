"""One writer at a time: a lock on a directory that the kernel drops when the process dies.

The lock is the kernel's (`flock`) and not the file's existence, so one that a dead process or another host left behind
holds nobody up. The file says who holds the lock, for the message to whoever comes second, and what its holder is about, for
`wm-inspect`; neither is believed where anything depends on it. Its time of change is when the holder began.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from worldmodel_v.errors import DatasetBusy, OutputNotUsable
from worldmodel_v.untrusted import is_name, parse_object, require_types

LOCK_NAME = ".lock"
MAX_LOCK_BYTES = 4096
LOCKS_OF_THE_KERNEL = Path("/proc/locks")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the present or last holder of a directory's lock says of itself."""

    pid: int
    host: str
    stage: str = ""
    """collect, encode or train; empty before it has said so, and for other work."""

    goal: int | None = None
    """How many episodes (train: steps) there shall be."""

    done: int | None = None
    """How many there were when it began."""


def lock_directory(path: Path) -> int:
    """Make a directory, take its lock and return the descriptor that holds it until it is closed.

    Raises OutputNotUsable if the directory cannot be written to or its file system knows no locks, DatasetBusy if another
    process holds the lock.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputNotUsable(
            f"cannot be written to ({error.strerror})", where=path, remedy="give a directory that can"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise DatasetBusy(
            f"another process{holder} is writing there", where=path, remedy="wait for it or stop it, then run again"
        ) from None
    except OSError as error:  # as of Lustre without `-o flock`, or NFS without its lock daemon
        os.close(descriptor)
        raise OutputNotUsable(
            f"this file system knows no locks ({error.strerror}), which keep two writers apart",
            where=path,
            remedy="write to another one, such as a local disk, and copy what is finished, or have this one mounted with locks",
        ) from None
    announce(descriptor)
    return descriptor


def announce(descriptor: int, **about: str | int) -> None:
    """Write into the lock's file who holds it and what about: the optional fields of `Run`."""
    pid, host = os.getpid(), socket.gethostname()
    content = f"process {pid} on {host}\n{json.dumps({'pid': pid, 'host': host, **about})}\n".encode()
    with suppress(OSError):  # a full disk holds nobody up either
        os.pwrite(descriptor, content, 0)
        os.truncate(descriptor, len(content))


def read_run(path: Path) -> Run | None:
    """What a directory's lock file says; None if it says nothing that makes sense. Takes no lock."""
    try:
        with (path / LOCK_NAME).open("rb") as file:
            _, _, line = file.read(MAX_LOCK_BYTES).partition(b"\n")
        said = parse_object(line)
        require_types(said, Run)
        run = Run(**said)
    except (OSError, ValueError, TypeError):
        return None
    return run if is_name(run.host) and is_name(run.stage) else None


def is_at_work(path: Path, run: Run) -> bool | None:
    """Whether the process that `run` names holds the directory's lock now; None if only its own machine could tell.

    The kernel's list of locks is read: to try and take the lock, even for a moment, could turn away a writer that begins.
    """
    if run.host != socket.gethostname():
        return None
    try:
        inode = (path / LOCK_NAME).stat().st_ino
        locks = [line.split() for line in LOCKS_OF_THE_KERNEL.read_text().splitlines()]
    except OSError:
        return None
    # each is "1: FLOCK ADVISORY WRITE pid device:device:inode 0 EOF"
    held = {(words[4], words[5].rpartition(":")[2]) for words in locks if len(words) > 5}
    return (str(run.pid), str(inode)) in held


def began(path: Path) -> datetime:
    """When the present or last holder of a directory's lock began; raises OSError if there is no lock's file."""
    return datetime.fromtimestamp((path / LOCK_NAME).stat().st_mtime, UTC)


def _holder(descriptor: int) -> str:
    line = os.pread(descriptor, 200, 0).partition(b"\n")[0].decode(errors="replace").strip()
    return f" ({line})" if line.isprintable() and line else ""


@contextmanager
def locked_directory(path: Path) -> Iterator[int]:
    """`lock_directory` for the time of a block; yields its descriptor."""
    descriptor = lock_directory(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
