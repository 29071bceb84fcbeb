"""-log p(x|z) of frames, up to a constant: sums over a frame's values.

Legend: B batch, C channels, H, W frame.
"""

import torch
from torch.nn import functional

from worldmodel_v.autoencoders.base import Reconstructed


def gaussian_nll(squared_error_B: torch.Tensor, num_values: int, sigma: torch.Tensor) -> torch.Tensor:
    """-log N(x; x̂, σ²) of each frame, from its sum of squared errors over `num_values` values: (B,).

    The constant num_values * log(π) / 2 is omitted, so that at σ² = 1/2 it is the sum of squared errors.
    """
    twice_variance = 2 * sigma.square()
    return squared_error_B / twice_variance + 0.5 * num_values * twice_variance.log()


def bernoulli_nll(logits_BCHW: torch.Tensor, x_BCHW: torch.Tensor) -> torch.Tensor:
    """-log p(x|z) of each frame, the sum of binary cross-entropies: (B,). Every value is taken as a probability."""
    return _cross_entropy(logits_BCHW, x_BCHW).flatten(start_dim=1).sum(dim=1)


def plain_nll(likelihood: str, logits_BCHW: torch.Tensor, x_BCHW: torch.Tensor) -> torch.Tensor:
    """-log p(x|z) of each frame, (B,): the sum of squared errors ("gaussian", σ² = 1/2), or of binary cross-entropies."""
    if likelihood == "bernoulli":
        return bernoulli_nll(logits_BCHW, x_BCHW)
    return (torch.sigmoid(logits_BCHW) - x_BCHW).square().flatten(start_dim=1).sum(dim=1)


def reconstructed(likelihood: str, logits_BCHW: torch.Tensor, x_BCHW: torch.Tensor) -> Reconstructed:
    """The frames, and the error of each value: cross-entropies for "bernoulli", squared errors for the Gaussian ones."""
    frames = torch.sigmoid(logits_BCHW)
    errors = _cross_entropy(logits_BCHW, x_BCHW) if likelihood == "bernoulli" else (frames - x_BCHW).square()
    return Reconstructed(frames, errors)


def _cross_entropy(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
