"""Drawing with Pillow: rows of frames with labels, and maps of points. Backgrounds are transparent, so that a picture fits
light and dark pages.

Legend: n frames or points, H, W.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 128
"""The approximate width of a drawn frame, in pixels."""

GAP = 6
GROUP_GAP = 22
TEXT = (128, 132, 140, 255)
"""A grey that can be read on white and on black."""

FONT_SIZE = 22
LINE = 28
LABEL_GAP = 24

RAMP = np.array([(64, 105, 225), (38, 166, 164), (235, 176, 52), (220, 66, 60)], dtype=np.float64)
"""Blue, teal, amber, red: light enough for a dark page and dark enough for a light one."""

PANEL = 460
OVERSAMPLING = 3
POINT_RADIUS = 3.4


@dataclass(frozen=True)
class Row:
    """A row of frames."""

    label: str
    """The text to its left; it may have several lines. Use Latin letters and digits: Pillow's own font has few others."""

    frames: np.ndarray
    """uint8 (n, H, W, 3)"""

    starts_group: bool = False
    """Whether a wider gap is above the row."""


def frame_grid(rows: list[Row], headings: list[str] | None = None) -> np.ndarray:
    """Rows of frames below optional column headings, each with its label: uint8 RGBA (H', W', 4)."""
    frame = rows[0].frames[0]
    scale = max(1, round(CELL / frame.shape[0]))
    height, width = frame.shape[0] * scale, frame.shape[1] * scale
    label_width = max(_text_width(line) for row in rows for line in row.label.split("\n"))
    left = label_width + LABEL_GAP if label_width else 0
    top = LINE + GAP if headings else 0
    tops: list[int] = []
    for row in rows:
        top += GROUP_GAP if row.starts_group and tops else 0
        tops.append(top)
        top += height + GAP
    columns = max(len(row.frames) for row in rows)
    picture = Image.new("RGBA", (left + columns * (width + GAP) - GAP, top - GAP))
    draw = ImageDraw.Draw(picture)
    for column, heading in enumerate(headings or []):
        draw.text((left + column * (width + GAP) + width / 2, LINE / 2), heading, TEXT, _font(), anchor="mm")
    for row, y in zip(rows, tops, strict=True):
        lines = row.label.split("\n")
        for i, line in enumerate(lines):
            middle = y + height / 2 + (i - (len(lines) - 1) / 2) * LINE
            draw.text((left - LABEL_GAP / 2, middle), line, TEXT, _font(), anchor="rm")
        for column, pixels in enumerate(row.frames):
            enlarged = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
            picture.paste(Image.fromarray(enlarged), (left + column * (width + GAP), y))
    return np.asarray(picture)


def scatter(places_n2: np.ndarray, colourings: dict[str, np.ndarray]) -> np.ndarray:
    """One map of the points for each colouring, side by side, each with a colour scale: uint8 RGBA (H', W', 4)."""
    panels = [_panel(places_n2, name, values) for name, values in colourings.items()]
    picture = Image.new("RGBA", (sum(panel.width for panel in panels) + GROUP_GAP * (len(panels) - 1), panels[0].height))
    for i, panel in enumerate(panels):
        picture.paste(panel, (i * (PANEL + GROUP_GAP), 0))
    return np.asarray(picture)


def heat(values_nHW: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as colours from black over red and yellow to white: uint8 (n, H, W, 3)."""
    ramps = np.clip(values_nHW[..., None] * 3.0 - np.arange(3), 0.0, 1.0)
    return (ramps * 255).round().astype(np.uint8)


def ramp_colours(values_n: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Colours of values, uint8 (n, 3), and the values at the two ends of the ramp (the 2nd and 98th percentile)."""
    low, high = np.percentile(values_n, [2, 98])
    shares = np.clip((values_n - low) / (high - low), 0, 1) if high > low else np.full(len(values_n), 0.5)
    return _ramp(shares), float(low), float(high)


def _ramp(shares_n: np.ndarray) -> np.ndarray:
    anchors = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(shares_n, anchors, channel) for channel in RAMP.T], axis=1).round().astype(np.uint8)


def _panel(places_n2: np.ndarray, name: str, values_n: np.ndarray) -> Image.Image:
    colours, low, high = ramp_colours(values_n)
    side = PANEL * OVERSAMPLING
    margin = 2 * POINT_RADIUS * OVERSAMPLING
    low_corner, spread = places_n2.min(axis=0), np.ptp(places_n2, axis=0)
    points = margin + (places_n2 - low_corner) / np.where(spread > 0, spread, 1.0) * (side - 2 * margin)
    # Transparent pixels take the points' mean colour, so that shrinking does not draw dark rims.
    cloud = Image.new("RGBA", (side, side), (*map(int, colours.mean(axis=0)), 0))
    draw = ImageDraw.Draw(cloud)
    radius = POINT_RADIUS * OVERSAMPLING
    for (x, y), colour in zip(points.tolist(), colours.tolist(), strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*colour, 225))
    panel = Image.new("RGBA", (PANEL, PANEL + 2 * LINE + GAP))
    panel.paste(cloud.resize((PANEL, PANEL), Image.Resampling.BOX), (0, LINE))
    draw = ImageDraw.Draw(panel)
    draw.text((PANEL / 2, LINE / 2), name, TEXT, _font(), anchor="mm")
    _draw_scale(panel, draw, low, high)
    return panel


def _draw_scale(panel: Image.Image, draw: ImageDraw.ImageDraw, low: float, high: float) -> None:
    left, right, top = 110, PANEL - 110, PANEL + LINE + GAP
    colours = _ramp(np.linspace(0, 1, right - left))
    bar = np.broadcast_to(colours[None], (LINE // 2, right - left, 3))
    panel.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top + LINE // 4))
    draw.text((left - GAP, top + LINE / 2), f"{low:.3g}", TEXT, _font(), anchor="rm")
    draw.text((right + GAP, top + LINE / 2), f"{high:.3g}", TEXT, _font(), anchor="lm")


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)


def _text_width(text: str) -> int:
    return round(_font().getlength(text))
