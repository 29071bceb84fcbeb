"""The negative evidence lower bound: reconstruction plus beta times KL.

Both terms are sums over pixels or latents and means over the batch, so that beta = 1 is the bound itself and a beta from
the literature means the same here. (Means over pixels would hide a factor of 12,288 in beta at 64x64.)

- gaussian: the sum of squared errors, as Ha & Schmidhuber train. It is -log N(x; x̂, σ² = 1/2) up to a constant.
- bernoulli: binary cross-entropy from logits, every channel value taken as a probability.
"""

from typing import NamedTuple

import torch
from torch.nn import functional

from worldmodel_v.models.vae import ConvVAE, Likelihood, Posterior


class Elbo(NamedTuple):
    """The terms of the bound, as means over the batch, in nats."""

    reconstruction: torch.Tensor
    """Scalar: -log p(x|z), up to a constant for the Gaussian."""

    kl: torch.Tensor
    """Scalar: KL(q(z|x) || N(0, I))."""

    def loss(self, beta: float) -> torch.Tensor:
        """What is minimised: reconstruction + beta * KL (Higgins et al. 2017; beta = 1 is the VAE)."""
        return self.reconstruction + beta * self.kl


def elbo(model: ConvVAE, x_BCHW: torch.Tensor, noise: torch.Tensor | torch.Generator | None = None) -> Elbo:
    """Both terms for a batch, with one sample of z for each frame, from `noise` as `Posterior.sample` takes it."""
    posterior = model.encode(x_BCHW)
    logits = model.decode_logits(posterior.sample(noise))
    reconstruction_B = reconstruction_loss(logits, x_BCHW, model.config.likelihood)
    return Elbo(reconstruction_B.mean(), gaussian_kl(posterior).sum(dim=1).mean())


def gaussian_kl(posterior: Posterior) -> torch.Tensor:
    """KL(N(mu, σ²) || N(0, 1)) of each latent: (B, Z), in closed form (Kingma & Welling 2013, appendix B)."""
    mu, logvar = posterior
    return 0.5 * (mu.square() + logvar.exp() - logvar - 1.0)


def reconstruction_loss(logits_BCHW: torch.Tensor, x_BCHW: torch.Tensor, likelihood: Likelihood) -> torch.Tensor:
    """-log p(x|z) of each frame, summed over its pixels: (B,)."""
    if likelihood == "bernoulli":
        per_pixel = functional.binary_cross_entropy_with_logits(logits_BCHW, x_BCHW, reduction="none")
    else:
        per_pixel = (torch.sigmoid(logits_BCHW) - x_BCHW).square()
    return per_pixel.flatten(start_dim=1).sum(dim=1)
