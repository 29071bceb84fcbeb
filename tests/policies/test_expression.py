"""The line that names a policy: what it parses to, and where it stops making sense."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.policies.expression import PolicyExpression, parse_policy

NAMES = st.sampled_from(["driver", "random-start", "mixture", "my_module.sub:make", "checkpoint:a.b:make:dir/x.pt", "onnx:~/p"])
NUMBERS = st.dictionaries(st.sampled_from(["speed", "noise"]), st.sampled_from([0.0, 0.25, -2.0, 40.0, 1e-05, 0.123456789]))


def expressions() -> st.SearchStrategy[PolicyExpression]:
    leaves = st.builds(PolicyExpression, NAMES, NUMBERS, st.just(()))

    def larger(inner: st.SearchStrategy[PolicyExpression]) -> st.SearchStrategy[PolicyExpression]:
        members = st.lists(st.tuples(st.sampled_from([1.0, 0.5, 4.0]), inner), max_size=3).map(tuple)
        return st.builds(PolicyExpression, NAMES, NUMBERS, members)

    return st.recursive(leaves, larger, max_leaves=5)


@given(expressions())
def test_what_is_written_reads_back_as_itself(expression: PolicyExpression) -> None:
    assert parse_policy(str(expression)) == expression


def test_weights_numbers_and_policies_inside_are_told_apart() -> None:
    parsed = parse_policy(" mixture( 4*driver(noise=0.2),random-start( driver ) , .5 * m:f(k=-1e-3) )")
    assert parsed == PolicyExpression(
        "mixture",
        {},
        (
            (4.0, PolicyExpression("driver", {"noise": 0.2}, ())),
            (1.0, PolicyExpression("random-start", {}, ((1.0, PolicyExpression("driver", {}, ())),))),
            (0.5, PolicyExpression("m:f", {"k": -0.001}, ())),
        ),
    )
    assert str(parsed) == "mixture(4*driver(noise=0.2), random-start(driver), 0.5*m:f(k=-0.001))"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the name of a policy at character 1, found the end"),
        ("driver(", "expected the name of a policy at character 8, found the end"),
        ("driver(noise=)", "expected a number for noise at character 14, found ')'"),
        ("driver(noise=0.1", "expected ')' at character 17, found the end"),
        ("driver)", "expected nothing more at character 7, found ')'"),
        ("mixture(2 driver)", "expected '*' at character 11, found 'driver)'"),
        ("driver; rm", "expected a name, a number or one of ( ) , * = at character 7, found '; rm'"),
    ],
)
def test_nonsense_is_refused_at_its_place(text: str, message: str) -> None:
    with pytest.raises(PolicyNotUsable, match=re.escape(f"policy {text!r}: {message}; write it like")):
        parse_policy(text)
