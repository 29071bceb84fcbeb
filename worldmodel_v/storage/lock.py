"""One writer at a time: a lock on a directory that the kernel drops when the process dies.

The lock is the kernel's (`flock`), not the file's existence, so a file that a dead process or another host left behind
blocks no writer. It names the holder, for the error message of a second writer, and says what the holder does, for
`wm-inspect`. Its modification time is when the holder began.

The kernel alone is not enough, in two cases:

- A helper that an environment has forked shares the lock, and keeps it when its parent is killed. So if the holder that the
  file names has died on this machine, a new file with a new lock replaces it.
- On some network file systems `flock` excludes nobody. And a directory can be removed and begun anew. So a writer
  looks before each commit whether the file is still its own (`Lock.require_own`). Of two writers that the kernel lets in, the
  first one ends at its next commit.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from worldmodel_v.errors import DatasetBusy, NotAFile, OutputNotUsable
from worldmodel_v.storage import files
from worldmodel_v.storage.publish import named_failure, temporary_path
from worldmodel_v.untrusted import is_name, parse_object, require_types

LOCK_NAME = ".lock"
MAX_LOCK_BYTES = 4096
LOCKS_OF_THE_KERNEL = Path("/proc/locks")
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the present or last holder of a directory's lock wrote about itself."""

    pid: int
    host: str
    birth: str = ""
    """Of the process: the machine's boot, the namespace of process numbers, and when it started; see `_birth`."""

    stage: str = ""
    """collect, encode or train; empty until the holder announces it, and for other work."""

    goal: int | None = None
    """How many episodes (train: steps) there will be at the end."""

    done: int | None = None
    """How many there were when it began."""


class Lock:
    """A lock that this process holds, until `close`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._owner = {"pid": os.getpid(), "host": socket.gethostname(), "birth": _birth(os.getpid())}
        self._before: tuple[bytes, int] = b"", 0
        with suppress(OSError):  # then the file keeps what is announced here
            self._before = os.pread(descriptor, MAX_LOCK_BYTES, 0), os.fstat(descriptor).st_mtime_ns
        self._worked = False
        try:
            self.announce()
        except BaseException:
            self.close()
            raise

    def announce(self, **about: str | int) -> None:
        """Write into the lock file who holds the lock, and `about`: the optional fields of `Run`. Raises WriteFailed."""
        owner = f"process {self._owner['pid']} on {self._owner['host']}"
        with named_failure(self._path / LOCK_NAME):
            self._write(f"{owner}\n{json.dumps(self._owner | about)}\n".encode())
        self._worked = self._worked or bool(about)

    def _write(self, content: bytes) -> None:
        os.pwrite(self._descriptor, content, 0)
        os.truncate(self._descriptor, len(content))

    def require_own(self) -> None:
        """Raise DatasetBusy in a fork of the process that took the lock, or if the directory's lock file is not this lock's any
        more; call it before each commit."""
        if os.getpid() != self._owner["pid"]:
            raise DatasetBusy(
                f"process {self._owner['pid']} has it open, and this is a fork of it, which writes nothing",
                where=self._path,
                remedy="let that process write",
            )
        run = read_run(self._path)
        if self._is_own(run):
            self._worked = True
            return
        whose = f"; process {run.pid} on {run.host} has begun there since" if run else ""
        raise DatasetBusy(
            f"its lock is no longer this run's: it was removed or replaced{whose}; this run writes nothing more",
            where=self._path,
            remedy="let one run at a time write there",
        )

    def _is_own(self, run: Run | None) -> bool:
        """Whether the lock file is this lock's; `run` is what it says."""
        is_there = _is_file_of(self._descriptor, self._path / LOCK_NAME)
        return is_there and (run is None or vars(run).items() >= self._owner.items())

    def close(self) -> None:
        """Let go of the lock; may be called again. A close that fails does so too, and would hide what went wrong before. If
        nothing was announced or committed, as where settings are refused, the file says of the last run what it said before."""
        if self._descriptor >= 0:
            content, changed = self._before
            with suppress(OSError):
                if content and not self._worked and os.getpid() == self._owner["pid"] and self._is_own(read_run(self._path)):
                    self._write(content)
                    os.utime(self._descriptor, ns=(changed, changed))
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        """As a file does: a lock that nothing holds any more is free, as after a notebook's cell that ran without an end."""
        self.close()


def _is_file_of(descriptor: int, file: Path) -> bool:
    """Whether `file` is there and is what the descriptor has open."""
    try:
        return os.path.samestat(os.fstat(descriptor), files.lstat(file))
    except OSError:
        return False


def lock_directory(path: Path, inside: Path | None = None) -> Lock:
    """Make a directory and take its lock. A directory in a folder `inside` that the user named may be no link.

    Raises OutputNotUsable if the directory cannot be written to or its file system knows no locks, DatasetBusy if another
    process holds the lock, WriteFailed if its holder cannot be noted in it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = files.open_file(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, inside)
        if not _is_taken(descriptor, path):
            return Lock(path, descriptor)
        run, holder = read_run(path), _holder(descriptor)
        os.close(descriptor)
        if run is not None and _has_died(run):
            return Lock(path, _replaced(path, inside))
    except NotAFile:
        raise
    except OSError as error:
        raise OutputNotUsable(
            f"cannot be written to ({error.strerror})", where=path, remedy="give a directory that can"
        ) from None
    if run is not None and _is_this_process(run):
        raise DatasetBusy("this process is writing there already", where=path, remedy="close what writes there, then run again")
    raise DatasetBusy(f"another process{holder} is writing there", where=path, remedy="wait for it or stop it, then run again")


def _is_taken(descriptor: int, path: Path) -> bool:
    """Take the lock of a file, unless another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:  # as of Lustre without `-o flock`, or NFS without its lock daemon
        os.close(descriptor)
        raise OutputNotUsable(
            f"this file system knows no locks ({error.strerror}), which keep two writers apart",
            where=path,
            remedy="write to another one, such as a local disk, and copy what is finished, or have this one mounted with locks",
        ) from None
    return False


def _replaced(path: Path, inside: Path | None) -> int:
    """A new lock file, locked, in the place of one whose holder is dead."""
    new = temporary_path(path / LOCK_NAME, f"{os.getpid()}-")
    descriptor = files.open_file(new, os.O_RDWR | os.O_CREAT, inside)
    _is_taken(descriptor, path)
    files.replace(new, path / LOCK_NAME, inside)
    return descriptor


def _has_died(run: Run) -> bool:
    """Whether this machine knows that the process which `run` names has ended."""
    here = _birth(os.getpid())
    if run.host != socket.gethostname() or not run.birth or not here:
        return False
    return run.birth.rpartition(" ")[0] == here.rpartition(" ")[0] and _birth(run.pid) != run.birth


def _is_this_process(run: Run) -> bool:
    return (run.pid, run.host, run.birth) == (os.getpid(), socket.gethostname(), _birth(os.getpid()))


def _birth(pid: int) -> str:
    """What tells a process from every other one of that number: boot, namespace and start; without /proc empty."""
    try:
        boot = BOOT.read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink()
        state, started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0:20:19]
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else f"{boot} {namespace} {started}"


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
    if _has_died(run):
        return False
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
def locked_directory(path: Path) -> Iterator[Lock]:
    """`lock_directory` for the duration of a block."""
    with closing(lock_directory(path)) as lock:
        yield lock
