"""How a policy is written in one line: a name, its numbers, and the policies inside it.

driver
driver(speed=40, noise=0.2)
random-start(driver(noise=0.5))
mixture(4*driver, 2*random-start(driver), 1*brownian)
my_module:make_policy(sharpness=2)

policy   := NAME [ "(" argument { "," argument } ")" ]
argument := KEY "=" NUMBER  |  [ NUMBER "*" ] policy
"""

import math
import re
from dataclasses import dataclass
from typing import NoReturn

from worldmodel_v.errors import PolicyNotUsable

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"|(?P<name>[A-Za-z_.][\w.-]*(?::(?:~/)?[\w./-]+)*:?)"
    r"|(?P<mark>[(),*=])|(?P<end>$))"
)


MAX_DEPTH = 10
MAX_LENGTH = 10_000
"""Characters."""


@dataclass(frozen=True)
class PolicyExpression:
    """A parsed policy."""

    name: str
    numbers: dict[str, float]
    """Arguments by name."""

    inner: tuple[tuple[float, "PolicyExpression"], ...]
    """The policies inside, with their weights (1 where none is written)."""

    def names(self) -> list[str]:
        """The names of this policy and of all policies inside it."""
        return [self.name, *(name for _, policy in self.inner for name in policy.names())]

    def __str__(self) -> str:
        inner = [f"{'' if weight == 1 else f'{_exact(weight)}*'}{policy}" for weight, policy in self.inner]
        arguments = [*inner, *(f"{key}={_exact(value)}" for key, value in self.numbers.items())]
        return f"{self.name}({', '.join(arguments)})" if arguments else self.name


def _exact(number: float) -> str:
    """The shortest text that is this number again."""
    return repr(number).removesuffix(".0")


def parse_policy(text: str) -> PolicyExpression:
    """Read a policy's line; raises PolicyNotUsable, which names the first character that is wrong."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise PolicyNotUsable(f"policy {text[:50]!r}…: has {len(text)} characters, expected at most {MAX_LENGTH}")
        self._text, self._start, self._position, self._depth = text, 0, 0, 0
        self._advance()

    def whole(self) -> PolicyExpression:
        policy = self._policy()
        if self._kind != "end":
            self._refuse("nothing more")
        return policy

    def _policy(self) -> PolicyExpression:
        name = self._take("name", "the name of a policy")
        numbers: dict[str, float] = {}
        inner: list[tuple[float, PolicyExpression]] = []
        if self._value == "(":
            self._depth += 1
            if self._depth > MAX_DEPTH:
                self._refuse(f"at most {MAX_DEPTH} policies inside each other")
            self._advance()
            while True:
                self._argument(numbers, inner)
                if self._value != ",":
                    break
                self._advance()
            self._expect(")")
            self._depth -= 1
        return PolicyExpression(name, numbers, tuple(inner))

    def _argument(self, numbers: dict[str, float], inner: list[tuple[float, PolicyExpression]]) -> None:
        weight = 1.0
        if self._kind == "number":
            weight = self._number("a weight")
            self._expect("*")
        policy = self._policy()
        if self._value == "=" and weight == 1.0 and not (policy.numbers or policy.inner):
            if policy.name in numbers:
                self._refuse(f"{policy.name} only once")
            self._advance()
            numbers[policy.name] = self._number(f"a number for {policy.name}")
        else:
            inner.append((weight, policy))

    def _number(self, expected: str) -> float:
        start = self._start
        value = float(self._take("number", expected))
        if not math.isfinite(value):
            self._start = start
            self._refuse(f"{expected} that is finite")
        return value

    def _take(self, kind: str, expected: str) -> str:
        if self._kind != kind:
            self._refuse(expected)
        value = self._value
        self._advance()
        return value

    def _expect(self, mark: str) -> None:
        if self._value != mark:
            self._refuse(repr(mark))
        self._advance()

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._position)
        if match is None:
            self._start = self._position
            self._refuse("a name, a number or one of ( ) , * =")
        self._kind = str(match.lastgroup)
        self._value, self._start, self._position = match[self._kind], match.start(self._kind), match.end()

    def _refuse(self, expected: str) -> NoReturn:
        found = f"{self._text[self._start :]!r:.200}" if self._start < len(self._text) else "the end"
        raise PolicyNotUsable(
            f"policy {self._text!r:.500}: expected {expected} at character {self._start + 1}, found {found}; "
            "write it like mixture(4*driver(noise=0.2), brownian)"
        )
