"""Frames that are completed with the help of a fitted prior: what is visible decides, and the prior where nothing is seen.

- A VAE: z = argmax log p(visible pixels | z) + log p(z), by gradients, from the latent of the frame with its grey hole.
- Tokens that are a map: those whose place touches the hole are replaced by the most probable ones, row by row, each given
  those before it.

Legend: n frames, H, W, h, w tokens, Z latent.
"""

import numpy as np
import torch
from torch.nn import functional

from worldmodel_v.autoencoders.gaussian.likelihood import sigma_of
from worldmodel_v.autoencoders.tokens.tokenizer import TOKENS
from worldmodel_v.evaluation.coder import Coder, GaussianCoder
from worldmodel_v.evaluation.conditions import as_arguments
from worldmodel_v.evaluation.metrics import model_input
from worldmodel_v.evaluation.prior import Prior
from worldmodel_v.evaluation.threads import in_threads, num_threads
from worldmodel_v.evaluation.token_prior import TokenPrior

STEPS, STEP_SIZE = 60, 0.1
"""Of Adam; a step is in standard deviations of each latent."""

FRAMES_AT_ONCE = 16


def most_probable(
    coder: GaussianCoder, prior: Prior, frames_nHWC: np.ndarray, hole_HW: np.ndarray, condition_nK: np.ndarray
) -> np.ndarray:
    """The decoded frames of the most probable latents: uint8 (n, H, W, 3)."""
    spread_Z = torch.from_numpy(prior.sample(1000).std(axis=0)).float().to(coder.device)
    visible_HW = torch.from_numpy(~hole_HW).to(coder.device)

    def latents_of(rows: slice) -> np.ndarray:
        frames, condition = model_input(coder.model, frames_nHWC[rows], coder.device), condition_nK[rows]
        start_nZ = torch.from_numpy(coder.encode_mu(frames_nHWC[rows], condition)).to(coder.device)
        return _ascended(coder, prior, start_nZ, spread_Z, frames, visible_HW, as_arguments(condition, coder.device))

    starts = [slice(first, first + FRAMES_AT_ONCE) for first in range(0, len(frames_nHWC), FRAMES_AT_ONCE)]
    z_nZ = np.concatenate(list(in_threads(latents_of, starts, num_threads(len(starts), coder.device))))
    return coder.decode_z(z_nZ, condition_nK)


@torch.enable_grad()
def _ascended(
    coder: GaussianCoder,
    prior: Prior,
    start_nZ: torch.Tensor,
    spread_Z: torch.Tensor,
    x_nCHW: torch.Tensor,
    visible_HW: torch.Tensor,
    condition: tuple[torch.Tensor, ...],
) -> np.ndarray:
    """float32 (n, Z)"""
    sigma = sigma_of(coder.model)
    moved_nZ = torch.zeros_like(start_nZ, requires_grad=True)
    optimizer = torch.optim.Adam([moved_nZ], STEP_SIZE)
    for _ in range(STEPS):
        z_nZ = start_nZ + spread_Z * moved_nZ
        logits = coder.model.decode_logits(z_nZ, *condition)
        if sigma is None:
            nll = functional.binary_cross_entropy_with_logits(logits, x_nCHW, reduction="none")
        else:
            nll = (logits.sigmoid() - x_nCHW).square() / (2 * sigma**2)
        unlikely = -prior.density.log_prob(z_nZ.cpu().double()).sum() + (nll * visible_HW).sum().cpu()
        (moved_nZ.grad,) = torch.autograd.grad(unlikely, [moved_nZ])
        optimizer.step()
    z: np.ndarray = (start_nZ + spread_Z * moved_nZ).detach().cpu().numpy()
    return z


def have_places(token_shape: tuple[int, ...]) -> bool:
    """Whether tokens are a map (h, w), each for the part of the frame around its place."""
    return len(token_shape) == 2


def redrawn(
    coder: Coder, prior: TokenPrior, frames_nHWC: np.ndarray, hole_HW: np.ndarray, condition_nK: np.ndarray
) -> np.ndarray:
    """The frames whose hidden tokens are those that the prior finds most probable: uint8 (n, H, W, 3)."""
    tokens = coder.encode(frames_nHWC, condition_nK)[TOKENS]
    return coder.decode({TOKENS: prior.filled(tokens, _touched(hole_HW, prior.token_shape))}, condition_nK)


def _touched(hole_HW: np.ndarray, token_shape: tuple[int, ...]) -> np.ndarray:
    """Which tokens' parts of the frame touch the hole: bool (h, w)."""
    touched = np.zeros(token_shape, bool)
    places = [np.nonzero(hole_HW)[i] * token_shape[i] // hole_HW.shape[i] for i in range(2)]
    touched[places[0], places[1]] = True
    return touched
