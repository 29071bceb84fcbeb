"""Paths through the latent space: from one frame to another, and along one latent at a time.

Legend: n points, m steps of a walk, Z latent.
"""

import numpy as np

SPREAD = 2.0
"""How far a traversal goes in each direction, in standard deviations of the latent itself; about 95% of frames are within."""

PARALLEL = 1e-4
"""Below this angle (radians) the arc between two latents is a straight line."""


def interpolate(start_nZ: np.ndarray, end_nZ: np.ndarray, steps: int) -> np.ndarray:
    """Spherical interpolation with both ends: float64 (n, m, Z).

    Under N(0, I), nearly all latents have a distance of about sqrt(Z) from the origin. A straight line leaves this shell, an
    arc stays in it (White 2016, arXiv:1609.04468). Lengths are interpolated linearly.
    """
    shares = np.linspace(0.0, 1.0, steps)[:, None]
    return np.stack([_arc(a, b, shares) for a, b in zip(start_nZ.astype(float), end_nZ.astype(float), strict=True)])


def _arc(start_Z: np.ndarray, end_Z: np.ndarray, shares_m1: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm([start_Z, end_Z], axis=1)
    if lengths.min() == 0:
        return start_Z + shares_m1 * (end_Z - start_Z)
    a, b = start_Z / lengths[0], end_Z / lengths[1]
    angle = np.arccos(np.clip(a @ b, -1.0, 1.0))
    if min(angle, np.pi - angle) < PARALLEL:
        return start_Z + shares_m1 * (end_Z - start_Z)
    direction = (np.sin((1 - shares_m1) * angle) * a + np.sin(shares_m1 * angle) * b) / np.sin(angle)
    return direction * (lengths[0] + shares_m1 * (lengths[1] - lengths[0]))


def traverse(z_Z: np.ndarray, latents: np.ndarray, mean_Z: np.ndarray, std_Z: np.ndarray, steps: int) -> np.ndarray:
    """For each given latent, the point with this latent going from 2 standard deviations below its mean over frames to 2 above
    it, and the others unchanged: (n, m, Z)."""
    walks = np.broadcast_to(z_Z, (len(latents), steps, len(z_Z))).copy()
    for walk, latent in zip(walks, latents, strict=True):
        walk[:, latent] = mean_Z[latent] + std_Z[latent] * np.linspace(-SPREAD, SPREAD, steps)
    return walks


def jumpiness(frames_mHWC: np.ndarray) -> float:
    """The largest change between neighbouring frames of a walk, divided by the mean change; 1: perfectly even, 0: no change."""
    changes = np.abs(np.diff(frames_mHWC.astype(np.float64), axis=0)).mean(axis=(1, 2, 3))
    return float(changes.max() / changes.mean()) if changes.any() else 0.0
