"""The weight of the KL at each step."""

import pytest

from worldmodel_v.autoencoders.gaussian.annealing import annealed_beta


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.0), (1, 0.04), (25, 1.0), (50, 2.0), (99, 3.96), (100, 4.0), (101, 4.0), (10**9, 4.0)]
)
def test_the_weight_rises_linearly_and_then_stays(step: int, expected: float) -> None:
    assert annealed_beta(step, beta=4.0, warmup_steps=100) == pytest.approx(expected, rel=1e-15)


def test_the_weight_never_falls() -> None:
    weights = [annealed_beta(step, 0.7, 33) for step in range(50)]
    assert weights == sorted(weights)
    assert weights[33:] == [0.7] * 17


@pytest.mark.parametrize("step", [0, 1, 1000])
def test_without_a_warmup_the_weight_is_whole_from_the_first_step(step: int) -> None:
    assert annealed_beta(step, beta=0.3, warmup_steps=0) == 0.3


@pytest.mark.parametrize("step", [0, 5, 10, 20])
def test_a_weight_of_zero_stays_zero(step: int) -> None:
    assert annealed_beta(step, beta=0.0, warmup_steps=10) == 0.0


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (5, 1.0), (10, 2.0), (19, 2.0), (20, 0.0), (25, 1.0), (30, 2.0), (39, 2.0), (40, 0.0), (50, 2.0), (10**6, 2.0)],
)
def test_cycles_rise_and_rest_in_turn_and_the_last_one_stays(step: int, expected: float) -> None:
    assert annealed_beta(step, beta=2.0, warmup_steps=10, cycles=3) == pytest.approx(expected, rel=1e-15)


def test_one_cycle_is_the_linear_rise() -> None:
    assert [annealed_beta(step, 1.0, 7, cycles=1) for step in range(40)] == [min(step / 7, 1.0) for step in range(40)]
