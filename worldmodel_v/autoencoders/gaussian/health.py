"""How good a VAE's latents are on held-out frames: figures, and findings with what to do about them.

Legend: N frames, Z latent.

The aggregated posterior q(z) is the mean over frames of q(z|x) (Makhzani et al. 2015, arXiv:1511.05644). It should be equal
to the prior. If it is not, samples from the prior are latents that the decoder was not trained on.
"""

from collections.abc import Mapping
from typing import Any

import torch

from worldmodel_v.autoencoders.base import Figures, Finding, Scores
from worldmodel_v.autoencoders.gaussian.posterior import aggregate, gaussian_kl, posterior_of
from worldmodel_v.surface import option

ACTIVE_VARIANCE = 0.01

WIDE = 10.0
"""Latents are too wide if their root mean square over all frames is above this. The prior's is 1. A learned σ, which gives
reconstructions more weight, leads to 2 to 4; with almost no KL in the loss there is no bound."""


def kl_per_latent(scores: Scores) -> torch.Tensor:
    """KL(q(z_i|x) || N(0, 1)) of each latent, averaged over frames, in nats: float64 (Z,)."""
    return gaussian_kl(posterior_of(scores.latents)).mean(dim=0)


def active_latents(scores: Scores) -> torch.Tensor:
    """Which latents are active: the variance of their mean over the frames is above 0.01 (Burda et al. 2016,
    arXiv:1509.00519): bool (Z,)."""
    return posterior_of(scores.latents).mu.var(dim=0, unbiased=False) > ACTIVE_VARIANCE


def figures(scores: Scores) -> Figures:
    """`kl_nats`: KL(q(z|x) || N(0, I)) of a frame, averaged over frames, the rate; `active_units`, the number of active
    latents; `latent_dim`, Z."""
    return {
        "kl_nats": float(kl_per_latent(scores).sum()),
        "active_units": int(active_latents(scores).sum()),
        "latent_dim": scores.latents["mu"][0].numel(),
    }


def posterior_health(scores: Scores) -> dict[str, float | list[float]]:
    """`kl_per_latent` in nats, averaged over frames. For q(z): the largest |mean| and |correlation| of latents, E[z²]
    averaged over latents, and the KL of the Gaussian with its mean and covariance to N(0, I). For the prior these four are
    0, 0, 1 and 0."""
    together = aggregate(posterior_of(scores.latents))
    return {
        "kl_per_latent": kl_per_latent(scores).tolist(),
        "aggregate_max_mean": together.max_abs_mean,
        "aggregate_max_correlation": together.max_correlation or 0.0,
        "aggregate_mean_square": together.mean_square,
        "aggregate_kl_nats": together.kl_nats,
    }


def findings(step: int, figures: Figures, health: Mapping[str, Any]) -> list[Finding]:
    """Latents far wider than the prior, and a posterior that has collapsed."""
    found = []
    width = health["aggregate_mean_square"] ** 0.5
    if width > WIDE:
        wide = (
            f"step {step}: the latents are {width:.1f} times as wide as the prior (KL of "
            f"all frames' latents together to N(0, I): {health['aggregate_kl_nats']:.1f} nats), so samples from the "
            f"prior will not look like frames; raise {option('beta')} if they shall"
        )
        found.append(Finding("prior", wide))
    if figures["active_units"] == 0:
        collapse = (
            f"KL is {figures['kl_nats']:.2g} nats and 0 of {figures['latent_dim']} latents are active at step {step}: the "
            f"posterior has collapsed; lower {option('beta')}, lengthen {option('beta_warmup_steps')}, or use "
            f"{option('free_bits')}"
        )
        found.append(Finding("collapse", collapse, is_collapse=True))
    return found
