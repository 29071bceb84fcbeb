"""Numbers as people read them."""

import pytest

from worldmodel_v.evaluation.scales import readable, round_step


@pytest.mark.parametrize(
    ("value", "unit", "span", "expected"),
    [
        (0.0, "", None, "0"),
        (33.372506, "dB", None, "33.4 dB"),
        (-27204.55, "nats", None, "−27,205 nats"),
        (0.0284, "", None, "0.0284"),
        (12.0, "rad/s", None, "12 rad/s"),
        (102.4, "°", None, "102°"),
        (1234567.0, "", None, "1.23 M"),
        (2.36e-05, "rad", None, "23.6 µrad"),
        (-2.36e-05, "rad", 1.0, "0 rad"),
        (1000.21, "", 0.5, "1,000.21"),
        (200e-6, "", 50e-6, "200 µ"),
        (1e-30, "", None, "0"),
    ],
)
def test_three_digits_with_the_unit(value: float, unit: str, span: float | None, expected: str) -> None:
    assert readable(value, unit, span=span) == expected


@pytest.mark.parametrize(
    ("span", "expected"), [(4.0, 1.0), (5.0, 2.0), (17.0, 5.0), (0.3, 0.1), (30000.0, 10000.0), (0.0, 1.0), (1e-9, 5e-10)]
)
def test_steps_are_round(span: float, expected: float) -> None:
    assert round_step(span, 4) == pytest.approx(expected)
