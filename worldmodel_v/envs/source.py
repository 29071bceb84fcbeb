"""Where an environment comes from, so that a changed one does not continue the data of the old one.

Gymnasium's version is a setting of every dataset. It covers the code of Gymnasium's own environments and of this package's,
which draw the same bytes; `engines` says what they simulate and draw with. For others, the code of the environment's classes
(wrappers and bases too), of the function that makes it and of functions that wrappers apply is recorded as
`worldmodel_v.code.origin` says.
"""

import dataclasses
import functools
import hashlib
import json
import math
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from enum import Enum
from numbers import Number
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any
from uuid import UUID

import gymnasium
import numpy as np

from worldmodel_v.code.fingerprint import lives_in_no_file, sha256_of_code
from worldmodel_v.code.origin import IN_NO_FILE, classes_source
from worldmodel_v.schema import space_record

REGISTRATION = "registration"
LARGEST_TENSOR = 1 << 24
"""Bytes of a tensor that an environment was made with; a larger one is recorded by its class alone."""

MOST_NUMBERS = 1000
"""Of an array or list that an environment was made with, to be recorded as they are."""


def env_source(env: gymnasium.Env, *named: str) -> dict[str, str]:
    """Version by package, SHA-256 by module file (`my_env.py`) or by class that is in no file, and what was registered.

    `named` are the `module:Name` that it was made with; their modules count too. Empty for known environments.
    """
    classes = [cls for layer in layers(env) for cls in type(layer).__mro__]
    modules = {name.split(":")[0] for name in named if ":" in name} | _module_of_maker(env)
    maker = _made_by(env)
    makers = [maker] if isinstance(maker, FunctionType) and not lives_in_no_file(maker) else []
    source = classes_source(classes, [*layers(env)], modules, makers) | _maker(env)
    is_said = source or (env.spec and _registered(env).keys() & {"kwargs", "partial", "additional_wrappers"})
    return source | {REGISTRATION: _registration(env)} if is_said and env.spec else source


def is_known(env_id: str) -> bool:
    """Whether an environment is one of Gymnasium's or of this package, by where it was registered from."""
    registered = gymnasium.registry.get(env_id)
    entry_point = getattr(registered, "entry_point", None)
    return (
        isinstance(entry_point, str)
        and not registered.additional_wrappers
        and entry_point.partition(".")[0] in ("gymnasium", "worldmodel_v")
    )


def _made_by(env: gymnasium.Env) -> Any:
    """The class, function or object that was registered to make the environment, or its name."""
    entry: Any = getattr(env.spec, "entry_point", None)
    function = entry.func if isinstance(entry, functools.partial) else entry
    function = getattr(function, "__func__", function)
    return function if isinstance(function, str | type | FunctionType) or not callable(function) else type(function)


def _module_of_maker(env: gymnasium.Env) -> set[str]:
    made_by = _made_by(env)
    return {made_by.partition(":")[0] if isinstance(made_by, str) else made_by.__module__} if made_by else set()


def _maker(env: gymnasium.Env) -> dict[str, str]:
    """SHA-256 of what was registered to make the environment, if it lives in no file."""
    made_by = _made_by(env)
    is_typed = isinstance(made_by, type | FunctionType) and lives_in_no_file(made_by)
    if not is_typed or made_by in type(env.unwrapped).__mro__:
        return {}
    assert env.spec is not None
    return {f"entry point{IN_NO_FILE}": sha256_of_code(env.spec.entry_point)}


def layers(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """The wrappers of an environment, the outermost first, and then the environment itself."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env


def _registration(env: gymnasium.Env) -> str:
    """What Gymnasium's registry adds to the arguments that the dataset records anyway."""
    return json.dumps(as_json({"kwargs": {}, "max_episode_steps": None, **_registered(env)}), sort_keys=True)


def _registered(env: gymnasium.Env) -> dict[str, Any]:
    """What was registered with an environment, without what is empty."""
    registered = gymnasium.registry.get(env.spec.id, env.spec)
    entry = registered.entry_point
    partial = {"args": entry.args, "kwargs": entry.keywords} if isinstance(entry, functools.partial) else None
    content = {"kwargs": registered.kwargs, "max_episode_steps": registered.max_episode_steps, "partial": partial}
    content["additional_wrappers"] = [(wrapper.entry_point, wrapper.kwargs) for wrapper in registered.additional_wrappers]
    return {name: value for name, value in content.items() if value}


def as_json(value: Any, inside: tuple[Any, ...] = ()) -> Any:
    """A value that an environment was made with, as JSON: an array as a list, a long one by its SHA-256, a path or a key
    as a text, a function or class by its name, or by its hash if it is in no file, and of what else is no JSON what it is.

    `inside` are the values that it is in; one that is in itself is said to be "itself" there.
    """
    if any(value is each for each in inside):
        return "itself"
    part_of = functools.partial(as_json, inside=(*inside, value))
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < 1 << 63 else str(value)
        case float():
            return value if math.isfinite(value) else json.dumps(value)
        case np.ndarray() if value.size > MOST_NUMBERS and not value.dtype.hasobject:
            return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
        case np.ndarray() | np.generic():
            plain = (value.astype(str) if value.dtype.kind in "mM" else value).tolist()
            return str(plain) if isinstance(plain, np.generic) else part_of(plain)  # long doubles have no number of Python's
        case Mapping():
            return {str(key): part_of(item) for key, item in value.items()}
        case list() | tuple() | deque():
            parts = [part_of(item) for item in value]
            is_short = len(parts) <= MOST_NUMBERS
            return parts if is_short else f"{len(parts)} values {hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"
        case set() | frozenset():
            return sorted(json.dumps(part_of(item)) for item in value)
        case SimpleNamespace() | Namespace():
            return part_of(vars(value))
        case Path() | Enum():
            return str(value)
        case Number() | bytes() | bytearray() | range() | slice() | date() | time() | timedelta() | UUID():
            said = repr(value)
            is_short = len(said) <= MOST_NUMBERS
            return said if is_short else f"{len(said)} characters {hashlib.sha256(said.encode()).hexdigest()}"
        case gymnasium.Space():
            return part_of(space_record(value))
        case functools.partial():
            return part_of([value.func, value.args, value.keywords])
        case type() | FunctionType():
            return sha256_of_code(value) if lives_in_no_file(value) else f"{value.__module__}.{value.__qualname__}"
    if dataclasses.is_dataclass(value):
        return {each.name: part_of(getattr(value, each.name)) for each in dataclasses.fields(value)}
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor) and value.nbytes <= LARGEST_TENSOR:
        return part_of([str(value.dtype), value.detach().cpu().tolist()])
    return type(value).__qualname__
