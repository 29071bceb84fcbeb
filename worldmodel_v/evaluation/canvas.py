"""Drawing with Pillow: rows of frames with labels, and maps of points. Backgrounds are transparent, so that a picture fits
light and dark pages.

Legend: n frames or points, H, W.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldmodel_v.evaluation.colours import GROUND, INFERNO, VIRIDIS, along, around
from worldmodel_v.evaluation.scales import readable

CELL = 128
"""The approximate width of a drawn frame, in pixels."""

GAP = 6
GROUP_GAP = 22
TEXT = (128, 132, 140, 255)
"""A grey that can be read on white and on black."""

FONT_SIZE = 22
LINE = 28
LABEL_GAP = 24

PANEL = 460
SCALE_WIDTH = 200
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


@dataclass(frozen=True)
class Colouring:
    """What colours the points of a map."""

    name: str
    values: np.ndarray
    """(n,)"""

    unit: str = ""
    is_angle: bool = False
    """Whether the values are radians, which have no end."""


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


def scatter(places_n2: np.ndarray, colourings: list[Colouring]) -> np.ndarray:
    """One map of the points for each colouring, side by side, each with a colour scale: uint8 RGBA (H', W', 4)."""
    panels = [_panel(places_n2, colouring) for colouring in colourings]
    picture = Image.new("RGBA", (sum(panel.width for panel in panels) + GROUP_GAP * (len(panels) - 1), panels[0].height))
    for i, panel in enumerate(panels):
        picture.paste(panel, (i * (PANEL + GROUP_GAP), 0))
    return np.asarray(picture)


def heat(values_nHW: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as colours from black over purple and orange to light yellow: uint8 (n, H, W, 3)."""
    return along(INFERNO, values_nHW)


def ramp_colours(values_n: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Colours of values, uint8 (n, 3), and the values at the two ends of the ramp (the 2nd and 98th percentile, or the extremes
    if these are equal)."""
    low, high = np.percentile(values_n, [2, 98])
    if low == high:
        low, high = values_n.min(), values_n.max()
    shares = np.clip((values_n - low) / (high - low), 0, 1) if high > low else np.full(len(values_n), 0.5)
    return along(VIRIDIS, shares), float(low), float(high)


def _panel(places_n2: np.ndarray, colouring: Colouring) -> Image.Image:
    if colouring.is_angle:
        colours, scale, ends = around(colouring.values), around(np.linspace(-np.pi, np.pi, SCALE_WIDTH)), ["-180°", "180°"]
    else:
        colours, low, high = ramp_colours(colouring.values)
        scale = along(VIRIDIS, np.linspace(0, 1, SCALE_WIDTH))
        ends = [writable(readable(end, colouring.unit, span=high - low)) for end in (low, high)]
    side = PANEL * OVERSAMPLING
    margin = 4 * POINT_RADIUS * OVERSAMPLING
    low_corner, spread = places_n2.min(axis=0), np.ptp(places_n2, axis=0)
    points = margin + (places_n2 - low_corner) / np.where(spread > 0, spread, 1.0) * (side - 2 * margin)
    cloud = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(cloud)
    draw.rounded_rectangle((0, 0, side - 1, side - 1), margin, fill=GROUND)
    radius = POINT_RADIUS * OVERSAMPLING
    for (x, y), colour in zip(points.tolist(), colours.tolist(), strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*colour, 255))
    panel = Image.new("RGBA", (PANEL, PANEL + 2 * LINE + GAP))
    panel.paste(cloud.resize((PANEL, PANEL), Image.Resampling.BOX), (0, LINE))
    draw = ImageDraw.Draw(panel)
    draw.text((PANEL / 2, LINE / 2), colouring.name, TEXT, _font(), anchor="mm")
    _draw_scale(panel, draw, scale, ends)
    return panel


def _draw_scale(panel: Image.Image, draw: ImageDraw.ImageDraw, colours_n3: np.ndarray, ends: list[str]) -> None:
    left, right, top = (PANEL - SCALE_WIDTH) // 2, (PANEL + SCALE_WIDTH) // 2, PANEL + LINE + GAP
    bar = np.broadcast_to(colours_n3[None], (LINE // 2, SCALE_WIDTH, 3))
    panel.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top + LINE // 4))
    draw.text((left - GAP, top + LINE / 2), ends[0], TEXT, _font(), anchor="rm")
    draw.text((right + GAP, top + LINE / 2), ends[1], TEXT, _font(), anchor="lm")


def writable(text: str) -> str:
    """In letters that Pillow's own font has."""
    return text.replace("−", "-").replace("µ", "u")


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)


def _text_width(text: str) -> int:
    return round(_font().getlength(text))
