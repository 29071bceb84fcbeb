"""The keys of a dream, for every kind of action."""

import numpy as np
import pytest

from worldmodel_v.view.actions import keys_for


@pytest.mark.parametrize(
    ("kind", "low", "high", "keys"),
    [
        ("continuous", [-1, 0, 0], [1, 1, 1], [("Left", 0, -1), ("Right", 0, 1), ("Up", 1, 1), ("Down", 2, 1)]),
        ("continuous", [-1, -2], [1, 2], [("Left", 0, -1), ("Right", 0, 1), ("Up", 1, 2), ("Down", 1, -2)]),
        ("continuous", [-3], [3], [("Left", 0, -3), ("Right", 0, 3)]),
        ("discrete", [0], [1], [("Left", 0, 1)]),
        ("discrete", [0], [8], [("Left", 0, 1), ("Right", 0, 2), ("Up", 0, 3), ("Down", 0, 4)]),
        ("whole", [0, 0], [1, 1], [("Left", 0, 0), ("Right", 0, 1), ("Up", 1, 1)]),
    ],
)
def test_arrow_keys(kind: str, low: list[float], high: list[float], keys: list[tuple[str, int, float]]) -> None:
    bounds = np.array(low, float), np.array(high, float)
    rest = np.clip(0.0, *bounds) if kind != "discrete" else bounds[0]
    found = [(each["key"].removeprefix("Arrow"), each["part"], each["value"]) for each in keys_for(kind, *bounds, rest)]
    assert found == keys
