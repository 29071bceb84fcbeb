"""Bars as SVG, read as XML."""

from xml.etree import ElementTree

import pytest

from worldmodel_v.evaluate.charts import BOTTOM, HEIGHT, TOP, bar_chart


def test_bars_are_as_tall_as_their_values() -> None:
    svg = ElementTree.fromstring(
        bar_chart([4.0, 2.0, 0.0], ["a", "b", "c"], unit="nats", describes="three", muted=[False, False, True])
    )
    bars = svg.findall("rect")
    full = HEIGHT - TOP - BOTTOM
    assert [float(bar.attrib["height"]) for bar in bars] == pytest.approx([full, full / 2, 0.0], abs=0.1)
    assert [bar.attrib["class"] for bar in bars] == ["bar", "bar", "muted"]
    assert [bar.findtext("title") for bar in bars] == ["a: 4 nats", "b: 2 nats", "c: 0 nats"]
    assert svg.attrib["aria-label"] == "three"
    assert [text.text for text in svg.findall("text")] == ["0", "1", "2", "3", "4", "a", "b", "c"]


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-9], [12345.6, 1.0], [0.3] * 500])
def test_any_values_can_be_drawn(values: list[float]) -> None:
    svg = ElementTree.fromstring(bar_chart(values, [str(i) for i in range(len(values))], unit="", describes='a "b" <c>'))
    assert len(svg.findall("rect")) == len(values)
    assert all(0 <= float(bar.attrib["height"]) <= HEIGHT for bar in svg.findall("rect"))
    assert len(svg.findall("text")) < 60
