"""The SHA-256 of code that is in no file: from a notebook, an interpreter, standard input, or `exec`.

The compiled code is hashed, because only a notebook still has the source: bytecode, defaults, class attributes, and what a
function uses by a global name, if that is in no file either. Plain values and arrays count too, so an edited constant changes
the hash. Line numbers and comments do not count. The price: another version of Python gives another hash.

Of an object whose class comes from a file, only the class counts, because its state may change while episodes are played.
Globals that a function assigns do not count. A list or dictionary that episodes change gives another hash afterwards.
"""

import dis
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType, NoneType, SimpleNamespace
from typing import Any

import numpy as np

from worldmodel_v.code.modules import module_file

IN_NO_FILE = re.compile(r"<.*>|.*/ipykernel_\d+/.*")
"""The file names that Python and notebooks give to code that they compile from a text."""

NOT_CODE = {"__dict__", "__weakref__", "__firstlineno__", "__static_attributes__", "_abc_impl"}
GENERATORS_STATE = "_np_random"
"""Where a Gymnasium space keeps its generator."""

MADE_BY_A_CLASS_STATEMENT = 1 << 9
"""In a class's flags (Py_TPFLAGS_HEAPTYPE). `exec` without a `__name__` calls the module of its classes `builtins`."""

PLAIN = (NoneType, bool, int, float, complex, str, bytes, range)


def lives_in_no_file(code: Callable) -> bool:
    """Whether a class, one of its methods, or a function is in no file."""
    if any(IN_NO_FILE.fullmatch(function.__code__.co_filename) for function in functions_of(code)):
        return True
    if code.__module__ == "builtins":
        return isinstance(code, type) and bool(code.__flags__ & MADE_BY_A_CLASS_STATEMENT)
    return code.__module__ not in sys.stdlib_module_names and module_file(code.__module__) is None


def sha256_of_code(code: Callable) -> str:
    """SHA-256 (hexadecimal) of a class, without its bases, or of a function: the same wherever the same text is run again."""
    digest = hashlib.sha256()
    for token in _Tokens().of(code):
        digest.update(f"{len(token)}:{token}".encode(errors="surrogatepass"))
    return digest.hexdigest()


def functions_of(code: Callable) -> list[FunctionType]:
    """A function, or a class's own methods, without those that dataclasses and attrs generate."""
    if not isinstance(code, type):
        return [code] if isinstance(code, FunctionType) else []
    are_written = hasattr(code, "__dataclass_fields__") or hasattr(code, "__attrs_attrs__")
    functions = {name: value for name, value in vars(code).items() if isinstance(value, FunctionType)}
    return [function for name, function in functions.items() if not (are_written and name.startswith("__"))]


class _Tokens:
    """Words that describe a value. A value met before is given by its number, because functions may call each other."""

    def __init__(self) -> None:
        self._met: dict[int, tuple[int, Any]] = {}

    def of(self, value: Any) -> Iterator[str]:
        yield _name(type(value))
        if isinstance(value, PLAIN):
            yield repr(value)
        elif isinstance(value, tuple | frozenset | CodeType):  # equal ones may or may not be one object
            yield from self._parts(value)
        elif id(value) in self._met:
            yield f"met as {self._met[id(value)][0]}"
        else:
            self._met[id(value)] = len(self._met), value
            yield from self._parts(value)

    def _parts(self, value: Any) -> Iterator[str]:
        """The parts of a value, without those that may be state."""
        match value:
            case CodeType():
                yield from self._code(value)
            case type() | FunctionType():
                yield _name(value)
                if lives_in_no_file(value):
                    yield from self._class(value) if isinstance(value, type) else self._function(value)
            case ModuleType() | BuiltinFunctionType():
                yield value.__name__
            case tuple() | list():
                for item in value:
                    yield from self.of(item)
            case set() | frozenset():
                yield from sorted(repr(list(_Tokens().of(item))) for item in value)
            case Mapping():
                yield from self._mapping(value)
            case np.ndarray() | np.generic():
                yield f"{value.dtype} {value.shape}"
                yield from self.of(value.tolist() if value.dtype.hasobject else value.tobytes())
            case _ if isinstance(value, SimpleNamespace) or _is_space(value):
                yield from self._mapping({name: part for name, part in vars(value).items() if name != GENERATORS_STATE})
            case _:
                yield from self._object(value)

    def _object(self, value: Any) -> Iterator[str]:
        match value:
            case staticmethod() | classmethod() | MethodType():
                yield from self.of(value.__func__)
            case property():
                yield from self.of((value.fget, value.fset, value.fdel))
            case functools.partial():
                yield from self.of((value.func, value.args, value.keywords))
            case functools.cached_property():
                yield from self.of(value.func)
            case CellType():
                yield from self.of(content_of(value))
            case _ if inspect.getattr_static(value, "__wrapped__", None) is not None:  # functools.cache, numba.njit
                yield from self.of(value.__wrapped__)
            case _ if lives_in_no_file(type(value)):
                yield from self.of(type(value))
                yield from self._mapping(getattr(value, "__dict__", {}))

    def _code(self, code: CodeType) -> Iterator[str]:
        yield from (repr(code.co_code), repr(code.co_exceptiontable), str(code.co_flags))
        yield from (str(code.co_argcount), str(code.co_posonlyargcount), str(code.co_kwonlyargcount))
        yield from (*code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars)
        yield from self.of(code.co_consts)

    def _class(self, cls: type) -> Iterator[str]:
        yield from map(_name, cls.__bases__)
        yield from self._mapping({name: value for name, value in vars(cls).items() if name not in NOT_CODE})

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield from self.of((function.__code__, function.__defaults__, function.__kwdefaults__, function.__closure__))
        reached = sorted(globals_read(function.__code__) & function.__globals__.keys())
        yield from self._mapping({name: function.__globals__[name] for name in reached})

    def _mapping(self, mapping: Mapping[Any, Any]) -> Iterator[str]:
        for key, value in mapping.items():
            yield from self.of(key)
            yield from self.of(value)


def globals_read(code: CodeType) -> set[str]:
    """The global names that a function and its inner functions read, without those that it assigns: these are its state."""
    instructions = list(dis.get_instructions(code))
    read = {each.argval for each in instructions if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            read |= globals_read(inner)
    return read - {each.argval for each in instructions if each.opname == "STORE_GLOBAL"}


def content_of(cell: CellType) -> Any:
    """What a variable that functions share holds; None if it holds nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:  # the cell is empty
        return None


def _is_space(value: Any) -> bool:
    """Whether it is a space of Gymnasium's, which need not be installed."""
    gymnasium = sys.modules.get("gymnasium")
    return gymnasium is not None and isinstance(value, gymnasium.Space)


def _name(code: type | FunctionType) -> str:
    return f"{code.__module__}.{code.__qualname__}"
