"""How well a VAE's latents are on held-out frames: in figures, and whether something is to be done about it.

Legend: N frames, Z latent.

The posteriors of all frames together make the aggregated posterior q(z), the mean over frames of q(z|x) (Makhzani et al. 2015,
arXiv:1511.05644), which should be the prior: where it is not, samples from the prior are decoded from places that the
decoder has never seen.
"""

from collections.abc import Mapping
from typing import Any

import torch

from worldmodel_v.autoencoders.base import Figures, Finding, Scores
from worldmodel_v.autoencoders.gaussian.posterior import aggregate, gaussian_kl, posterior_of
from worldmodel_v.surface import option

ACTIVE_VARIANCE = 0.01

WIDE = 10.0
"""Root mean square of the latents of all frames above which they are called wide. In the prior it is 1; a learned σ, which
weighs reconstructions more, brings it to 2 to 4; with no KL to speak of it has no bound."""


def kl_per_latent(scores: Scores) -> torch.Tensor:
    """KL(q(z_i|x) || N(0, 1)) of each latent, averaged over frames, in nats: float64 (Z,)."""
    return gaussian_kl(posterior_of(scores.latents)).mean(dim=0)


def active_latents(scores: Scores) -> torch.Tensor:
    """Which latents say something: those whose mean varies over the frames with a variance above 0.01 (Burda et al. 2016,
    arXiv:1509.00519): bool (Z,)."""
    return scores.latents["mu"].var(dim=0, unbiased=False) > ACTIVE_VARIANCE


def figures(scores: Scores) -> Figures:
    """`kl_nats`: KL(q(z|x) || N(0, I)) of a frame, averaged over frames, how much the latent says; `active_units`, the number
    of latents that say something; `latent_dim`, Z."""
    return {
        "kl_nats": float(kl_per_latent(scores).sum()),
        "active_units": int(active_latents(scores).sum()),
        "latent_dim": scores.latents["mu"].shape[1],
    }


def posterior_health(scores: Scores) -> dict[str, float | list[float]]:
    """`kl_per_latent` in nats, averaged over frames; and of q(z): the largest |mean| and |correlation| of latents, E[z²]
    averaged over latents, and the KL of the Gaussian with its mean and covariance to N(0, I). In the prior these are 0, 0, 1
    and 0."""
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
