"""What functions and classes that a function makes have from it, as `reward` in `scaled(1.6)`, which no file says.

    def scaled(factor):
        def reward(value):
            return factor * value
        return reward

Plain values count: variables of the function around, defaults, and attributes of a class. Those that code assigns elsewhere too
(`nonlocal steps`) may be state and do not count; nor do other objects, nor functions that a method makes, as `World.__init__`:
what they have may be as random as a temporary folder.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any

from worldmodel_v.code.fingerprint import content_of, lives_in_no_file
from worldmodel_v.code.modules import home, is_own, trees_of
from worldmodel_v.code.patched import is_plain, names_assigned


def values_enclosed(
    functions: Iterable[FunctionType], classes: Iterable[type], trees: Mapping[str, ast.Module]
) -> dict[str, str]:
    """`repr` of the plain values that those of them which a function has made have from it, by name:
    `my_world.scaled.<locals>.reward.factor`. Of several with one name, as where `scaled` was called twice, all.

    `trees` are the files that are parsed already, by module.
    """
    written = [each for each in _with_enclosed(functions) if not lives_in_no_file(each)]
    parts: list[tuple[str, str, Mapping[str, Any]]] = [
        *((cls.__module__, cls.__qualname__, vars(cls)) for cls in classes),
        *((home(each), each.__code__.co_qualname, _given(each)) for each in written),
    ]
    parts = [(module, place, values) for module, place, values in parts if _is_of_a_function(place) and is_own(module)]
    modules = {module for module, _, _ in parts}
    trees = {**trees, **trees_of(modules - trees.keys())}
    state = {module: {*names_assigned(trees[module])} for module in modules & trees.keys()}
    found: dict[str, str] = {}
    for module, place, values in parts:
        for attribute, value in values.items():
            if module in state and is_plain(value) and attribute not in state[module] and not attribute.startswith("__"):
                name = f"{module}.{place}.{attribute}"
                found[name] = f"{found.get(name, '')} {value!r}".strip()
    return found


def _is_of_a_function(qualname: str) -> bool:
    """Whether it is defined in a function, and not in a method."""
    maker = qualname.rpartition(".<locals>.")[0].rpartition("<locals>.")[2]
    return bool(maker) and "." not in maker


def _with_enclosed(functions: Iterable[FunctionType]) -> Iterator[FunctionType]:
    """Functions, and those in their variables and defaults, and so on."""
    waiting, met = list(functions), set()
    while waiting:
        function = waiting.pop(0)
        if function not in met:
            met.add(function)
            yield function
            waiting += [value for value in _given(function).values() if isinstance(value, FunctionType)]


def _given(function: FunctionType) -> dict[str, Any]:
    """The variables of the function around it that it uses, and its defaults, by name."""
    code, defaults = function.__code__, function.__defaults__ or ()
    variables = dict(zip(code.co_freevars, map(content_of, function.__closure__ or ()), strict=True))
    of_defaults = zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=True)
    return variables | dict(of_defaults) | (function.__kwdefaults__ or {})
