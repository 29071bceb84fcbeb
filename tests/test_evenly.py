"""A few positions out of many."""

import pytest

from worldmodel_v.evenly import evenly_spaced


@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [(5, 3, [0, 2, 4]), (3, 5, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (1, 1, [0]), (7, 1, [0]), (1000, 2, [0, 999]), (0, 3, [])],
)
def test_positions_are_spread_from_the_first_to_the_last(count: int, wanted: int, expected: list[int]) -> None:
    assert evenly_spaced(count, wanted).tolist() == expected
