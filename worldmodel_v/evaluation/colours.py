"""Colour maps whose equal steps look equal, for people who see fewer colours too. They are drawn on a dark ground.

Values run along viridis, errors along inferno (van der Walt & Smith 2015, both CC0), here as their anchors. Angles run along a
closed curve in OKLab (Ottosson 2020): lightness turns once while blue and yellow turn a quarter later, so that people who
cannot tell red from green still see four different quarters.
"""

from functools import cache

import numpy as np

GROUND = (20, 23, 28)
"""What the coloured points lie on, on light pages as on dark ones."""

VIRIDIS = np.array(
    [
        *((0x3E, 0x49, 0x89), (0x31, 0x68, 0x8E), (0x26, 0x82, 0x8E), (0x1F, 0x9E, 0x89)),
        *((0x35, 0xB7, 0x79), (0x6E, 0xCE, 0x58), (0xB5, 0xDE, 0x2B), (0xFD, 0xE7, 0x25)),
    ],
    dtype=np.float64,
)
"""Without its darkest quarter, which the ground would hide."""

INFERNO = np.array(
    [
        *((0x00, 0x00, 0x04), (0x1B, 0x0C, 0x41), (0x4A, 0x0C, 0x6B), (0x78, 0x1C, 0x6D), (0xA5, 0x2C, 0x60)),
        *((0xCF, 0x44, 0x46), (0xED, 0x69, 0x25), (0xFB, 0x9B, 0x06), (0xF7, 0xD1, 0x3D), (0xFC, 0xFF, 0xA4)),
    ],
    dtype=np.float64,
)

ROUND_STEPS = 256
LIGHTNESS, TURN = 0.68, (0.17, 0.06, 0.13)
"""The middle of the closed curve, and how far it goes in lightness, from green to red, and from blue to yellow."""


def along(anchors_n3: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Colours of shares in [0, 1] of any shape: uint8 (…, 3)."""
    positions = np.linspace(0, 1, len(anchors_n3))
    return np.stack([np.interp(shares, positions, channel) for channel in anchors_n3.T], axis=-1).round().astype(np.uint8)


def around(angles: np.ndarray) -> np.ndarray:
    """Colours of angles in radians of any shape: uint8 (…, 3); full turns later the same."""
    return _circle()[np.round(angles / (2 * np.pi) * ROUND_STEPS).astype(np.int64) % ROUND_STEPS]


@cache
def _circle() -> np.ndarray:
    turn = np.arange(ROUND_STEPS) / ROUND_STEPS * 2 * np.pi
    light, red, yellow = TURN
    lab = np.stack([LIGHTNESS + light * np.cos(turn), red * np.cos(turn), yellow * np.sin(turn)], axis=1)
    to_cones = np.array([[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]])
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_cones.T) ** 3 @ to_linear.T, 0.0, 1.0)
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (shown * 255).round().astype(np.uint8)
