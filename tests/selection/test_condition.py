"""Conditions: what they mean, and that nothing else is ever computed."""

import pytest

from worldmodel_v.errors import ConfigError
from worldmodel_v.selection.condition import KINDS, parse_condition

FACTS = {
    **{"episode": 3, "return": 12.5, "length": 40, "seed": 99, "source": 0},
    **{"policy": "driver(noise=0.2)", "terminated": True, "truncated": False},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("return > 12", True),
        ("return>12.5", False),
        ("-1 < return <= 12.5", True),
        ("  terminated ", True),
        ("not terminated or truncated", False),
        ("policy == 'driver(noise=0.2)'", True),
        ('"driver" in policy and "return" not in policy', True),
        ("episode in (1, 2, 3) and seed not in {1}", True),
        ("length >= episode", True),
        ("terminated == (return > 1)", True),
        ("True", True),
        ("1e3 > return", True),
        ("policy < 'e'", True),
        ("(return >\n 1)", True),
    ],
)
def test_a_condition_holds_or_not(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(FACTS) is holds


def test_a_condition_knows_which_facts_it_needs() -> None:
    assert parse_condition("return > 1 and (policy == 'return' or not truncated)").names == {"return", "policy", "truncated"}


HOSTILE = {
    **{"__import__('os').system('true')": "Call", "(lambda: 1)()": "Call", "seed.real > 1": "Attribute"},
    **{"[x for x in (1,)]": "ListComp", "policy == f'{seed}'": "JoinedStr", "return + 1 > 2": "BinOp"},
    **{
        "policy[0] == 'd'": "Subscript",
        "(seed := 3) > 1": "NamedExpr",
        "return == None": "NoneType",
        "b'a' == policy": "bytes",
    },
    **{"1j == return": "complex", "--1 < return": "UnaryOp", "~seed > 1": "UnaryOp", "1 if terminated else 0": "IfExp"},
    **{"episode in (*(1, 2),)": "Starred", "lambda: 1": "Lambda", "... == return": "ellipsis", "{1: 2} == 3": "Dict"},
    **{
        "(yield 1)": "Yield",
        "2 ** 999999999 > return": "BinOp",
        "'a' * 999999999 == policy": "BinOp",
        "-True < return": "UnaryOp",
    },
}


@pytest.mark.parametrize("text", HOSTILE)
def test_everything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"\({HOSTILE[text]}\) is not allowed; .*; the names are episode, return, length"):
        parse_condition(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *[
            (text, "is not an expression")
            for text in ("", "return >", "return > 1; 2", "import os", "a b", "'", "(", "return > 1\nx")
        ],
        *[
            (text, "is not an expression")
            for text in ("\0", "\ud800", "return == '\\N{'", "0777 > return", "   ", "#", "return = 1")
        ],
        ("retrun > 1", "unknown name retrun"),
        ("return_ > 1", "is not an expression \\(unknown name return_\\)"),
        ("__builtins__", "unknown name __builtins__"),
        ("length", "is a number, and no condition"),
        ("'a' 'b'", "is a text, and no condition"),
        ("return > 1 and seed", "seed is a number, and no condition"),
        ("not policy", "policy is a text, and no condition"),
        ("policy > 3", r"compares policy \(a text\) with 3 \(a number\)"),
        ("return == '1'", r"compares return \(a number\) with '1' \(a text\)"),
        ("terminated == 1", r"compares terminated \(True or False\) with 1 \(a number\)"),
        ("1 < 2 < policy", r"compares 2 \(a number\) with policy"),
        ("episode in (1, 'a')", r"compares episode \(a number\) with 'a' \(a text\)"),
        ("episode in 3", "3 is a number, and no list"),
        ("3 in policy", "policy is a text, and no list"),
        ("policy in ('random-start(driver)')", r"'random-start\(driver\)' is a text, and no list; write it as in \('a', 'b'\)"),
        ("terminated < True", "have no order"),
        ("return is 3", "compares with `is`"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        parse_condition(text)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(f"the names are {', '.join(KINDS)}")


@pytest.mark.parametrize("text", ["(" * 500 + "1" + ")" * 400, "-" * 900 + "1", "9" * 999, "a" * 1001, "not " * 250])
def test_deep_and_long_ones_are_refused_in_a_short_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"the names are") as error:
        assert parse_condition(text).holds(FACTS) is None
    assert len(str(error.value)) < 600


def test_a_deep_one_holds() -> None:
    assert parse_condition("not " * 249 + "True").holds(FACTS) is False


def test_no_warning_of_the_parser_is_shown() -> None:
    assert parse_condition(r"policy != '\d'").holds(FACTS)
