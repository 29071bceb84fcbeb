"""Where loaded modules come from: their files, and whether these are a program's own."""

import ast
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FunctionType

KNOWN = {"gymnasium", "torch", "worldmodel_v", *sys.stdlib_module_names}
"""Packages that are told by a version of their own."""

INSTALLED = {"site-packages", "dist-packages"}
ONE_AT_A_TIME = threading.Lock()
"""Where two threads parse at once, Python 3.11 may raise SystemError (https://github.com/python/cpython/issues/106905)."""


def module_file(name: str | None) -> Path | None:
    """The file that a module was loaded from; None if it is not loaded, or was loaded from something else."""
    location = getattr(sys.modules.get(name or ""), "__file__", None)
    return Path(location) if location is not None and Path(location).resolve().is_file() else None


def is_own(module: str) -> bool:
    """Whether it is a Python file outside of packages, such as a user's own or the started program."""
    file = module_file(module)
    is_outside = file is not None and file.suffix == ".py" and not INSTALLED & set(file.parts)
    return is_outside and module.partition(".")[0] not in KNOWN


def tree_of(module: str) -> ast.Module | None:
    """A loaded module's file, parsed; None if it has none in Python, or none that can be parsed any more."""
    file = module_file(module)
    with suppress(SyntaxError, ValueError, OSError), ONE_AT_A_TIME:
        return ast.parse(file.read_bytes()) if file and file.suffix == ".py" else None
    return None


def trees_of(modules: Iterable[str]) -> dict[str, ast.Module]:
    """`tree_of` of those modules that have one, by name."""
    return {name: tree for name in modules if (tree := tree_of(name))}


def home(function: FunctionType) -> str:
    """The module of its code. Its globals say it, because `functools.wraps` changes its `__module__`."""
    return str(function.__globals__.get("__name__", ""))
