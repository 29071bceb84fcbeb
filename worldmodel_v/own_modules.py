"""Modules of a user's own, which a setting names: `module:Env-v0`, `module:factory`.

A command may run in a directory of a stranger's files. So it looks for modules there only once a setting names one that is not
installed, and last, so that no file there replaces what is installed. A Python program's own path stays as it is.

Rejected: the directory as the last entry of `sys.path`. A file in it would replace a package without an `__init__.py`, such as
`google`.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from worldmodel_v.errors import WorldModelError, first_line, one_line, retold

_folder: str | None = None


def look_in(folder: str | None) -> None:
    """From now on, look for a user's own modules in this folder too; a command does so, and its workers after it."""
    global _folder
    _folder = folder


def folder() -> str | None:
    """What `look_in` was told."""
    return _folder


def import_own(name: str) -> ModuleType:
    """The module that a setting names; raises what its import raises."""
    package = name.partition(".")[0]
    installed = package in sys.modules or importlib.util.find_spec(package) is not None
    if not installed and _Last not in sys.meta_path:
        sys.meta_path.append(_Last)
    return importlib.import_module(name)


def load_own(source: str, refusal: Callable[[str], WorldModelError]) -> Any:
    """What `source`, module:name, names. Raises `refusal(why)`, whatever its import raises."""
    module, _, name = source.partition(":")

    def told(error: BaseException) -> WorldModelError:
        if isinstance(error, ModuleNotFoundError) and error.name and not f"{module}.".startswith(f"{error.name}."):
            return refusal(f"{module} imports {error.name}, which is not installed")
        return refusal(first_line(error) if isinstance(error, ImportError | AttributeError) else one_line(error))

    with retold(told):
        return getattr(import_own(module), name)


class _Last:
    """Finds in the folder what nobody else has found."""

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if path is not None or _folder is None or name in sys.stdlib_module_names:  # some of these are other systems' alone
            return None
        return PathFinder.find_spec(name, [_folder], target)
