"""Untrusted JSON and other text: it is parsed, or refused with ValueError and no other error; and how it may be shown."""

import json
import re
import types
from dataclasses import fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin

MAX_SHOWN = 300
"""Characters of somebody else's text that a message quotes."""

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, line breaks, what turns the direction of writing or is invisible, halves of surrogate pairs."""


def printable(text: str) -> str:
    """`text` in one line that a terminal only shows: what it would obey instead is spelled out, as `\\x1b` or `\\u202e`."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shortened(text: str, most: int = MAX_SHOWN) -> str:
    """`text`, of which at most `most` characters are kept, and how many were left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The JSON object in an untrusted text; raises ValueError, and no other error, if it is no JSON object.

    It also refuses a name that appears twice, is longer than 200 characters or is not printable, a whole number of more than
    20 digits, and deep nesting.
    """
    try:
        content = json.loads(text, object_pairs_hook=_without_doubles, parse_int=_whole_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"expected an object (name: value), found {type(content).__name__}")
    return content


def is_name(text: str) -> bool:
    """Whether a message may show an untrusted text as it is: one short line, without control characters for a terminal."""
    return len(text) <= 200 and text.isprintable()


def require_types(values: dict[str, Any], record: type) -> None:
    """Raise ValueError unless each value that parsed JSON holds is of the type that the dataclass `record` declares for it."""
    for each in fields(record):
        if each.name in values and not _is_of(values[each.name], each.type):
            declared = get_args(each.type)[0] if get_origin(each.type) is Annotated else each.type
            expected = getattr(declared, "__name__", declared)
            raise ValueError(f"{each.name}: expected {expected}, found {type(values[each.name]).__name__}")


def _is_of(value: Any, expected: Any) -> bool:
    kind, members = get_origin(expected) or expected, get_args(expected)
    if kind is Annotated:
        return _is_of(value, members[0])
    if kind is Literal:
        return any(type(value) is type(member) for member in members)  # the caller checks the value
    if kind is Any:
        return True
    if kind is None or kind is types.NoneType:
        return value is None
    if kind in (types.UnionType, Union):
        return any(_is_of(value, member) for member in members)
    if kind is tuple:
        return isinstance(value, list) and all(_is_of(item, members[0]) for item in value)
    if kind is dict:
        return isinstance(value, dict) and (members[1] is Any or all(_is_of(item, members[1]) for item in value.values()))
    return type(value) is kind or (kind is float and type(value) is int)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name stands twice")
    if not all(is_name(name) for name in content):
        raise ValueError("a name is longer than 200 characters, or not printable")
    return content


def _whole_number(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)
