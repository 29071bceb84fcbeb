"""A small process that ends a local Ray's processes when the process that started Ray has ended, in whatever way.

The kernel ends Ray's servers with the driver. But Ray's agents notice only minutes later, and the helpers of an environment
never do, after SIGKILL, SIGQUIT, `os._exit` or an abort. So the driver starts this file as a script before it starts Ray. The
script waits for the driver's end and then kills every process that has a file of this Ray's session open: all have their logs
there. It imports nothing but the standard library. It does nothing where there is no `pidfd_open` (Linux before 5.3, macOS).

Rejected: a mark in the environment of Ray's processes, because the agents overwrite theirs with their title; and shorter
timeouts of Ray, none of which its agents keep.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """A Ray that this process starts in the block ends with the block, or with this process."""
    watcher = subprocess.Popen(
        [sys.executable, "-S", "-E", __file__, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # so that no signal to the terminal's processes reaches it
    )
    try:
        yield
    finally:
        watcher.kill()
        watcher.wait()
        end_all(os.getpid())


def end_all(driver: int) -> bool:
    """Kill the processes of every local Ray that process `driver` has started, and return whether there were any."""
    session = re.compile(rf"/session_[\d_-]+_{driver}/")
    found = False
    for folder in Path("/proc").glob("[0-9]*"):
        number = int(folder.name)
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if number not in (driver, os.getpid()) and _is_here(folder) and any(map(session.search, _open_files(folder))):
                os.kill(number, signal.SIGKILL)
                found = True
    return found


def _is_here(folder: Path) -> bool:
    """Whether a process is not of a container, where `driver` is the number of another process."""
    return (folder / "ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()


def _open_files(folder: Path) -> Iterator[str]:
    for link in (folder / "fd").iterdir():
        with contextlib.suppress(OSError):  # it has been closed
            yield str(link.readlink())


def _watch(driver: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended before this began
        select.select([os.pidfd_open(driver)], [], [])
    while end_all(driver):  # again, for what was being started
        time.sleep(1)


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
