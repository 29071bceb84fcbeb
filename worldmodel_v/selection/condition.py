"""A condition on an episode in one line: `return > 100 and policy == 'driver'`.

It is parsed with Python's own grammar, and every node is then checked: names of facts, numbers, texts, True and False,
comparisons, `in`, `and`, `or`, `not`. Everything else is refused before anything is evaluated, and so is a comparison of a
number with a text, which would be False for every episode. Python's `eval` sees nothing of it.

`return` is a keyword of Python, so the parser is given another word in its place.
"""

import ast
import io
import operator
import tokenize
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from worldmodel_v.errors import ConfigError

KINDS = {
    **{"episode": "number", "return": "number", "length": "number", "seed": "number", "source": "number"},
    **{"policy": "text", "terminated": "truth", "truncated": "truth"},
}
"""The facts of an episode -> the kind of their values. `length` is the number of actions; `source` is the place of its dataset
among those that are selected from, from 0."""

ENDINGS = ("terminated", "truncated")

MAX_CHARACTERS = 1000

Facts = Mapping[str, Any]
Evaluate = Callable[[Facts], Any]

_RETURN = "return_"
_IN_WORDS = {"number": "a number", "text": "a text", "truth": "True or False"}
_ORDERS = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}
_TESTS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {ast.Eq: operator.eq, ast.NotEq: operator.ne, **_ORDERS}


@dataclass(frozen=True)
class Condition:
    """A parsed condition."""

    text: str

    holds: Evaluate
    """Whether it holds for the facts of an episode."""

    names: frozenset[str]
    """The facts that it needs."""


def parse_condition(text: str) -> Condition:
    """Read a condition; raises ConfigError, which says what is wrong and which names there are."""
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        _refuse(text, f"has {len(text)} characters, expected at most {MAX_CHARACTERS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(_without_keyword(text), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        _refuse(text, f"is not an expression ({getattr(error, 'msg', None) or 'it cannot be parsed'})")
    reader = _Reader(text)
    try:
        kind, evaluate = reader.read(tree)
    except RecursionError:
        _refuse(text, "is nested too deeply")
    if kind != "truth":
        _refuse(text, f"is {_IN_WORDS[kind]}, and no condition")
    return Condition(text, evaluate, frozenset(reader.names))


def _without_keyword(text: str) -> str:
    """The text with another name in the place of `return`, outside of strings."""
    try:
        tokens = [(each.type, each.string) for each in tokenize.generate_tokens(io.StringIO(text).readline)]
    except (tokenize.TokenError, IndentationError) as error:
        raise SyntaxError(error.args[0]) from None
    if any(name == _RETURN for _, name in tokens):
        raise SyntaxError(f"unknown name {_RETURN}")
    return tokenize.untokenize(
        (kind, _RETURN if (kind, word) == (tokenize.NAME, "return") else word) for kind, word in tokens
    ).strip()


class _Reader:
    """Checks a syntax tree, and makes it a function of an episode's facts."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.names: set[str] = set()

    def read(self, node: ast.expr) -> tuple[str, Evaluate]:
        """The kind of its value, and how it is computed; raises ConfigError."""
        match node:
            case ast.Name():
                return self._name(node.id)
            case ast.Constant(value=bool() as value):
                return "truth", lambda _: value
            case ast.Constant(value=int() | float() as value):
                return "number", lambda _: value
            case ast.Constant(value=str() as value):
                return "text", lambda _: value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if not isinstance(
                value, bool
            ):
                return "number", lambda _: -value
            case ast.UnaryOp(op=ast.Not()):
                negated = self._truth(node.operand)
                return "truth", lambda facts: not negated(facts)
            case ast.BoolOp():
                parts = [self._truth(part) for part in node.values]
                every = isinstance(node.op, ast.And)
                return "truth", lambda facts: (all if every else any)(part(facts) for part in parts)
            case ast.Compare():
                return "truth", self._comparisons(node)
        raise self._unknown(node)

    def _name(self, name: str) -> tuple[str, Evaluate]:
        fact = "return" if name == _RETURN else name
        if fact not in KINDS:
            _refuse(self._text, f"unknown name {fact}")
        self.names.add(fact)
        return KINDS[fact], operator.itemgetter(fact)

    def _truth(self, node: ast.expr) -> Evaluate:
        kind, evaluate = self.read(node)
        if kind != "truth":
            _refuse(self._text, f"{_said(node)} is {_IN_WORDS[kind]}, and no condition")
        return evaluate

    def _comparisons(self, node: ast.Compare) -> Evaluate:
        """All comparisons of a chain such as `0 < return < 100`."""
        operands = [node.left, *node.comparators]
        parts = [
            self._comparison(left, test, right) for left, test, right in zip(operands, node.ops, operands[1:], strict=False)
        ]
        return lambda facts: all(part(facts) for part in parts)

    def _comparison(self, left: ast.expr, test: ast.cmpop, right: ast.expr) -> Evaluate:
        kind, of_left = self.read(left)
        if isinstance(test, ast.In | ast.NotIn):
            of_right = self._container(kind, left, right)
            inside = isinstance(test, ast.In)
            return lambda facts: (of_left(facts) in of_right(facts)) == inside
        other, of_right = self.read(right)
        compare = _TESTS.get(type(test))
        if compare is None:
            _refuse(self._text, "compares with `is`; write == or !=")
        if kind != other:
            self._refuse_kinds(left, kind, right, other)
        if kind == "truth" and type(test) in _ORDERS:
            _refuse(self._text, f"{_said(left)} is True or False, which have no order")
        return lambda facts: compare(of_left(facts), of_right(facts))

    def _container(self, kind: str, left: ast.expr, right: ast.expr) -> Evaluate:
        """What stands after `in`: a list of values of the same kind, or a fact that is a text, to search in."""
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            values = []
            for item in right.elts:
                other, value = self.read(item)
                if other != kind:
                    self._refuse_kinds(left, kind, item, other)
                values.append(value)
            return lambda facts: [value(facts) for value in values]
        other, of_right = self.read(right)
        if (kind, other) != ("text", "text") or isinstance(right, ast.Constant):  # ('a') is no list, as its author may think
            pair = "('a', 'b')" if kind == "text" else "(1, 2)"
            _refuse(self._text, f"{_said(right)} is {_IN_WORDS[other]}, and no list; write it as in {pair}")
        return of_right

    def _refuse_kinds(self, left: ast.expr, kind: str, right: ast.expr, other: str) -> NoReturn:
        _refuse(self._text, f"compares {_said(left)} ({_IN_WORDS[kind]}) with {_said(right)} ({_IN_WORDS[other]})")

    def _unknown(self, node: ast.expr) -> ConfigError:
        kind = type(node.value if isinstance(node, ast.Constant) else node).__name__
        return _error(self._text, f"{_said(node)} ({kind}) is not allowed; compare facts with numbers and texts")


def _said(node: ast.expr) -> str:
    """A part of the condition, as its author wrote it, or nearly so."""
    text = ast.unparse(node).replace(_RETURN, "return")
    return text if len(text) <= 60 else f"{text[:60]}…"


def _refuse(text: str, what: str) -> NoReturn:
    raise _error(text, what)


def _error(text: str, what: str) -> ConfigError:
    return ConfigError(what, field="where", got=text, remedy=f"the names are {', '.join(KINDS)}")
