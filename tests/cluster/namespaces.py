"""Machines that share nothing but a network, on one machine: Linux namespaces, as containers use them.

Each machine has its own network (an address on a bridge of their own), its own processes, its own /tmp and /dev/shm; the
folders of the others are out of sight and all else is read-only, so what is installed is there and nothing can be left for
another machine to find. The host's network is not touched. Losing the power is `kill -9` of everything at once; losing the
cable is a link that goes down.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALLED = (ROOT, Path(sys.prefix))
"""What every machine has: this repository, and the Python that runs the tests."""

SUBNET = "10.231.7"
SHARED_MEMORY = "256m"
ENTER = """
set -e
for path in $INSTALLED; do
    case $path in /tmp/*) mkdir -p "$FOLDER/${path#/tmp/}"; mount --bind "$path" "$FOLDER/${path#/tmp/}";; esac
done
mount --rbind "$FOLDER" /tmp
case $HIDDEN in /tmp/*) ;; *) mount -t tmpfs tmpfs "$HIDDEN";; esac
mount -t tmpfs -o size=$SHARED_MEMORY tmpfs /dev/shm
mount -o remount,bind,ro /
cd /tmp
exec "$@"
"""


def why_not() -> str | None:
    """Why this machine cannot hold namespaces, or None if it can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux"
    try:
        probe = f"wm-probe-{os.getpid()}"
        _run("ip", "netns", "add", probe)
        try:
            _run("ip", "netns", "exec", probe, "unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "t", "/dev/shm")
        finally:
            _run("ip", "netns", "delete", probe)
    except FileNotFoundError as error:
        return f"network namespaces need {error.filename} (iproute2, util-linux)"
    except subprocess.CalledProcessError as error:
        return f"network namespaces need root and CAP_SYS_ADMIN: {error.stderr.strip()}"
    return None


class Machine:
    """One machine of a `Network`: an address, a folder that is its /tmp, and what runs there."""

    def __init__(self, network: str, number: int, folder: Path, environment: dict[str, str]) -> None:
        self.address = f"{SUBNET}.{number}"
        self.folder = folder
        self._name, self._link = f"{network}-{number}", f"port{number}"
        self._switch = f"{network}-switch"
        self._environment = environment
        self._processes: list[subprocess.Popen[str]] = []
        folder.mkdir()
        _run("ip", "netns", "add", self._name)
        _run("ip", "-n", self._switch, "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _run("ip", "-n", self._switch, "link", "set", self._link, "master", "bridge", "up")
        _run("ip", "-n", self._name, "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run("ip", "-n", self._name, "link", "set", device, "up")

    def start(self, *command: object) -> subprocess.Popen[str]:
        """Start a command on this machine, its output in `FOLDER/log`."""
        program = ("ip", "netns", "exec", self._name, "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child")
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(
                [*program, "sh", "-c", ENTER, "sh", *map(str, command)],
                env=self._environment | {"FOLDER": str(self.folder)},
                stdout=log,
                stderr=log,
                text=True,
            )
        self._processes.append(process)
        return process

    def run(self, *command: object) -> tuple[int, str]:
        """Run a command on this machine to its end: its exit code, and what it printed."""
        log = self.folder / "log"
        before = log.stat().st_size if log.exists() else 0
        process = self.start(*command)
        return process.wait(), log.read_bytes()[before:].decode()

    def cut_off(self) -> None:
        """Pull the cable: nothing reaches the machine or comes from it any more, and nobody is told."""
        _run("ip", "-n", self._switch, "link", "set", self._link, "down")

    def kill(self) -> None:
        """`kill -9` of everything that runs on this machine."""
        for process in self._processes:
            process.kill()
            process.wait()
        wait_until(lambda: not list(self.titles()), 30)

    def titles(self) -> Iterator[str]:
        """How the processes of this machine call themselves."""
        network = Path("/run/netns", self._name).stat().st_ino
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (folder / "ns" / "net").stat().st_ino == network:
                    yield (folder / "cmdline").read_text().replace("\0", " ").strip()

    def remove(self) -> None:
        self.kill()
        _run("ip", "netns", "delete", self._name)


class Network:
    """Machines on one bridge; a context manager that leaves nothing running and no namespace behind."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._folder = folder
        self._name = f"wm-{os.getpid()}"
        self._machines: list[Machine] = []
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": "/tmp",
            "INSTALLED": " ".join(map(str, INSTALLED)),
            "SHARED_MEMORY": SHARED_MEMORY,
            "HIDDEN": str(folder),
            **{name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")},  # the same arithmetic
            **environment,
        }

    def add(self, name: str) -> Machine:
        """A further machine."""
        machine = Machine(self._name, len(self._machines) + 1, self._folder / name, self._environment)
        self._machines.append(machine)
        return machine

    def __enter__(self) -> "Network":
        _run("ip", "netns", "add", f"{self._name}-switch")
        _run("ip", "-n", f"{self._name}-switch", "link", "add", "bridge", "up", "type", "bridge")
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self._machines:
            machine.remove()
        _run("ip", "netns", "delete", f"{self._name}-switch")


def wait_until(condition: Callable[[], bool], seconds: float, what: Callable[[], str] = lambda: "") -> None:
    """Poll; fails with `what` after `seconds`."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not within {seconds:g} s: {what()}"
        time.sleep(0.05)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
