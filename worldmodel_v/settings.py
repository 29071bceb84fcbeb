"""What a setting may be: declared beside its type, as `Annotated[int, Ge(1)]` or a Literal, and checked here alone."""

from collections.abc import Sequence
from functools import cache
from numbers import Real
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Le, Lt

from worldmodel_v.errors import ConfigError

MAX_NUMBER = 1e30
"""Of a float: leaves room for sums and products in float32."""


def require_settings(config: Any) -> None:
    """Raise ConfigError if a value of a config is none that its type declares.

    A Literal takes its values, a number must lie within the bounds of its Annotated type. Every number must be one that can be
    recorded and read again: a whole one below 2^63, another finite and at most `MAX_NUMBER`. None is always taken.
    """
    for name, hint in _declared(config.__class__).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise ConfigError(field=name, expected=_listed(get_args(hint)), got=value)
        bounds = _bounds(hint)
        if bounds and not isinstance(value, Real | None):
            raise ConfigError(field=name, expected="a number", got=value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            _require_number(name, value, bounds)


def require_at_least(bound: int, **arguments: int) -> None:
    """Raise ConfigError if an argument of a function is below the bound."""
    for name, value in arguments.items():
        _require_number(name, value, [Ge(bound)])


@cache
def _declared(config_class: type) -> dict[str, Any]:
    return get_type_hints(config_class, include_extras=True)


def _bounds(hint: Any) -> list[Any]:
    """The bounds of an Annotated type (Ge, Gt, Le, Lt), the lower one first."""
    if get_origin(hint) is not Annotated:
        return []
    given = [each for each in get_args(hint)[1:] if isinstance(each, BaseMetadata | GroupedMetadata)]
    return [bound for each in given for bound in (each if isinstance(each, GroupedMetadata) else [each])]


def _listed(choices: Sequence[Any]) -> str:
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}"


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
