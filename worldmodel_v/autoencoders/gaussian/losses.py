"""The negative evidence lower bound: reconstruction plus beta times KL.

Both terms are sums over pixels or latents and means over the batch, so that beta = 1 is the bound itself and a beta from
the literature means the same here. (Means over pixels would hide a factor of 12,288 in beta at 64x64.)

What -log p(x|z) is:

- gaussian: N(x; x̂, σ²) with a fixed σ. At the default σ² = 1/2 it is the sum of squared errors, as Ha & Schmidhuber train.
- calibrated: the same with σ² learned (Rybkin et al. 2021; see `VAE.calibrate`). The better the reconstructions, the more
  their errors weigh against the KL, so no beta has to be found by hand.
- bernoulli: binary cross-entropy from logits, every channel value taken as a probability.

The Gaussian ones leave out the constant log(π) / 2 a value, and only that: they can be compared with each other.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from worldmodel_v.autoencoders.gaussian.posterior import gaussian_kl

if TYPE_CHECKING:
    from worldmodel_v.autoencoders.gaussian.vae import VAE


def alone(mean: torch.Tensor) -> torch.Tensor:
    """The mean over all processes where there is one."""
    return mean


class Elbo(NamedTuple):
    """The terms of the bound, as means over the batch, in nats."""

    reconstruction: torch.Tensor
    """Scalar: -log p(x|z), up to a constant for the Gaussian ones."""

    kl: torch.Tensor
    """Scalar: KL(q(z|x) || N(0, I)), the rate, whatever the loss makes of it."""

    kl_penalty: torch.Tensor
    """Scalar: what the loss takes for the KL, see `kl_penalty`; without floors it is the KL."""

    squared_error: torch.Tensor | None
    """Scalar without gradient: of a value, the Gaussian likelihoods' alone; what a learned σ² goes towards."""

    def loss(self, beta: float) -> torch.Tensor:
        """What is minimised: reconstruction + beta * KL (Higgins et al. 2017; beta = 1 is the VAE)."""
        return self.reconstruction + beta * self.kl_penalty


def elbo(
    model: "VAE",
    x_BCHW: torch.Tensor,
    noise: torch.Tensor | torch.Generator | None = None,
    condition_BK: torch.Tensor | None = None,
    *,
    free_bits: float = 0.0,
    kl_tolerance: float = 0.0,
    across: Callable[[torch.Tensor], torch.Tensor] = alone,
) -> Elbo:
    """The terms for a batch, with one sample of z for each frame, from `noise` as `Posterior.sample` takes it.

    Where the batch is a part of one that several processes share, `across` turns a mean over this part into the mean over
    all of it: the floors of `free_bits` and the squared error are of the whole batch.
    """
    posterior = model.posterior(x_BCHW, condition_BK)
    logits = model.decode_logits(posterior.sample(noise), condition_BK)
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
    return Elbo(reconstruction_B.mean(), kl_BZ.sum(dim=1).mean(), penalty, squared_error)


def kl_penalty(
    kl_BZ: torch.Tensor,
    free_bits: float = 0.0,
    kl_tolerance: float = 0.0,
    across: Callable[[torch.Tensor], torch.Tensor] = alone,
) -> torch.Tensor:
    """Scalar: the KL with a floor below which it costs nothing more; at most one of the two may be above 0.

    - `free_bits` λ: Σ_j max(λ, mean over the batch of KL_j): each latent may say λ nats for nothing (Kingma et al. 2016,
      arXiv:1606.04934), which keeps every one of them in use.
    - `kl_tolerance` τ: mean over the batch of max(τ Z, Σ_j KL_j): each frame may use τ Z nats for nothing, on whichever
      latents (Ha & Schmidhuber 2018, whose code takes 0.5).
    """
    if free_bits > 0:
        return across(kl_BZ.mean(dim=0)).clamp_min(free_bits).sum()
    return kl_BZ.sum(dim=1).clamp_min(kl_tolerance * kl_BZ.shape[1]).mean()


def gaussian_nll(squared_error_B: torch.Tensor, num_values: int, sigma: torch.Tensor) -> torch.Tensor:
    """-log N(x; x̂, σ²) of each frame, from its sum of squared errors over `num_values` values: (B,).

    The constant num_values * log(π) / 2 is left out, so that at σ² = 1/2 it is the sum of squared errors.
    """
    twice_variance = 2 * sigma.square()
    return squared_error_B / twice_variance + 0.5 * num_values * twice_variance.log()


def bernoulli_nll(logits_BCHW: torch.Tensor, x_BCHW: torch.Tensor) -> torch.Tensor:
    """-log p(x|z) of each frame, every value taken as a probability: the sum of binary cross-entropies, (B,)."""
    per_value = functional.binary_cross_entropy_with_logits(logits_BCHW, x_BCHW, reduction="none")
    return per_value.flatten(start_dim=1).sum(dim=1)
