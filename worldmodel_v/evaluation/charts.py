"""The positions of bars, labels and grid lines of a chart; `report.html` draws them as SVG, in the page's own colours."""

import math
from dataclasses import dataclass

WIDTH, HEIGHT = 1000, 220
LEFT, BOTTOM, TOP = 44, 26, 8
MAX_LABELS = 40
TICKS = 4


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
class Chart:
    """A bar chart; coordinates are in units of its picture."""

    ticks: list[Tick]
    bars: list[Bar]
    describes: str
    """A description of the chart for readers who cannot see it."""

    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT


def bar_chart(values: list[float], labels: list[str], *, unit: str, describes: str, muted: list[bool] | None = None) -> Chart:
    """One bar for each value (0 or more), in order, with its label below; those that are `muted` in grey."""
    muted = muted or [False] * len(values)
    step = _tick_step(max(values))
    top_value = step * max(1, math.ceil(max(values) / step))
    height = HEIGHT - BOTTOM - TOP
    slot = (WIDTH - LEFT) / len(values)
    width = min(slot * 0.72, 46.0)
    every = math.ceil(len(values) / MAX_LABELS)
    ticks = [
        Tick(y=TOP + height * (1 - tick * step / top_value), label=f"{tick * step:g}")
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
                title=f"{label}: {value:.3g} {unit}",
                label=label if i % every == 0 else None,
            )
        )
    return Chart(ticks=ticks, bars=bars, describes=describes)


def _tick_step(largest: float) -> float:
    """A round step (1, 2 or 5 times a power of ten) that gives about four ticks."""
    if largest <= 0:
        return 1.0
    raw = largest / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
