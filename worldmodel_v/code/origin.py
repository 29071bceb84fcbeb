"""Where code comes from, so that changed code does not continue the data of the old.

The packages of classes and functions are recorded with their versions, and files outside of packages, such as a user's own,
with their SHA-256. So are those that these import whenever they are loaded; not what a function, an `if` or the started
program imports, because a worker may not have loaded it. Where another module than the class's has a method, as one that a
program has replaced, the method is recorded with that function's name, so a worker without it is told. A class that is in no
file, as in a notebook, is recorded with the SHA-256 of its code (`fingerprint`). PyTorch, in which this package's own policies
compute too, is not recorded: nodes with and without a GPU have builds of other names.
"""

import ast
import functools
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import FunctionType, MethodType
from typing import Any

from worldmodel_v.code.enclosed import values_enclosed
from worldmodel_v.code.fingerprint import lives_in_no_file, sha256_of_code
from worldmodel_v.code.modules import INSTALLED, KNOWN, home, is_own, module_file, tree_of, trees_of
from worldmodel_v.code.patched import functions_defined, values_set
from worldmodel_v.storage.checksum import sha256_of_file

GYMNASIUMS_OWN = "gymnasium.envs."
"""Known modules that programs change nevertheless: `lunar_lander.MAIN_ENGINE_POWER = 20.0`."""
IN_NO_FILE = " (in no file)"


def code_source(code: Callable, *modules: str) -> dict[str, str]:
    """Version by package, SHA-256 by module file (`my_env.py`) or by class that is in no file: of a class, its bases' too, or
    of a function, and of modules that count beside it."""
    if isinstance(code, FunctionType):
        return classes_source([], [], {*modules, code.__module__}, [code])
    classes = (code if isinstance(code, type) else type(code)).__mro__
    return classes_source([cls for cls in classes if cls.__module__.partition(".")[0] != "torch"], [], {*modules})


def held_in_common(source: dict[str, str]) -> dict[str, str]:
    """The part of a source that another process can have too: without the started program, and without code in no file."""
    return {
        name: value for name, value in source.items() if not name.endswith(IN_NO_FILE) and name.partition(".")[0] != "__main__"
    }


def _code(parts: Sequence[type | FunctionType]) -> dict[str, str]:
    """SHA-256 by name, of those that live in no file; of several of one name, as where a class was edited, all."""
    source: dict[str, str] = {}
    for part in dict.fromkeys(parts):
        if lives_in_no_file(part):
            name = f"{part.__module__}.{part.__qualname__}{IN_NO_FILE}"
            source[name] = f"{source.get(name, '')} {sha256_of_code(part)}".strip()
    return source


def classes_source(
    classes: Sequence[type], holders: Sequence[Any], modules: set[str], code: Sequence[FunctionType] = ()
) -> dict[str, str]:
    """The source of classes, of the functions that layers of an environment hold, and of further modules and functions; with
    what a program has set in them and given to them."""
    homes = {cls.__module__ for cls in classes}
    reached = _with_imported(modules | homes)
    trees = trees_of(sorted(reached | {name for name in homes if name.startswith(GYMNASIUMS_OWN)}))
    places: list[tuple[str, str, Mapping[str, Any]]] = [
        *((cls.__module__, f".{cls.__qualname__}", vars(cls)) for cls in classes),
        *((type(holder).__module__, f".{type(holder).__qualname__}", vars(holder)) for holder in holders),
        *((module, "", functions_defined(module, tree)) for module, tree in trees.items()),
    ]
    functions, foreign = [*code], [*code]
    said = values_set(trees)
    for module, place, values in places:
        for attribute, value in values.items():
            name = f"{module}{place}.{attribute}"
            for function in _functions_behind(value):
                functions.append(function)
                if _is_foreign(function, module):
                    foreign.append(function)
                    said[name] = f"{said.get(name, '')} {home(function)}.{function.__code__.co_qualname}".strip()
    said |= values_enclosed(functions, classes, trees)
    return _origins(reached | _with_imported({*map(home, foreign)})) | _code([*classes, *foreign]) | said


def _functions_behind(value: Any) -> Iterator[FunctionType]:
    """A function, that of a method or of a property, and those that it wraps. Runs no code of the value's."""
    met: list[Any] = []
    while value is not None and not any(value is each for each in met):
        if isinstance(value, MethodType | classmethod | staticmethod):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        met.append(value)
        if isinstance(value, FunctionType):
            yield value
        value = inspect.getattr_static(value, "__wrapped__", None)


def _is_foreign(function: FunctionType, module: str) -> bool:
    """Whether it is of another module than where it stands, as what a program has put there or TransformReward applies."""
    there = home(function)
    return bool(there) and there != module and there.partition(".")[0] not in KNOWN


def _origins(modules: set[str]) -> dict[str, str]:
    source: dict[str, str] = {}
    for name in sorted(modules):
        source |= _origin(name)
    return source


def _with_imported(modules: set[str]) -> set[str]:
    """The modules that are not known, and the files outside of packages that these import, and so on."""
    waiting = [name for name in modules if name.partition(".")[0] not in KNOWN]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += filter(_is_own_file, _imported_by(name) if _is_own_file(name) else ())
    return found


def _is_own_file(module: str) -> bool:
    return is_own(module) and module != "__main__"


def _imported_by(module: str) -> Iterator[str]:
    """What a module's file imports whenever it is loaded, and the packages that it is in; names of others may be among them."""
    yield module.rpartition(".")[0]
    with suppress(ImportError):  # it was edited since
        for statement in _always_run(tree_of(module) or ast.Module([], [])):
            if isinstance(statement, ast.Import):
                yield from (alias.name for alias in statement.names)
            elif isinstance(statement, ast.ImportFrom):
                relative = "." * statement.level + (statement.module or "")
                base = importlib.util.resolve_name(relative, sys.modules[module].__package__)
                yield from (base, *(f"{base}.{alias.name}" for alias in statement.names))


def _always_run(block: ast.AST) -> Iterator[ast.AST]:
    """The statements in a block, and in the blocks of `try`, `with` and `class` inside it."""
    for statement in ast.iter_child_nodes(block):
        yield statement
        if isinstance(statement, ast.Try | ast.With | ast.ClassDef):
            yield from _always_run(statement)


def packages_of(modules: Iterable[str]) -> dict[str, str]:
    """The packages, with their versions, that loaded modules were installed with."""
    tops = {name.partition(".")[0] for name in modules if (file := module_file(name)) and INSTALLED & set(file.parts)}
    found = _distributions() if tops else {}
    return {package: importlib.metadata.version(package) for top in sorted(tops) for package in found.get(top, [])}


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """The packages by the names of their modules; read once, in a tenth of a second."""
    return importlib.metadata.packages_distributions()


def _origin(module: str) -> dict[str, str]:
    """The package that a module was installed with, or else its file."""
    file = module_file(module)
    if file is None:
        return {}
    if packages := packages_of([module]):
        return packages
    folder = module.replace(".", "/")
    return {f"{folder}/{file.name}" if file.stem == "__init__" else f"{folder}{file.suffix}": sha256_of_file(file)}
