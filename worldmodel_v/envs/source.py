"""Where an environment comes from, so that a changed one does not continue the data of the old one.

Gymnasium's version is a setting of every dataset, and speaks for its own environments and for those of this package, which
draw the same bytes. For others, the packages of the environment's classes (wrappers and bases too) are recorded with their
versions, and files outside of packages, a user's own among them, with their SHA-256. Files that these import are not seen.
"""

import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium

from worldmodel_v.storage.checksum import sha256_of_file

KNOWN = {"gymnasium", "worldmodel_v", *sys.stdlib_module_names}
INSTALLED = {"site-packages", "dist-packages"}
REGISTRATION = "registration"


def env_source(env: gymnasium.Env, env_id: str) -> dict[str, str]:
    """Version by package, SHA-256 by module file (`my_env.py`), and what was registered; empty for known environments."""
    modules = {cls.__module__ for layer in _layers(env) for cls in type(layer).__mro__}
    if ":" in env_id:
        modules.add(env_id.split(":")[0])
    source = _origins(modules)
    return source | {REGISTRATION: _registration(env)} if source and env.spec else source


def is_known(env_id: str) -> bool:
    """Whether an environment is one of Gymnasium's or of this package, by where it was registered from."""
    entry_point = getattr(gymnasium.registry.get(env_id), "entry_point", None)
    return isinstance(entry_point, str) and entry_point.partition(".")[0] in ("gymnasium", "worldmodel_v")


def class_source(cls: type) -> dict[str, str]:
    """The same of a class: version by package, SHA-256 by module file, its bases' too."""
    return _origins({base.__module__ for base in cls.__mro__})


def _origins(modules: set[str]) -> dict[str, str]:
    source: dict[str, str] = {}
    for name in sorted(modules):
        if name.partition(".")[0] not in KNOWN:
            source |= _origin(name)
    return source


def _layers(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env


def _origin(module: str) -> dict[str, str]:
    """The package that a module was installed with, or else its file."""
    location = getattr(sys.modules.get(module), "__file__", None)
    if location is None:
        return {}
    file = Path(location)
    if INSTALLED & set(file.parts):
        packages = importlib.metadata.packages_distributions().get(module.partition(".")[0], [])
        if packages:
            return {package: importlib.metadata.version(package) for package in packages}
    folder = module.replace(".", "/")
    return {f"{folder}/{file.name}" if file.stem == "__init__" else f"{folder}{file.suffix}": sha256_of_file(file)}


def _registration(env: gymnasium.Env) -> str:
    """What Gymnasium's registry adds to the arguments that the dataset records anyway."""
    registered = gymnasium.registry[env.spec.id]
    content = {"kwargs": registered.kwargs, "max_episode_steps": registered.max_episode_steps}
    return json.dumps(content, sort_keys=True, default=lambda value: type(value).__qualname__)
