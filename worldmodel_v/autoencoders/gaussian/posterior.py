"""The posteriors of a Gaussian encoder: one for each frame, and the aggregated posterior of all frames.

Legend: B batch, N frames, Z latent.

The aggregated posterior is q(z) = E_x[q(z|x)] (Hoffman & Johnson 2016). Its mean is that of mu; its covariance is that of
mu plus the average of σ² on the diagonal. If it is far from N(0, I), samples from the prior are latents that the decoder
was not trained on.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from worldmodel_v.autoencoders.base import Latents

Noise = torch.Tensor | torch.Generator | None
"""ε ~ N(0, I) of a draw, (B, Z), or the generator that draws it; None stands for PyTorch's own."""


class Posterior(NamedTuple):
    """q(z|x) = N(mu, exp(logvar)), a diagonal Gaussian."""

    mu: torch.Tensor
    """(B, Z)"""

    logvar: torch.Tensor
    """(B, Z): log σ²"""

    def sample(self, noise: Noise = None) -> torch.Tensor:
        """z = mu + σ ε: the reparameterisation, through which gradients reach mu and logvar."""
        if not isinstance(noise, torch.Tensor):
            noise = torch.randn(self.mu.shape, generator=noise, device=self.mu.device, dtype=self.mu.dtype)
        return self.mu + torch.exp(0.5 * self.logvar) * noise


def gaussian_kl(posterior: Posterior) -> torch.Tensor:
    """KL(N(mu, σ²) || N(0, 1)) of each latent: (B, Z), in closed form (Kingma & Welling 2013, appendix B)."""
    mu, logvar = posterior
    return 0.5 * (mu.square() + logvar.exp() - logvar - 1.0)


def gaussian_log_density(z: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """log N(z; mu, σ²) of each number in nats, with all constants; shapes are broadcast."""
    return -0.5 * ((z - mu).square() * torch.exp(-logvar) + logvar + math.log(2 * math.pi))


def posterior_of(latents: Latents) -> Posterior:
    """The posteriors that a VAE's columns hold: a map of latents as one vector, (B, Z)."""
    return Posterior(*(latents[name].flatten(start_dim=1) for name in ("mu", "logvar")))


@dataclass(frozen=True, kw_only=True)
class AggregatedPosterior:
    """The first two moments of q(z), compared with those of N(0, I)."""

    max_abs_mean: float
    """0 under the prior."""

    min_variance: float
    max_variance: float
    """1 under the prior."""

    max_correlation: float | None
    """The largest correlation of two latents, as an absolute value: 0 under the prior. None for a single latent."""

    kl_nats: float
    """KL(N(mean, covariance) || N(0, I)) for the moments of q(z)."""

    mean: list[float]
    variance: list[float]

    @property
    def mean_square(self) -> float:
        """E[z²], averaged over latents: 1 under the prior."""
        return sum(mean**2 + variance for mean, variance in zip(self.mean, self.variance, strict=True)) / len(self.mean)


def aggregate(posterior: Posterior) -> AggregatedPosterior:
    """From mu and logvar (N, Z), in float64."""
    mu, logvar = posterior.mu.double(), posterior.logvar.double()
    num_frames, size = mu.shape
    mean = mu.mean(dim=0)
    covariance = (mu - mean).T @ (mu - mean) / num_frames + torch.diag(logvar.exp().mean(dim=0))
    variance = covariance.diagonal()
    kl = 0.5 * (variance.sum() + mean.square().sum() - size - torch.linalg.slogdet(covariance).logabsdet)
    return AggregatedPosterior(
        max_abs_mean=float(mean.abs().max()),
        min_variance=float(variance.min()),
        max_variance=float(variance.max()),
        max_correlation=_max_correlation(covariance) if size > 1 else None,
        kl_nats=float(kl),
        mean=mean.tolist(),
        variance=variance.tolist(),
    )


def _max_correlation(covariance_ZZ: torch.Tensor) -> float:
    scale = covariance_ZZ.diagonal().rsqrt()
    correlation = covariance_ZZ * scale * scale[:, None]
    return float(correlation.fill_diagonal_(0).abs().max())
