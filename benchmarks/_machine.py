"""What every benchmark says first: hardware, versions, date."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path


def describe_machine(packages: Sequence[str]) -> str:
    """Two lines: the date, the processor, its cores and their load; Python's version and those of `packages`."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = [f"{package} {_version(package)}" for package in packages]
    first = f"{datetime.date.today()}  {_processor()}, {os.cpu_count()} cores, load {load}"
    return f"{first}\nPython {platform.python_version()}, {', '.join(versions)}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
