"""What a program has set in modules that it loaded, as `my_world.GRAVITY = 1.6` or `World.gravity = 1.6`.

A module's file says what the module sets itself. So what stands there is compared with what the module holds now: plain
values (numbers, texts, truth values, None and tuples of them), and lists and dictionaries of these, where the module or one of
its classes assigns them once. What code changes elsewhere (`global steps`, `World.count += 1`), or may change
(`CACHE[key] = value`, `shuffle(SIZES)`), may be state and does not count; nor do other objects.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from worldmodel_v.code.fingerprint import PLAIN
from worldmodel_v.code.modules import ONE_AT_A_TIME

INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
CONSTANT = (ast.Constant, ast.Tuple, ast.UnaryOp, ast.BinOp, ast.unaryop, ast.operator, ast.expr_context, ast.List, ast.Dict)
READERS = {"get", "keys", "values", "items", "index", "count", "copy"}
COPIERS = {
    *("len", "min", "max", "sum", "any", "all", "sorted", "reversed", "enumerate", "zip", "range"),
    *("list", "tuple", "dict", "set", "frozenset", "array"),
}
"""Methods, and functions, that do not change the list or dictionary that they are given."""

Scope = ast.Module | ast.ClassDef


def functions_defined(module: str, tree: ast.Module) -> dict[str, Any]:
    """What stands now where a module defines functions without decorators, by their names."""
    names = [each.name for each in tree.body if isinstance(each, ast.FunctionDef) and not each.decorator_list]
    held = vars(sys.modules[module])
    return {name: held[name] for name in names if name in held}


def values_set(trees: Mapping[str, ast.Module]) -> dict[str, str]:
    """`repr` of the values that are not those of the modules' files, by name: `my_world.World.gravity`."""
    found: dict[str, Any] = {}
    for module, tree in trees.items():
        for name, scope, held in _scopes(module, tree, vars(sys.modules[module])):
            for attribute, written in _written(scope).items():
                value = held.get(attribute, written)
                if _is_constant(value) and repr(value) != repr(written):
                    found[f"{name}.{attribute}"] = value
    if not found:
        return {}
    assigned, changed = ({name for tree in trees.values() for name in of(tree)} for of in (names_assigned, names_changed))
    state = {name for name, value in found.items() if name.rpartition(".")[2] in (assigned if is_plain(value) else changed)}
    return {name: repr(value) for name, value in found.items() if name not in state}


def _scopes(name: str, scope: Scope, held: Any) -> Iterator[tuple[str, Scope, Any]]:
    """A module or class and the classes in it: the name, what its file says, and what it holds now."""
    yield name, scope, held
    for statement in scope.body:
        if isinstance(statement, ast.ClassDef):
            inner, cls = f"{name}.{statement.name}", held.get(statement.name)
            if isinstance(cls, type) and f"{cls.__module__}.{cls.__qualname__}" == inner:
                yield from _scopes(inner, statement, vars(cls))


def _written(scope: Scope) -> dict[str, Any]:
    """The constants that a module or class assigns once, by name, without empty lists and dictionaries, which code may fill."""
    times = Counter(node.id for node in _without_inner(scope) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    found: dict[str, Any] = {}
    for statement in scope.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=value):
                if times[name] == 1 and value and all(isinstance(node, CONSTANT) for node in ast.walk(value)):
                    with suppress(ArithmeticError, TypeError, ValueError), ONE_AT_A_TIME:  # it was edited since
                        found[name] = eval(compile(ast.Expression(value), "<constant>", "eval"), {})
    return {name: value for name, value in found.items() if _is_constant(value) and (is_plain(value) or value)}


def _without_inner(block: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module or class, without what is in its functions and classes."""
    for node in ast.iter_child_nodes(block):
        yield node
        if not isinstance(node, INNER):
            yield from _without_inner(node)


def names_assigned(tree: ast.Module) -> Iterator[str]:
    """The names that are declared `global` or `nonlocal`, and attributes that are assigned of something else than `self`."""
    for node in ast.walk(tree):
        match node:
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                yield from names
            case ast.Attribute(value=ast.Name(id="self")):
                pass
            case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()):
                yield name


def names_changed(tree: ast.Module) -> Iterator[str]:
    """The same of lists and dictionaries: also the names that are used for anything but reading."""
    yield from names_assigned(tree)
    only_read = {id(part) for node in ast.walk(tree) for part in _parts_read(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load) and id(node) not in only_read:
            yield node.id if isinstance(node, ast.Name) else node.attr


def _parts_read(node: ast.AST) -> list[ast.expr]:
    """The parts of an expression or loop that it reads without changing them."""
    match node:
        case ast.Subscript(value=part, ctx=ast.Load()) | ast.Starred(value=part, ctx=ast.Load()):
            return [part]
        case ast.For(iter=part) | ast.comprehension(iter=part):
            return [part]
        case ast.Attribute(value=part, attr=name) if name in READERS:
            return [part]
        case ast.Compare(left=left, comparators=others):
            return [left, *others]
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=parts) if name in COPIERS:
            return parts
        case ast.Call(keywords=keywords):
            return [keyword.value for keyword in keywords if keyword.arg is None]
    return []


def _is_constant(value: Any) -> bool:
    if type(value) is dict:
        return all(map(is_plain, [*value, *value.values()]))
    return all(map(is_plain, value)) if type(value) is list else is_plain(value)


def is_plain(value: Any) -> bool:
    """Whether it is a number, a text, a truth value, None, a range, or a tuple of them."""
    return all(map(is_plain, value)) if type(value) is tuple else type(value) in PLAIN
