"""Bar charts as inline SVG; colours come from the page's style, so that they follow light and dark."""

import math
from html import escape

WIDTH, HEIGHT = 1000, 220
LEFT, BOTTOM, TOP = 44, 26, 8
MAX_LABELS = 40
TICKS = 4


def bar_chart(values: list[float], labels: list[str], *, unit: str, describes: str, muted: list[bool] | None = None) -> str:
    """One bar for each value (0 or more), in order, with its label below; those that are `muted` in grey."""
    muted = muted or [False] * len(values)
    step = _tick_step(max(values))
    top_value = step * max(1, math.ceil(max(values) / step))
    height = HEIGHT - BOTTOM - TOP
    slot = (WIDTH - LEFT) / len(values)
    bar = min(slot * 0.72, 46.0)
    parts = []
    for tick in range(round(top_value / step) + 1):
        y = TOP + height * (1 - tick * step / top_value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick * step:g}</text>')
    every = math.ceil(len(values) / MAX_LABELS)
    for i, (value, label, is_muted) in enumerate(zip(values, labels, muted, strict=True)):
        tall = height * max(value, 0.0) / top_value
        middle = LEFT + slot * (i + 0.5)
        kind = "muted" if is_muted else "bar"
        parts.append(
            f'<rect class="{kind}" x="{middle - bar / 2:.1f}" y="{TOP + height - tall:.1f}" width="{bar:.1f}" '
            f'height="{tall:.1f}" rx="2"><title>{escape(label)}: {value:.3g} {escape(unit)}</title></rect>'
        )
        if i % every == 0:
            parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(label)}</text>')
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(describes)}">\n{body}\n</svg>'


def _tick_step(largest: float) -> float:
    """A round step (1, 2 or 5 times a power of ten) that gives about four ticks."""
    if largest <= 0:
        return 1.0
    raw = largest / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
