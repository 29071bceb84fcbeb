"""The negative evidence lower bound: reconstruction plus beta times KL.

Both terms are sums over pixels or latents and means over the batch. So beta = 1 gives the bound itself, and a beta from
the literature means the same here. (Means over pixels would hide a factor of 12,288 in beta at 64x64.)

-log p(x|z) by likelihood:

- gaussian: N(x; x̂, σ²) with a fixed σ. At the default σ² = 1/2 it is the sum of squared errors, as Ha & Schmidhuber train.
- calibrated: the same with a learned σ² (Rybkin et al. 2021; see `VAE.calibrate`). The better the reconstructions, the
  larger the weight of their errors against the KL, so beta needs no tuning.
- bernoulli: binary cross-entropy from logits; every channel value is taken as a probability.

The Gaussian ones omit only the constant log(π) / 2 of each value, so they can be compared with each other.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

from worldmodel_v.autoencoders.gaussian.posterior import Noise, Posterior, gaussian_kl
from worldmodel_v.autoencoders.reconstruction import bernoulli_nll, gaussian_nll

if TYPE_CHECKING:
    from worldmodel_v.autoencoders.gaussian.vae import GaussianAutoencoder


def alone(mean: torch.Tensor) -> torch.Tensor:
    """The mean over all processes if there is only one."""
    return mean


class Elbo(NamedTuple):
    """The terms of the bound, as means over the batch, in nats."""

    reconstruction: torch.Tensor
    """Scalar: -log p(x|z), up to a constant for the Gaussian ones."""

    kl: torch.Tensor
    """Scalar: KL(q(z|x) || N(0, I)), the rate, without floors."""

    kl_penalty: torch.Tensor
    """Scalar: the KL with the floors of `kl_penalty`, which the loss uses; without floors it is the KL."""

    squared_error: torch.Tensor | None
    """Scalar without gradient: the mean squared error of a value, which a learned σ² follows; None for "bernoulli"."""

    logits: torch.Tensor | None = None
    """(B, C, H, W): the reconstructions before the sigmoid."""

    kl_per_latent: torch.Tensor = torch.zeros(0)
    """(Z,), without gradient: the KL of each latent."""

    posterior: Posterior | None = None
    """Of each frame: (B, Z)."""

    z: torch.Tensor | None = None
    """(B, Z): the sample of it that was decoded."""

    def loss(self, beta: float) -> torch.Tensor:
        """What is minimised: reconstruction + beta * KL (Higgins et al. 2017; beta = 1 is the VAE)."""
        return self.reconstruction + beta * self.kl_penalty


def elbo(
    model: "GaussianAutoencoder",
    x_BCHW: torch.Tensor,
    noise: Noise = None,
    condition_BK: torch.Tensor | None = None,
    *,
    free_bits: float = 0.0,
    kl_tolerance: float = 0.0,
    across: Callable[[torch.Tensor], torch.Tensor] = alone,
) -> Elbo:
    """The terms for a batch, with one sample of z for each frame, from `noise` as `Posterior.sample` takes it.

    If several processes share a batch, `across` turns the mean over this process's part into the mean over the whole batch.
    The floor of `free_bits` and the squared error are computed from the whole batch.
    """
    posterior = model.posterior(x_BCHW, condition_BK, noise)
    z = posterior.sample(noise)
    logits = model.decode_logits(z, condition_BK)
    squared_error = None
    if model.config.likelihood == "bernoulli":
        reconstruction_B = bernoulli_nll(logits, x_BCHW)
    else:
        squared_error_B = (torch.sigmoid(logits) - x_BCHW).square().flatten(start_dim=1).sum(dim=1)
        num_values = x_BCHW[0].numel()
        reconstruction_B = gaussian_nll(squared_error_B, num_values, model.sigma)
        squared_error = across(squared_error_B.detach().mean()) / num_values
    kl_BZ = gaussian_kl(posterior)
    penalty = kl_penalty(kl_BZ, free_bits, kl_tolerance, across)
    per_latent = kl_BZ.detach().mean(dim=0)
    return Elbo(reconstruction_B.mean(), kl_BZ.sum(dim=1).mean(), penalty, squared_error, logits, per_latent, posterior, z)


def kl_penalty(
    kl_BZ: torch.Tensor,
    free_bits: float = 0.0,
    kl_tolerance: float = 0.0,
    across: Callable[[torch.Tensor], torch.Tensor] = alone,
) -> torch.Tensor:
    """Scalar: the KL with a floor, below which it adds nothing to the gradient; at most one of the two may be above 0.

    - `free_bits` λ: Σ_j max(λ, mean over the batch of KL_j). Each latent may use λ nats at no cost, which keeps all latents
      in use (Kingma et al. 2016, arXiv:1606.04934).
    - `kl_tolerance` τ: mean over the batch of max(τ Z, Σ_j KL_j). Each frame may use τ Z nats at no cost, in any latents
      (Ha & Schmidhuber 2018, whose code uses 0.5).
    """
    if free_bits > 0:
        return across(kl_BZ.mean(dim=0)).clamp_min(free_bits).sum()
    return kl_BZ.sum(dim=1).clamp_min(kl_tolerance * kl_BZ.shape[1]).mean()
