"""Packages that only some formats need: they are imported where they are used, and a missing one is named with its extra."""

import importlib
from typing import Any

from worldmodel_v.errors import PackageMissing

PACKAGES = {"lance": "pylance"}
"""Where a package has another name than its module."""


def optional(module: str, extra: str = "export", instead: str | None = None, **parts: Any) -> Any:
    """Import a module of an extra; raises PackageMissing, which names its package, and what to do `instead`, if it is not
    installed. `parts` are further parts of the error."""
    try:
        return importlib.import_module(module)
    except ImportError:
        top = module.partition(".")[0]
        ways = [f"pip install 'worldmodel_v[{extra}]'", *filter(None, [instead])]
        what = f"needs {PACKAGES.get(top, top)}, which is not installed"
        raise PackageMissing(what, remedy=", or ".join(ways), **parts) from None
