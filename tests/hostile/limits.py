"""Running something with little memory and little time, in a process of its own."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MAX_SECONDS = 60
GIB = 1 << 30

_PREAMBLE = r"""
import atexit, os, re, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
del sys.argv[1]
with open("/proc/self/clear_refs", "w") as refs: refs.write("5")
def tell():
    with open("/proc/self/status") as status:
        sys.stderr.write("\npeak " + re.search(r"VmHWM:\s+(\d+)", status.read())[1])
atexit.register(tell)
"""
"""The peak is VmHWM: what `getrusage` gives is the parent's where that was larger."""


VERIFY = """
from pathlib import Path
from worldmodel_v.storage import open_dataset, verify
sys.exit(str(verify(open_dataset(Path(sys.argv[1])))))
"""
"""Verifies a dataset, and ends with its findings."""


@dataclass(frozen=True)
class Finished:
    """What a process left."""

    code: int
    """Its exit code; negative if a signal killed it."""

    lines: list[str]
    """Of its standard error, without the last that tells of memory."""

    peak_mib: float


def run_limited(code: str, *arguments: object, memory_bytes: int = 2 * GIB, cwd: Path | None = None) -> Finished:
    """Run Python code, whose sys.argv[1:] are the arguments, with so much address space at most; fails after a minute."""
    command = [sys.executable, "-c", _PREAMBLE + code, str(memory_bytes), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_SECONDS, check=False, cwd=cwd)
    *lines, last = done.stderr.strip().splitlines() or [""]
    assert last.startswith("peak "), done
    return Finished(done.returncode, [line for line in lines if line], int(last.split()[1]) / 1024)


def command(name: str, *arguments: object, memory_bytes: int = 6 * GIB) -> Finished:
    """Run one of the package's commands; torch alone takes three gigabytes of address space."""
    code = f"sys.argv[0] = 'wm-{name}'\nfrom worldmodel_v.cli.{name} import main\nmain()"
    return run_limited(code, *arguments, memory_bytes=memory_bytes)
