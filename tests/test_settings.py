"""What a setting may be, by its declared type."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt

from worldmodel_v.errors import ConfigError
from worldmodel_v.settings import require_at_least, require_settings
from worldmodel_v.surface import on_the_command_line, worded


@dataclass(kw_only=True)
class Config:
    plain: int = 0
    any_float: float = 0.0
    at_least: Annotated[int, Ge(2)] = 2
    positive: Annotated[float, Gt(0)] = 1.0
    at_most: Annotated[float, Le(0.5)] = 0.5
    between: Annotated[int, Interval(ge=1, le=8)] = 1
    below: Annotated[int, Ge(0), Lt(2**31 - 1)] = 0
    maybe: Annotated[int | None, Ge(1)] = None
    switch: bool = False
    choice: Literal["one", "other", "last"] = "one"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("plain", [-(2**70), 2**63 - 1]),
        ("any_float", [-1e30, 1e30]),
        ("at_least", [2, 2**63 - 1]),
        ("positive", [1e-300, 1e30]),
        ("at_most", [-1e30, 0.5]),
        ("between", [1, 8]),
        ("below", [0, 2**31 - 2]),
        ("maybe", [None, 1]),
        ("choice", ["one", "other"]),
    ],
)
def test_what_lies_within_the_bounds_is_taken(name: str, values: list) -> None:
    for value in values:
        require_settings(Config(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("plain", 2**63, f"plain: expected a number below 2^63, got {2**63}"),
        ("any_float", float("nan"), "any_float: expected a finite number, at most 1e+30, got nan"),
        ("any_float", -2e30, "any_float: expected a finite number, at most 1e+30, got -2e+30"),
        ("at_least", 1, "at_least: expected at least 2, got 1"),
        ("at_least", "2", "at_least: expected a number, got '2'"),
        ("at_least", 2**63, f"at_least: expected a number below 2^63, got {2**63}"),
        ("positive", 0.0, "positive: expected a positive number, got 0.0"),
        ("positive", float("inf"), "positive: expected a finite number, at most 1e+30, got inf"),
        ("at_most", 0.6, "at_most: expected at most 0.5, got 0.6"),
        ("at_most", float("nan"), "at_most: expected at most 0.5, got nan"),
        ("between", 0, "between: expected 1 to 8, got 0"),
        ("between", 9, "between: expected 1 to 8, got 9"),
        ("below", 2**31 - 1, f"below: expected a number below 2^31 - 1, got {2**31 - 1}"),
        ("maybe", 0, "maybe: expected at least 1, got 0"),
        ("choice", "third", "choice: expected one, other or last, got 'third'"),
    ],
)
def test_what_does_not_is_refused_by_name(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        require_settings(Config(**{name: value}))
    assert str(refused.value) == message


def test_the_name_is_the_surfaces() -> None:
    with worded(on_the_command_line), pytest.raises(ConfigError, match=r"^--at-least: expected at least 2, got 0$"):
        require_settings(Config(at_least=0))
    with pytest.raises(ConfigError, match=r"^batch_size: expected at least 1, got 0$") as refused:
        require_at_least(1, epoch=5, batch_size=0)
    assert refused.value.parts == {"field": "batch_size", "expected": "at least 1", "got": 0}
