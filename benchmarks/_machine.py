"""What every benchmark says first: hardware, versions, date and load."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path


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
    """What else the machine is doing: the load averages of 1, 5 and 15 minutes."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def peak_mb() -> float:
    """The peak resident set since this program began, in MB; `ru_maxrss` would count its parent's, from before the exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
