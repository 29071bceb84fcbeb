"""What functions and classes that a function makes have from it, as `reward` in `scaled(1.6)`, which no file says.

    def scaled(factor):
        def reward(value):
            return factor * value
        return reward

Plain values count: variables of the function around, defaults, and attributes of a class. Those that code assigns elsewhere too
(`nonlocal steps`) may be state and do not count; nor do other objects, nor functions that a method makes, as `World.__init__`:
what they have may be as random as a temporary folder.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any

from worldmodel_v.envs.fingerprint import content_of, lives_in_no_file
from worldmodel_v.envs.modules import home, is_own, tree_of
from worldmodel_v.envs.patched import is_plain, names_assigned


def values_enclosed(functions: Iterable[FunctionType], classes: Iterable[type]) -> dict[str, str]:
    """`repr` of the plain values that those of them which a function has made have from it, by name:
    `my_world.scaled.<locals>.reward.factor`. Of several with one name, as where `scaled` was called twice, all."""
    written = [each for each in _with_enclosed(functions) if not lives_in_no_file(each)]
    parts: list[tuple[str, str, Mapping[str, Any]]] = [
        *((cls.__module__, cls.__qualname__, vars(cls)) for cls in classes),
        *((home(each), each.__code__.co_qualname, _given(each)) for each in written),
    ]
    found: dict[str, str] = {}
    for module, place, values in parts:
        maker = place.rpartition(".<locals>.")[0].rpartition("<locals>.")[2]
        if maker and "." not in maker and is_own(module) and (tree := tree_of(module)):
            state = set(names_assigned(tree))
            for attribute, value in values.items():
                if is_plain(value) and attribute not in state and not attribute.startswith("__"):
                    name = f"{module}.{place}.{attribute}"
                    found[name] = f"{found.get(name, '')} {value!r}".strip()
    return found


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
