"""Which recorded factors are compared with latents."""

import numpy as np
import pytest

from worldmodel_v.errors import ConfigError
from worldmodel_v.evaluation.factors import Factors, recorded_factors, require_recorded, with_speed
from worldmodel_v.evaluation.sample import Sample


def sample(**columns: list[float]) -> Sample:
    size = len(next(iter(columns.values()), [0.0]))
    nothing = np.zeros((size, 0), np.float32)
    frames = np.zeros((size, 8, 8, 3), np.uint8)
    return Sample(
        frames=frames,
        seen=frames,
        episode=np.zeros(size, int),
        row=np.arange(size),
        action=nothing,
        state=np.column_stack([nothing, *columns.values()]).astype(np.float32),
        state_names=tuple(columns),
        condition=nothing,
    )


def test_constant_factors_are_left_out_by_name() -> None:
    factors, constant = recorded_factors(sample(a=[1, 2], b=[3, 3], c=[0, -1]), ())
    assert factors.names == ("a", "c")
    assert factors.values.tolist() == [[1, 0], [2, -1]]
    assert constant == ["b"]


def test_the_asked_factors_come_in_the_order_asked_for() -> None:
    factors, constant = recorded_factors(sample(a=[1, 2], b=[3, 3], c=[0, -1]), ("c", "a"))
    assert factors.names == ("c", "a")
    assert constant == []


def test_an_unknown_factor_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"factors='sped': the state holds a, b; name some of these"):
        require_recorded(sample(a=[1, 2], b=[3, 3]), ("a", "sped"))
    with pytest.raises(ConfigError, match=r"factors='a': no state is recorded there"):
        require_recorded(sample(), ("a",))


def test_without_state_there_are_no_factors() -> None:
    factors, constant = recorded_factors(sample(), ())
    assert (len(factors), constant) == (0, [])


def test_the_speed_is_the_length_of_the_velocity() -> None:
    factors = Factors(names=("x", "velocity_x", "velocity_y"), values=np.array([[1.0, 3.0, 4.0], [2.0, 0.0, 1.0]]))
    found = with_speed(factors)
    assert found.names == ("speed", "x", "velocity_x", "velocity_y")
    assert found["speed"].tolist() == [5.0, 1.0]
    assert with_speed(Factors(names=("x",), values=np.ones((2, 1)))).names == ("x",)


def test_an_angle_is_that_of_the_picture() -> None:
    factors, _ = recorded_factors(sample(angle=[0.5, 0.5 + 4 * np.pi, 4.0], turns=[0.0, 2.0, 1.0]), ())
    np.testing.assert_allclose(factors["angle"], [0.5, 0.5, 4.0 - 2 * np.pi], atol=1e-5)
    assert factors["turns"].tolist() == [0.0, 2.0, 1.0]
