"""What an environment simulates and draws with: the packages behind it, with their versions.

A package counts if the environment holds an object of it after its first frame, directly or inside other objects (MuJoCo's
model, Box2D's world, pygame's surface). It also counts if the environment's methods name it; PyBullet, for example, gives only
numbers. So every process finds the same packages, whatever else it has loaded. Packages under every environment do not count:
Gymnasium (its version is a setting), this package, NumPy and numba.

Rejected: all requirements of the environment's package, because a new `tqdm` would end a dataset; and all modules that are
loaded while the environment is made, because that depends on what was loaded before.
"""

import importlib.metadata
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import gymnasium

from worldmodel_v.code.fingerprint import functions_of, globals_read
from worldmodel_v.code.modules import KNOWN
from worldmodel_v.code.origin import packages_of
from worldmodel_v.envs.source import layers

BENEATH_ALL = KNOWN | {"numpy", "numba"}
UNSAID = {"Box2D": "2.3.10", "pygame-ce": "2.5.8"}
"""Versions that this package's environments do not record, so that earlier datasets keep their hash and bytes."""


def engines(made: Any) -> dict[str, str]:
    """Version by package, for an environment or a user's own source that has given its first frame."""
    objects = list(layers(made))
    named = {name for each in objects for name in _named_by(type(each))}
    modules = {name for cls in _classes_held(objects) for name in _modules(cls)} | named
    found = packages_of(name for name in modules if name.partition(".")[0] not in BENEATH_ALL)
    unsaid = UNSAID if _top(type(objects[-1])) == "worldmodel_v" else {}
    return {name: version for name, version in found.items() if unsaid.get(name) != version}


def unsaid_engines(env: gymnasium.Env) -> dict[str, str]:
    """The packages of this process, with their versions, that a dataset of the environment does not record."""
    return {name: UNSAID[name] for name in installed(UNSAID)} if _top(type(env.unwrapped)) == "worldmodel_v" else {}


def installed(names: Iterable[str]) -> dict[str, str]:
    """The versions in this process of those names that are packages."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _classes_held(objects: list[Any]) -> set[type]:
    """The classes of objects and of everything inside them. Searches every container, and one object of each class."""
    waiting, classes, containers = list(objects), set[type](), dict[int, Any]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list | tuple | set | frozenset | deque):
            if id(value) not in containers:
                containers[id(value)] = value
                waiting += value.values() if isinstance(value, dict) else value
        elif type(value) not in classes:
            classes.add(type(value))
            if _top(type(value)) not in sys.stdlib_module_names:
                waiting += getattr(value, "__dict__", {}).values()
    return classes


def _named_by(cls: type) -> Iterator[str]:
    """The modules that the methods of a class and its bases use: the module itself, or a class or function of it."""
    for function in (function for base in cls.__mro__ for function in functions_of(base)):
        for name in globals_read(function.__code__) & function.__globals__.keys():
            value = function.__globals__[name]
            found = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(found, str):
                yield found


def _modules(cls: type) -> list[str]:
    """The modules of a class and its bases; a native class may have none."""
    names = (getattr(base, "__module__", None) for base in cls.__mro__)
    return [name for name in names if isinstance(name, str)]


def _top(cls: type) -> str:
    return str(getattr(cls, "__module__", "")).partition(".")[0]
