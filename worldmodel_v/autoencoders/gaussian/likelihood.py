"""The evidence lower bound as a figure to compare VAEs by: in nats with all constants, and in bits per dimension.

Legend: N frames, B batch, D values of a frame, Z latent.

ELBO = E_q[log p(x|z)] - KL(q(z|x) || N(0, I)) (Kingma & Welling 2013, equation 3), with one sample of z for each frame.
Training omits the constants of log p(x|z), but two VAEs with different σ can only be compared if they are included.

- gaussian, calibrated: log p(x|z) = -Σ (x - x̂)² / 2σ² - (D / 2) log 2πσ², a density over values in [0, 1].
- bernoulli: log p(x|z) = Σ x log x̂ + (1 - x) log(1 - x̂). For values between 0 and 1 it is a cross-entropy, not a density.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from worldmodel_v.autoencoders.base import CodedBatch, Measure, Scores
from worldmodel_v.autoencoders.gaussian.posterior import gaussian_kl, posterior_of

if TYPE_CHECKING:
    from worldmodel_v.autoencoders.gaussian.vae import GaussianAutoencoder

LEVELS = 256


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The evidence lower bound, averaged over frames."""

    elbo_nats: float
    """log p(x) is at least this; higher is better. For a Gaussian it is a log density and may be positive."""

    log_likelihood_nats: float
    """E_q[log p(x|z)], with all constants."""

    kl_nats: float

    bits_per_dimension: float
    """-ELBO / (D log 2), lower is better. For a Gaussian, log2 256 is added: the cost of a value rounded to 256 levels."""

    sigma: float | None
    """Standard deviation of a Gaussian likelihood; None for Bernoulli."""


def sampled_log_likelihood(model: "GaussianAutoencoder", generator: torch.Generator) -> Measure:
    """A measure: log p(x|z) of each frame, (B,), for one z ~ q(z|x) drawn with `generator`, which is on the model's device."""

    def measure(batch: CodedBatch) -> Callable[[], torch.Tensor]:
        z = posterior_of(batch.latents).sample(generator)
        return lambda: log_likelihood(model.decode_logits(z, *batch.condition), batch.x, sigma_of(model))

    return measure


def log_likelihood(logits_BCHW: torch.Tensor, x_BCHW: torch.Tensor, sigma: float | None) -> torch.Tensor:
    """log p(x|z) of each frame in nats, with all constants: float64 (B,). `sigma` None means the Bernoulli likelihood."""
    logits, x = logits_BCHW.flatten(start_dim=1).double(), x_BCHW.flatten(start_dim=1).double()
    if sigma is None:
        return -torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=1)
    squared_error = (torch.sigmoid(logits) - x).square().sum(dim=1)
    return -squared_error / (2 * sigma**2) - x.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(sigma))


def sigma_of(model: "GaussianAutoencoder") -> float | None:
    """The standard deviation of a Gaussian likelihood, fixed or learned; None for Bernoulli."""
    return None if model.config.likelihood == "bernoulli" else float(model.sigma)


def bound(scores: Scores, sigma: float | None) -> Bound:
    """The bound, from scores with the measure `log_likelihood`."""
    reconstruction = float(scores.measures["log_likelihood"].mean())
    kl = float(gaussian_kl(posterior_of(scores.latents)).sum(dim=1).mean())
    density_bits = 0.0 if sigma is None else math.log2(LEVELS)
    return Bound(
        elbo_nats=reconstruction - kl,
        log_likelihood_nats=reconstruction,
        kl_nats=kl,
        bits_per_dimension=(kl - reconstruction) / (scores.num_values * math.log(2)) + density_bits,
        sigma=sigma,
    )
