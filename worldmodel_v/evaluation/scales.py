"""Numbers as people read them, and round steps for the axes of charts."""

import math

PREFIXES = {1e12: "T", 1e9: "G", 1e6: "M", 1.0: "", 1e-6: "µ", 1e-9: "n", 1e-12: "p"}
"""Those of the SI that are used, from the largest on; thousands and thousandths are written out."""

SMALLEST_SPAN = 1e-300
"""Below it, floats are not exact."""

WRITTEN_OUT = 1e-3
"""The smallest number that needs no prefix."""


def readable(value: float, unit: str = "", *, span: float | None = None) -> str:
    """A number with its unit, and at least three digits where it has them: 12,345 dB, 0.25, −24 µrad.

    `span` is the range in which it stands, by default the number itself: what is nothing in comparison with it is 0.
    """
    size = abs(span) if span else abs(value)
    factor = next((at for at in PREFIXES if size >= (WRITTEN_OUT if at == 1.0 else at)), 0.0)
    number = _digits(value / factor, 2 - math.floor(math.log10(size / factor))) if factor else "0"
    if unit == "°":
        return f"{number}{unit}"
    return f"{number} {PREFIXES.get(factor, '')}{unit}".rstrip()


def _digits(value: float, decimals: int) -> str:
    text = f"{value:,.{max(decimals, 0)}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text.replace("-", "−")


def round_step(span: float, ticks: int) -> float:
    """A round step (1, 2 or 5 times a power of ten) that divides `span` into about so many parts."""
    if span <= SMALLEST_SPAN:
        return 1.0
    raw = span / ticks
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
