"""A worker: a process that runs task after task, of the pool on any node of the cluster, or beside the command."""

import functools
import gc
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worldmodel_v.errors import ClusterNotUsable, EpisodeFailed, WorldModelError
from worldmodel_v.execution.descriptors import Descriptors
from worldmodel_v.execution.executor import Run, perform
from worldmodel_v.interrupts import interruptions_ignored
from worldmodel_v.own_modules import look_in

WORKER_ENVIRONMENT = {
    **{"OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"},
    # the hashes of texts, and so the order of sets, are the same in all workers
    **{"PYTHONHASHSEED": "0"},
    # glibc keeps freed memory for the next block instead of giving it back and faulting it in again (2^25 is its limit)
    **{"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)},
}


MAX_GROWTH_BYTES = 512 << 20
"""A worker that runs other people's code is replaced if it holds this much more memory than after its first task."""


@functools.cache
def code_sha256() -> str:
    """Of this package's Python files and their names: the number of a version does not say what was changed in a clone."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(filter(Path.is_file, root.rglob("*.py"))):
        digest.update(f"{file.relative_to(root)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def require_code(sha256: str) -> None:
    """Raise ClusterNotUsable unless this process has the same code of this package as the one whose `code_sha256` it is."""
    if code_sha256() != sha256:
        raise ClusterNotUsable(
            f"the worker on {socket.gethostname()} has other code of worldmodel_v than the process that sends it work, so its "
            f"results may differ ({Path(__file__).parents[1]})",
            remedy="install the same code on every node; if its files were changed meanwhile, run the same command again",
        )


class Worker:
    """It sets up at its first task, so that a failing setup is an error, not a death, then runs task after task."""

    def __init__(
        self, setup: Callable[[], Run[Any]], own_modules: str | None = None, max_growth_bytes: int | None = None
    ) -> None:
        """`own_modules` is the driver's `own_modules.folder()`, `max_growth_bytes` as in `WorkerSettings`."""
        look_in(own_modules)
        self._setup = setup
        self._max_growth_bytes = max_growth_bytes
        self._run: Run[Any] | None = None
        self._bytes_at_first = 0

    def run(self, task: Any) -> tuple[bytes | EpisodeFailed, bool]:
        """The task's result or failed episode, and whether this process leaks: whether it holds too much more memory, or too
        many more open files, than at first."""
        result: bytes | EpisodeFailed
        try:
            if self._run is None:
                interruptions_ignored()
                self._descriptors = Descriptors()
                self._run = self._setup()
                gc.freeze()  # what Ray and numba loaded is never garbage: the collector need not visit it again
            result = perform(self._run, task)
        except EpisodeFailed as error:
            error.__cause__ = None  # Ray would send the whole text of its causes along
            result = error
        except WorldModelError as error:
            raise error from None  # likewise
        self._bytes_at_first = self._bytes_at_first or _resident_bytes()
        return result, self._descriptors.are_leaking or self._has_grown()

    def _has_grown(self) -> bool:
        return self._max_growth_bytes is not None and _resident_bytes() - self._bytes_at_first > self._max_growth_bytes

    def ping(self) -> tuple[str, int]:
        """The actor's host and process number; the answer comes when the actor has started."""
        return socket.gethostname(), os.getpid()


def _resident_bytes() -> int:
    """This process's memory; 0 where the system has no /proc, so that no worker is replaced there."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
