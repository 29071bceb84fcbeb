"""Where bars stand."""

import pytest

from worldmodel_v.evaluation.charts import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, bar_chart


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
