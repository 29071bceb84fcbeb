"""The options of a command, from the fields of its config: their names, how their values are read, and what the help shows."""

import dataclasses
import functools
import json
import operator
from collections.abc import Callable, Hashable
from contextlib import suppress
from copy import copy
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

Config = TypeVar("Config")
KINDS = {int: "a whole number", float: "a number", str: "a text", Path: "a path"}
"""What an option may take, and how a refusal calls it."""


def spelled(config_class: Any) -> Any:
    """The class, or the union of classes, with its options as a command line has them: a field that Python's grammar makes
    `from_` is `--from`, and no default is shown that says nothing. Its instances become the class's own by `as_declared`."""
    if not (isinstance(config_class, type) and dataclasses.is_dataclass(config_class)):
        members = [get_args(member) for member in get_args(config_class)]
        spelled_members = (Annotated[spelled(member), *markers] for member, *markers in members)
        return functools.reduce(operator.or_, spelled_members) if members else config_class
    hints = get_type_hints(config_class, include_extras=True)
    fields = [each for each in dataclasses.fields(config_class) if each.name.endswith("_") or _hint(each) is not None]
    named = [(each.name, Annotated[hints[each.name], _option(each)], copy(each)) for each in fields]
    about = {"__doc__": config_class.__doc__}
    return dataclasses.make_dataclass(
        config_class.__name__, named, bases=(config_class,), namespace=about, frozen=True, kw_only=True
    )


def as_declared(config: Config) -> Config:
    """The object itself, as one of the class that `spelled` was given."""
    object.__setattr__(config, "__class__", type(config).__base__)
    return config


def takes_several(config_class: Any, field: str) -> bool:
    """Whether an option takes several values."""
    from worldmodel_v.storage import Locations

    hint = get_type_hints(config_class).get(field)
    return hint is Locations or get_origin(hint) is tuple


def constructors() -> ConstructorRegistry:
    """How tyro reads a value: what the config itself parses as text (a Path would remove a slash from a URL), and one value of
    a few kinds with a refusal in words."""
    from worldmodel_v.storage import LocalPath, Locations  # which the config has imported

    as_text = [(str | Path, "PATH|URL"), (str | Path | None, "PATH"), (LocalPath, "PATH"), (dict[str, Any], "JSON")]

    def spec_of(kind: Any) -> PrimitiveConstructorSpec | None:
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        for known, metavar in as_text:
            if kind == known:
                return _one(metavar, lambda words: words[0])
        if kind == Locations:
            return spec_of(tuple[str | Path, ...])
        members, origin = get_args(kind), get_origin(kind)
        if origin is tuple:
            one = spec_of(members[0]) if members[1:] == (...,) else None
            return _several(one) if one else None
        return _one_of(members if origin in (Union, UnionType) else (kind,))

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def found(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        return spec_of(info.type)

    return registry


def _one_of(members: tuple[Any, ...]) -> PrimitiveConstructorSpec | None:
    """One value of these kinds, or None, which the word None gives."""
    kinds = [kind for kind in members if kind is not NoneType]
    if not all(isinstance(kind, Hashable) and kind in KINDS for kind in kinds):
        return None

    def read(words: list[str]) -> Any:
        if words[0] == "None" and NoneType in members:
            return None
        for kind in kinds:
            with suppress(ValueError):
                return kind(words[0])
        raise ValueError(f"expected {' or '.join(KINDS[kind] for kind in kinds)}, got {words[0]!r}")

    return _one("|".join(kind.__name__.upper() for kind in kinds), read)


def _one(metavar: str, read: Callable[[list[str]], Any]) -> PrimitiveConstructorSpec:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [json.dumps(value) if isinstance(value, dict) else str(value)],
    )


def _several(one: PrimitiveConstructorSpec) -> PrimitiveConstructorSpec:
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{one.metavar} ...",
        instance_from_str=lambda words: tuple(one.instance_from_str([word]) for word in words),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: list(map(str, value)),
    )


def _option(field: dataclasses.Field) -> Any:
    return tyro.conf.arg(name=field.name.rstrip("_"), help_behavior_hint=_hint(field))


def _hint(field: dataclasses.Field) -> str | None:
    """What the help shows in the place of the default: nothing for a switch, and for an empty one; None: the default."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return "" if isinstance(default, bool) or default in (None, "", (), {}) else None
