"""What a setting may be: declared beside its type, as `Annotated[int, Ge(1)]` or a Literal, and checked here alone."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Le, Lt

from worldmodel_v.errors import ConfigError

MAX_NUMBER = 1e30
"""Of a float: leaves room for sums and products in float32."""


def require_settings(config: Any) -> None:
    """Raise ConfigError if a value of a config is none that its type declares.

    A Literal takes its values, a number must lie within the bounds of its Annotated type. Every number must be one that can be
    recorded and read again: a whole one below 2^63, another finite and at most `MAX_NUMBER`. Numbers of NumPy become
    Python's, and paths what `local_path` makes of them.
    """
    for name, hint in _declared(config.__class__).items():
        value = getattr(config, name)
        if isinstance(value, np.generic | Path):
            value = local_path(value) if isinstance(value, Path) else value.item()
            object.__setattr__(config, name, value)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise ConfigError(field=name, expected=_listed(get_args(hint)), got=value)
        kinds = _kinds(hint)
        if kinds and not any(is_of(value) for _, is_of in kinds):
            raise ConfigError(field=name, expected=_listed([kind for kind, _ in kinds if kind]), got=value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            _require_number(name, value, _bounds(hint))


def local_path(path: str | Path) -> Path:
    """A path; `~/` at its beginning is the home directory, as shells leave it in `--out=~/runs`.

    Raises ConfigError if the home directory is not known.
    """
    if not re.match("~(/|$)", str(path)):
        return Path(path)
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError("begins with ~, and your home directory is not known", where=path, remedy="give all of it") from None


def require_at_least(bound: int, **arguments: int) -> None:
    """Raise ConfigError if an argument of a function is no whole number, or below the bound."""
    for name, value in arguments.items():
        if not isinstance(value, int | np.integer):
            raise ConfigError(field=name, expected="a whole number", got=value)
        _require_number(name, value, [Ge(bound)])


@cache
def _declared(config_class: type) -> dict[str, Any]:
    return get_type_hints(config_class, include_extras=True)


def _kinds(hint: Any) -> list[tuple[str, Callable[[Any], bool]]]:
    """The kinds of value that a type declares, in words; none for types that their owners check."""
    members = get_args(hint)
    if get_origin(hint) is Annotated:
        return _kinds(members[0])
    if get_origin(hint) in (UnionType, Union):
        kinds = [_kinds(member) for member in members]
        return [kind for each in kinds for kind in each] if all(kinds) else []
    if hint in (tuple[str, ...], tuple[int, ...]):
        words, (_, is_member) = ("texts" if members[0] is str else "whole numbers"), KINDS[members[0]]
        return [(f"a list of {words}", lambda value: isinstance(value, tuple | list) and all(map(is_member, value)))]
    return [KINDS[hint]] if isinstance(hint, type) and hint in KINDS else []


def _is_text(value: Any) -> bool:
    return isinstance(value, str | PathLike)


KINDS: dict[type, tuple[str, Callable[[Any], bool]]] = {
    bool: ("True or False", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    str: ("a text", _is_text),
    NoneType: ("", lambda value: value is None),
}
"""In words, and whether a value is one. What may be None need not be said."""


def _bounds(hint: Any) -> list[Any]:
    """The bounds of an Annotated type (Ge, Gt, Le, Lt), the lower one first."""
    if get_origin(hint) is not Annotated:
        return []
    given = [each for each in get_args(hint)[1:] if isinstance(each, BaseMetadata | GroupedMetadata)]
    return [bound for each in given for bound in (each if isinstance(each, GroupedMetadata) else [each])]


def _listed(choices: Sequence[Any]) -> str:
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}" if others else last


def _require_number(name: str, value: float, bounds: list[Any]) -> None:
    if not any(isinstance(bound, Le | Lt) for bound in bounds):
        _require_recordable(name, value)
    for bound in bounds:
        if not _holds(value, bound):
            raise ConfigError(field=name, expected=_in_words(bound, bounds), got=value)


def _require_recordable(name: str, value: float) -> None:
    if isinstance(value, float) and not abs(value) <= MAX_NUMBER:
        raise ConfigError(field=name, expected=f"a finite number, at most {MAX_NUMBER:g}", got=value)
    if isinstance(value, int) and value >= 2**63:
        raise ConfigError(field=name, expected="a number below 2^63", got=value)


def _holds(value: Any, bound: Any) -> bool:
    match bound:
        case Ge(number):
            holds = value >= number
        case Gt(number):
            holds = value > number
        case Le(number):
            holds = value <= number
        case Lt(number):
            holds = value < number
        case _:
            raise TypeError(f"{bound!r} is no bound of a number")
    return bool(holds)


def _in_words(broken: Any, bounds: list[Any]) -> str:
    match broken, bounds:
        case _, [Ge(least), Le(most)]:
            return f"{least:g} to {_readable(most)}"
        case Gt(0), _:
            return "a positive number"
        case Ge(least), _:
            return f"at least {least}"
        case Le(most), _:
            return f"at most {_readable(most)}"
        case Lt(high), _:
            return f"a number below {_readable(high)}"
    raise TypeError(f"{broken!r} is no bound of a number")


def _readable(number: Any) -> str:
    """A large power of two, or one less, as such: 2^32, 2^31 - 1."""
    for less in (0, 1):
        if isinstance(number, int) and number > 1 << 24 and (number + less).bit_count() == 1:
            return f"2^{(number + less).bit_length() - 1}" + (" - 1" if less else "")
    return f"{number:g}" if isinstance(number, float) else f"{number}"
