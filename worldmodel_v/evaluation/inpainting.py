"""Inpainting: a hole in a frame is filled, by the autoencoder alone and by what its latents are likely to be.

Legend: n frames, H, W.

- Alone: the hole starts grey. The frame is encoded and decoded, and the decoded pixels replace the hole. Several rounds of this
  move the frame towards those that were trained on (Rezende et al. 2014, arXiv:1401.4082, impute missing pixels in this way;
  here with means instead of samples).
- With a fitted prior: the latent that explains what is visible and is likely (`completion`) is decoded.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worldmodel_v.evaluation.coder import Coder

ROUNDS = 8
GREY = 128

Complete = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Of uint8 frames (n, H, W, 3), their hole, bool (H, W), and their conditions, whole frames, uint8 (n, H, W, 3)."""


@dataclass(frozen=True, kw_only=True)
class Inpainting:
    """Mean squared errors within the hole, of values in [0, 1]."""

    num_frames: int
    rounds: int
    hole: tuple[int, int, int, int]
    """Top, bottom, left, right, in pixels."""

    mse: float
    """Filled by the autoencoder alone."""

    prior_mse: float | None
    """Filled with the help of the fitted prior; None if there is none, or if tokens have no place in the frame."""

    mean_fill_mse: float
    """Filled with the mean colour of the surrounding pixels: an autoencoder should be better."""

    seen_mse: float
    """The reconstruction there if nothing is hidden: the best that it can reach."""


@dataclass(frozen=True, kw_only=True)
class Filled:
    """Frames with a hole, and what was put into it: uint8 (n, H, W, 3) each."""

    original: np.ndarray
    masked: np.ndarray
    mean_fill: np.ndarray
    inpainted: np.ndarray
    by_prior: np.ndarray | None


def inpaint(
    coder: Coder, frames_nHWC: np.ndarray, condition_nK: np.ndarray, complete: Complete | None = None
) -> tuple[Inpainting, Filled]:
    """Hide the middle of each frame (a quarter of its area), fill it, and compare with what was there."""
    height, width = frames_nHWC.shape[1:3]
    hole = (height // 4, height - height // 4, width // 4, width - width // 4)
    inside = np.zeros((height, width, 1), bool)
    inside[hole[0] : hole[1], hole[2] : hole[3]] = True
    masked = np.where(inside, np.uint8(GREY), frames_nHWC)
    around = frames_nHWC[:, ~inside[:, :, 0]].mean(axis=1, keepdims=True)[:, None]
    mean_fill = np.where(inside, around.round().astype(np.uint8), frames_nHWC)
    inpainted = masked
    for _ in range(ROUNDS):
        decoded = coder.reconstruct(inpainted, condition_nK)
        inpainted = np.where(inside, decoded, frames_nHWC)
    by_prior = None
    if complete is not None:
        by_prior = np.where(inside, complete(masked, inside[:, :, 0], condition_nK), frames_nHWC)
    seen = coder.reconstruct(frames_nHWC, condition_nK)

    def mse(filled_nHWC: np.ndarray) -> float:
        difference = (filled_nHWC.astype(np.float64) - frames_nHWC)[:, inside[:, :, 0]] / 255
        return float((difference**2).mean())

    figures = Inpainting(
        num_frames=len(frames_nHWC),
        rounds=ROUNDS,
        hole=hole,
        mse=mse(inpainted),
        prior_mse=None if by_prior is None else mse(by_prior),
        mean_fill_mse=mse(mean_fill),
        seen_mse=mse(seen),
    )
    filled = Filled(original=frames_nHWC, masked=masked, mean_fill=mean_fill, inpainted=inpainted, by_prior=by_prior)
    return figures, filled
