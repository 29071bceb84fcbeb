"""What an environment simulates and draws with: the packages behind it, with their versions.

A package counts if the environment holds an object of it once its first frame is there, itself or through what it holds
(MuJoCo's model, Box2D's world, pygame's surface), or if its methods name it, as they name PyBullet, which gives numbers for
objects. So every process finds the same, whatever else it has loaded. What is beneath every environment does not count:
Gymnasium, whose version is a setting, this package, NumPy, and numba.

Rejected: all that its package requires (a new `tqdm` would end a dataset), and all that is loaded while it is made (which
depends on what was loaded before).
"""

import importlib.metadata
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import gymnasium

from worldmodel_v.envs.fingerprint import functions_of, globals_read
from worldmodel_v.envs.source import KNOWN, layers, packages_of

BENEATH_ALL = KNOWN | {"numpy", "numba"}
UNSAID = {"Box2D": "2.3.10", "pygame-ce": "2.5.8"}
"""With these, this package's environments record nothing, so that datasets from before keep their hash and bytes."""


def engines(made: Any) -> dict[str, str]:
    """Version by package, of an environment, or of a source of one's own, that has given its first frame."""
    objects = list(layers(made))
    named = {name for each in objects for name in _named_by(type(each))}
    modules = {name for cls in _classes_held(objects) for name in _modules(cls)} | named
    found = packages_of(name for name in modules if name.partition(".")[0] not in BENEATH_ALL)
    unsaid = UNSAID if _top(type(objects[-1])) == "worldmodel_v" else {}
    return {name: version for name, version in found.items() if unsaid.get(name) != version}


def unsaid_engines(env: gymnasium.Env) -> dict[str, str]:
    """What a dataset of an environment does not record, of the packages that this process has."""
    return {name: UNSAID[name] for name in installed(UNSAID)} if _top(type(env.unwrapped)) == "worldmodel_v" else {}


def installed(names: Iterable[str]) -> dict[str, str]:
    """The versions that this process has of the packages among some names."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _classes_held(objects: list[Any]) -> set[type]:
    """The classes of objects and of all that they hold; one object of each class is looked into, and every container."""
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
    """The modules that the methods of a class and its bases name: imported whole, or a class or function of them."""
    for function in (function for base in cls.__mro__ for function in functions_of(base)):
        for name in globals_read(function.__code__) & function.__globals__.keys():
            value = function.__globals__[name]
            found = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(found, str):
                yield found


def _modules(cls: type) -> list[str]:
    """Where a class and its bases are from; native ones may not say it."""
    names = (getattr(base, "__module__", None) for base in cls.__mro__)
    return [name for name in names if isinstance(name, str)]


def _top(cls: type) -> str:
    return str(getattr(cls, "__module__", "")).partition(".")[0]
