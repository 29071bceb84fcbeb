"""What a program has set in modules that it loaded, as `my_world.GRAVITY = 1.6` or `World.gravity = 1.6`.

A module's file says what the module sets itself. So what stands there is compared with what the module holds now: numbers,
texts, truth values, None and tuples of them, where the module or one of its classes assigns them once. What code assigns
elsewhere too (`global steps`, `World.count += 1`) may be state and does not count; nor do lists and other objects.
"""

import ast
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from worldmodel_v.envs.fingerprint import PLAIN, module_file

INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
CONSTANT = (ast.Constant, ast.Tuple, ast.UnaryOp, ast.BinOp, ast.unaryop, ast.operator, ast.expr_context)
Scope = ast.Module | ast.ClassDef
ONE_AT_A_TIME = threading.Lock()
"""Where two threads parse at once, Python 3.11 may raise SystemError (https://github.com/python/cpython/issues/106905)."""


def tree_of(module: str) -> ast.Module | None:
    """A loaded module's file, parsed; None if it has none in Python, or none that can be parsed any more."""
    file = module_file(module)
    with suppress(SyntaxError, ValueError, OSError), ONE_AT_A_TIME:
        return ast.parse(file.read_bytes()) if file and file.suffix == ".py" else None
    return None


def trees_of(modules: Iterable[str]) -> dict[str, ast.Module]:
    """`tree_of` of those modules that have one, by name."""
    return {name: tree for name in modules if (tree := tree_of(name))}


def functions_defined(module: str, tree: ast.Module) -> dict[str, Any]:
    """What stands now where a module defines functions without decorators, by their names."""
    names = [each.name for each in tree.body if isinstance(each, ast.FunctionDef) and not each.decorator_list]
    held = vars(sys.modules[module])
    return {name: held[name] for name in names if name in held}


def values_set(trees: Mapping[str, ast.Module]) -> dict[str, str]:
    """`repr` of the plain values that are not those of the modules' files, by name: `my_world.World.gravity`."""
    found: dict[str, str] = {}
    for module, tree in trees.items():
        for name, scope, held in _scopes(module, tree, vars(sys.modules[module])):
            for attribute, written in _written(scope).items():
                value = held.get(attribute, written)
                if _is_plain(value) and repr(value) != repr(written):
                    found[f"{name}.{attribute}"] = repr(value)
    state = {name for tree in trees.values() for name in _assigned_from_elsewhere(tree)} if found else set()
    return {name: value for name, value in found.items() if name.rpartition(".")[2] not in state}


def _scopes(name: str, scope: Scope, held: Any) -> Iterator[tuple[str, Scope, Any]]:
    """A module or class and the classes in it: the name, what its file says, and what it holds now."""
    yield name, scope, held
    for statement in scope.body:
        if isinstance(statement, ast.ClassDef):
            inner, cls = f"{name}.{statement.name}", held.get(statement.name)
            if isinstance(cls, type) and f"{cls.__module__}.{cls.__qualname__}" == inner:
                yield from _scopes(inner, statement, vars(cls))


def _written(scope: Scope) -> dict[str, Any]:
    """The plain values that a module or class assigns once, by name."""
    times = Counter(node.id for node in _without_inner(scope) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    found: dict[str, Any] = {}
    for statement in scope.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=value):
                if times[name] == 1 and value and all(isinstance(node, CONSTANT) for node in ast.walk(value)):
                    with suppress(ArithmeticError, TypeError, ValueError), ONE_AT_A_TIME:  # it was edited since
                        found[name] = eval(compile(ast.Expression(value), "<constant>", "eval"), {})
    return {name: value for name, value in found.items() if _is_plain(value)}


def _without_inner(block: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module or class, without what is in its functions and classes."""
    for node in ast.iter_child_nodes(block):
        yield node
        if not isinstance(node, INNER):
            yield from _without_inner(node)


def _assigned_from_elsewhere(tree: ast.Module) -> Iterator[str]:
    """The names that are declared `global`, and the attributes that are assigned of something else than `self`."""
    for node in ast.walk(tree):
        match node:
            case ast.Global(names=names):
                yield from names
            case ast.Attribute(value=ast.Name(id="self")):
                pass
            case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()):
                yield name


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if type(value) is tuple else type(value) in PLAIN
