"""The options of a command, from the fields of its config: their names, how their values are read, and what the help shows."""

import dataclasses
import functools
import json
import operator
from copy import copy
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

Config = TypeVar("Config")


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
    """How tyro reads what the config itself parses: as text. (A Path would remove a slash from a URL.)"""
    from worldmodel_v.storage import LocalPath, Locations  # which the config has imported

    metavars: list[tuple[Any, str]] = [(str | Path, "PATH|URL"), (LocalPath, "PATH"), (dict[str, Any], "JSON")]

    def several_as_text(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        if info.type != Locations:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="PATH|URL [PATH|URL ...]",
            instance_from_str=tuple,
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: list(map(str, value)),
        )

    def as_text(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        metavar = next((shown for kind, shown in metavars if info.type == kind), None)
        if metavar is None:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=lambda words: words[0],
            is_instance=lambda value: isinstance(value, str | Path | dict),
            str_from_instance=lambda value: [json.dumps(value) if isinstance(value, dict) else str(value)],
        )

    registry = ConstructorRegistry()
    registry.primitive_rule(as_text)
    registry.primitive_rule(several_as_text)
    return registry


def _option(field: dataclasses.Field) -> Any:
    return tyro.conf.arg(name=field.name.rstrip("_"), help_behavior_hint=_hint(field))


def _hint(field: dataclasses.Field) -> str | None:
    """What the help shows in the place of the default: nothing for a switch, and for an empty one; None: the default."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return "" if isinstance(default, bool) or default in (None, "", (), {}) else None
