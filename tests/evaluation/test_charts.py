"""Where bars stand."""

import numpy as np
import pytest

from worldmodel_v.evaluation.charts import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, bar_chart, line_chart


def test_bars_are_as_tall_as_their_values() -> None:
    chart = bar_chart([4.0, 2.0, 0.0], ["a", "b", "c"], unit="nats", describes="three", muted=[False, False, True])
    full = HEIGHT - TOP - BOTTOM
    assert [bar.height for bar in chart.bars] == pytest.approx([full, full / 2, 0.0])
    assert [bar.y + bar.height for bar in chart.bars] == pytest.approx([HEIGHT - BOTTOM] * 3)
    assert [bar.is_muted for bar in chart.bars] == [False, False, True]
    assert [bar.title for bar in chart.bars] == ["a: 4 nats", "b: 2 nats", "c: 0 nats"]
    assert [bar.label for bar in chart.bars] == ["a", "b", "c"]
    assert [tick.label for tick in chart.ticks] == ["0", "1", "2", "3", "4"]
    assert [tick.y for tick in chart.ticks] == pytest.approx([TOP + full * (1 - i / 4) for i in range(5)])


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-9], [12345.6, 1.0], [0.3] * 500])
def test_any_values_can_be_drawn(values: list[float]) -> None:
    chart = bar_chart(values, [str(i) for i in range(len(values))], unit="", describes="any")
    assert len(chart.bars) == len(values)
    assert all(0 <= bar.height <= HEIGHT for bar in chart.bars)
    assert all(LEFT <= bar.x < bar.middle < bar.x + bar.width <= WIDTH for bar in chart.bars)
    assert sum(bar.label is not None for bar in chart.bars) <= 40


def test_a_line_goes_from_the_first_step_to_the_last_between_round_values() -> None:
    chart = line_chart(np.array([10.0, 20.0, 40.0]), np.array([-3.0, 1.0, 3.0]), title="loss")
    full = HEIGHT - TOP - BOTTOM
    assert [tick.label for tick in chart.ticks] == ["−4", "−2", "0", "2", "4"]
    assert [y for _, y in chart.line] == pytest.approx([TOP + full * (4 - value) / 8 for value in (-3, 1, 3)])
    (first, _), (second, _), (last, _) = chart.line
    assert first == chart.left < second < last < chart.width
    assert second - first == pytest.approx((last - first) / 3)
    assert [label.text for label in chart.labels] == ["step 10", "40"]
    assert chart.describes == "loss: from −3 at step 10 to 3 at step 40"


@pytest.mark.parametrize("values", [[2.5, 2.5], [0.0, 0.0], [1e9, 1e9 + 1], [-1e-9, 1e-9]])
def test_any_line_can_be_drawn(values: list[float]) -> None:
    chart = line_chart(np.array([1.0, 2.0]), np.array(values), title="any")
    assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in chart.line)
    assert 2 <= len(chart.ticks) <= 10
