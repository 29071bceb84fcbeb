"""Shared by the benchmarks: the first lines (hardware, versions, date, load), and measuring in a separate process."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATHS = ("data", "vae", "path")
"""Arguments that are paths, by their names."""


def describe_machine(*packages: str) -> str:
    """Hardware, versions and date."""
    model = platform.processor() or "unknown processor"
    if Path("/proc/cpuinfo").exists():
        with Path("/proc/cpuinfo").open() as lines:
            names = [line.split(":")[1].strip() for line in lines if "model name" in line]
        model = f"{names[0]}, {len(names)} cores"
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    return f"{datetime.date.today()}  {model}  load {load()}\nPython {platform.python_version()}, " + ", ".join(versions)


def load() -> str:
    """The load averages of 1, 5 and 15 minutes, which show other work on the machine."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def peak_mb() -> float:
    """The peak resident set since this program began, in MB; `ru_maxrss` would count its parent's, from before the exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def in_process(file: str, function: str, **arguments: Any) -> dict[str, Any]:
    """The result of one of a benchmark's functions in a fresh process, which runs its `file` with --call; see `answer`."""
    command = [sys.executable, file, "--call", json.dumps([function, arguments], default=str)]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"{function} failed: {finished.stderr}")
    return json.loads(finished.stdout.splitlines()[-1])


def answer(call: str, functions: dict[str, Callable[..., Any]]) -> None:
    """In the fresh process: make the call that --call describes, and print its result."""
    function, arguments = json.loads(call)
    paths = {name: Path(value) for name, value in arguments.items() if name in PATHS}
    print(json.dumps(functions[function](**{**arguments, **paths})))
