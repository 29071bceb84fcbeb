"""Packages that only some formats need: they are imported where they are used, and a missing one is named with its extra."""

import importlib
from typing import Any

from worldmodel_v.errors import PackageMissing


def optional(module: str, package: str) -> Any:
    """Import a module of the extra `export`; raises PackageMissing, which names its package, if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise PackageMissing(f"needs {package}, which is not installed", remedy="pip install 'worldmodel_v[export]'") from None
