"""What a setting may be, by its declared type."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
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
    text: str | None = None
    several: tuple[str, ...] = ()
    either: int | str = 0
    own: dict[str, int] | None = None
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
        ("positive", [1, np.float32(0.5)]),
        ("switch", [True, np.bool_(False)]),
        ("text", [None, "a", Path("a")]),
        ("several", [("a",), ["a", "b"]]),
        ("either", [1, "a"]),
        ("own", [None, {}, "checked by its owner"]),
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
        ("at_least", "2", "at_least: expected a whole number, got '2'"),
        ("at_least", 2.0, "at_least: expected a whole number, got 2.0"),
        ("plain", True, "plain: expected a whole number, got True"),
        ("plain", None, "plain: expected a whole number"),
        ("maybe", 1.5, "maybe: expected a whole number, got 1.5"),
        ("positive", "1", "positive: expected a number, got '1'"),
        ("switch", "no", "switch: expected True or False, got 'no'"),
        ("text", 1, "text: expected a text, got 1"),
        ("several", "action", "several: expected a list of texts, got 'action'"),
        ("several", [1], "several: expected a list of texts, got [1]"),
        ("either", 1.5, "either: expected a whole number or a text, got 1.5"),
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


def test_numbers_of_numpy_become_pythons() -> None:
    config = Config(plain=np.int64(3), positive=np.float32(0.5))
    require_settings(config)
    assert (type(config.plain), type(config.positive)) == (int, float)


def test_the_name_is_the_surfaces() -> None:
    with worded(on_the_command_line), pytest.raises(ConfigError, match=r"^--at-least: expected at least 2, got 0$"):
        require_settings(Config(at_least=0))
    with pytest.raises(ConfigError, match=r"^batch_size: expected at least 1, got 0$") as refused:
        require_at_least(1, epoch=5, batch_size=0)
    assert refused.value.parts == {"field": "batch_size", "expected": "at least 1", "got": 0}
    with pytest.raises(ConfigError, match=r"^seed: expected a whole number, got '1'$"):
        require_at_least(0, seed="1")
