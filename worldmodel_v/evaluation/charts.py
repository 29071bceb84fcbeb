"""The positions of bars, lines, labels and grid lines of a chart; `report.html` draws them as SVG, in its own colours."""

import math
from dataclasses import dataclass, field

import numpy as np

from worldmodel_v.evaluation.scales import readable, round_step

WIDTH, HEIGHT = 1000, 220
LEFT, BOTTOM, TOP = 44, 26, 8
MAX_LABELS = 40
TICKS = 4
EDGE = 24
"""Room to the right of a line for half of the last label."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A line of the grid."""

    y: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar: its upper left corner (x, y) and its size."""

    x: float
    y: float
    width: float
    height: float
    is_muted: bool
    title: str
    """The text that appears when the reader points at the bar."""

    label: str | None
    """The text below the bar; None if there is no room."""

    @property
    def middle(self) -> float:
        """The x of its label."""
        return self.x + self.width / 2


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text below the chart, around an x."""

    x: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Bars, or one line; coordinates are in units of its picture."""

    ticks: list[Tick]
    describes: str
    """A description of the chart for readers who cannot see it."""

    title: str = ""
    bars: list[Bar] = field(default_factory=list)
    line: list[tuple[float, float]] = field(default_factory=list)
    """Its points (x, y)."""

    labels: list[Label] = field(default_factory=list)

    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT


def bar_chart(values: list[float], labels: list[str], *, unit: str, describes: str, muted: list[bool] | None = None) -> Chart:
    """One bar for each value (0 or more), in order, with its label below; those that are `muted` in grey."""
    muted = muted or [False] * len(values)
    step = round_step(max(values), TICKS)
    top_value = step * max(1, math.ceil(max(values) / step))
    height = HEIGHT - BOTTOM - TOP
    slot = (WIDTH - LEFT) / len(values)
    width = min(slot * 0.72, 46.0)
    every = math.ceil(len(values) / MAX_LABELS)
    ticks = [
        Tick(y=TOP + height * (1 - tick * step / top_value), label=readable(tick * step, span=step))
        for tick in range(round(top_value / step) + 1)
    ]
    bars = []
    for i, (value, label, is_muted) in enumerate(zip(values, labels, muted, strict=True)):
        tall = height * max(value, 0.0) / top_value
        bars.append(
            Bar(
                x=LEFT + slot * (i + 0.5) - width / 2,
                y=TOP + height - tall,
                width=width,
                height=tall,
                is_muted=is_muted,
                title=f"{label}: {readable(value, unit)}",
                label=label if i % every == 0 else None,
            )
        )
    return Chart(ticks=ticks, bars=bars, describes=describes)


def line_chart(steps_n: np.ndarray, values_n: np.ndarray, *, title: str) -> Chart:
    """A curve over the steps of a training, half as wide as a bar chart, with its first and last step below it."""
    width, left = WIDTH // 2, LEFT + 36
    low, high = float(values_n.min()), float(values_n.max())
    tick = round_step(high - low, TICKS)
    first, last = math.floor(low / tick), max(math.ceil(high / tick), math.floor(low / tick) + 1)
    height = HEIGHT - BOTTOM - TOP
    begin, end = float(steps_n[0]), float(steps_n[-1])

    def y(value: float) -> float:
        return TOP + height * (last - value / tick) / (last - first)

    def x(step: float) -> float:
        return left + (width - left - EDGE) * (step - begin) / (end - begin)

    return Chart(
        title=title,
        ticks=[Tick(y=y(i * tick), label=readable(i * tick, span=tick)) for i in range(first, last + 1)],
        line=[(x(step), y(value)) for step, value in zip(steps_n.tolist(), values_n.tolist(), strict=True)],
        labels=[Label(x=x(begin) + EDGE, text=f"step {begin:,.0f}"), Label(x=x(end) - EDGE, text=f"{end:,.0f}")],
        describes=f"{title}: from {readable(float(values_n[0]))} at step {begin:,.0f} to {readable(float(values_n[-1]))} "
        f"at step {end:,.0f}",
        width=width,
        left=left,
    )
