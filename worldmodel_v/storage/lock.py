"""One writer at a time: a lock on a directory that the kernel drops when the process dies.

The lock is the kernel's (`flock`), not the file's existence, so a file that a dead process or another host left behind
blocks no writer. The file names the holder, for the error message of a second writer. It also says what the holder does, for
`wm-inspect`. Nothing else relies on its content. Its modification time is when the holder began.
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

from worldmodel_v.errors import DatasetBusy, NotAFile, OutputNotUsable
from worldmodel_v.storage import files
from worldmodel_v.untrusted import is_name, parse_object, require_types

LOCK_NAME = ".lock"
MAX_LOCK_BYTES = 4096
LOCKS_OF_THE_KERNEL = Path("/proc/locks")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the present or last holder of a directory's lock wrote about itself."""

    pid: int
    host: str
    stage: str = ""
    """collect, encode or train; empty until the holder announces it, and for other work."""

    goal: int | None = None
    """How many episodes (train: steps) there will be at the end."""

    done: int | None = None
    """How many there were when it began."""


def lock_directory(path: Path, inside: Path | None = None) -> int:
    """Make a directory, take its lock and return the descriptor that holds the lock until it is closed.

    A directory in a folder `inside` that the user named may be no link.

    Raises OutputNotUsable if the directory cannot be written to or its file system knows no locks, DatasetBusy if another
    process holds the lock.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = files.open_file(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, inside)
    except NotAFile:
        raise
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
    """Write into the lock file who holds the lock, and `about`: the optional fields of `Run`."""
    pid, host = os.getpid(), socket.gethostname()
    content = f"process {pid} on {host}\n{json.dumps({'pid': pid, 'host': host, **about})}\n".encode()
    with suppress(OSError):  # a full disk must not stop the holder
        os.pwrite(descriptor, content, 0)
        os.truncate(descriptor, len(content))


def read_run(path: Path) -> Run | None:
    """What a directory's lock file says; None if the file is missing or not valid. Takes no lock."""
    try:
        with files.open_stream(path / LOCK_NAME) as file:
            _, _, line = file.read(MAX_LOCK_BYTES).partition(b"\n")
        said = parse_object(line)
        require_types(said, Run)
        run = Run(**said)
    except (OSError, ValueError, TypeError):
        return None
    return run if is_name(run.host) and is_name(run.stage) else None


def is_at_work(path: Path, run: Run) -> bool | None:
    """Whether the process that `run` names holds the directory's lock now; None if this machine cannot know.

    This reads the kernel's list of locks. Taking the lock to try it, even for a moment, could make a starting writer fail.
    """
    if run.host != socket.gethostname():
        return None
    try:
        inode = files.lstat(path / LOCK_NAME).st_ino
        locks = [line.split() for line in LOCKS_OF_THE_KERNEL.read_text().splitlines()]
    except OSError:
        return None
    # each is "1: FLOCK ADVISORY WRITE pid device:device:inode 0 EOF"
    held = {(words[4], words[5].rpartition(":")[2]) for words in locks if len(words) > 5}
    return (str(run.pid), str(inode)) in held


def began(path: Path) -> datetime:
    """When the present or last holder of a directory's lock began; raises OSError if there is no lock file."""
    return datetime.fromtimestamp(files.lstat(path / LOCK_NAME).st_mtime, UTC)


def _holder(descriptor: int) -> str:
    line = os.pread(descriptor, 200, 0).partition(b"\n")[0].decode(errors="replace").strip()
    return f" ({line})" if line.isprintable() and line else ""


@contextmanager
def locked_directory(path: Path) -> Iterator[int]:
    """`lock_directory` for the duration of a block; yields its descriptor."""
    descriptor = lock_directory(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
