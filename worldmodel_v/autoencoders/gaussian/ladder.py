"""A VAE with two levels of latents, whose posterior joins what the frame says with what the upper level expects (ladder VAE).

Legend: B batch, C channels, H, W frame, T latents of the top level, L of the bottom level, Z = T + L, K condition.

    bottom-up:  d = f(x);  (m̂, ŝ²) from d for the bottom;  q(z_top|x) = N(mu, σ²) from another layer above d
    top-down:   p(z_top) = N(0, I),  p(z_bottom|z_top) = N(m, s²),  p(x|z_bottom)
    posterior:  q(z_bottom|z_top, x) = N(μ, v),  1/v = 1/ŝ² + 1/s²,  μ = v (m̂/ŝ² + m/s²)

Source: Sønderby et al. 2016 (arXiv:1602.02282), section 2: the two estimates of z_bottom are weighted by
their precisions. The paper predicts σ² by softplus and normalises batches; here it is log σ² as everywhere in this package,
and a frame's latents do not depend on its batch. Its warm-up of the KL is `--beta-warmup-steps`.

**What is stored.** `mu` and `logvar` are (N, Z): first the top level, then the bottom level in units of its prior given the
top, u = (z_bottom - m) / s. With r = log ŝ² - log s², the posterior of u is N((m̂ - m)/s · sigmoid(-r), sigmoid(r)). The KL does
not change with the units, so KL(q(z_bottom|z_top, x) || p(z_bottom|z_top)) = KL(q(u) || N(0, 1)): the prior of all Z latents is
N(0, I), and whatever reads the latents of a VAE (a dynamics model, an export, an evaluation) reads these. z of a dynamics model
is both levels side by side, and z decodes to one frame. z_bottom itself would make the top superfluous for decoding, and its
spread would say nothing.

Training draws z_top before the bottom's posterior is computed. `encode` takes its mean instead, so that each latent of a frame
has one mean and variance; the bound on held-out frames is that of these independent latents.
"""

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from annotated_types import Interval
from torch import nn
from torch.nn import functional

from worldmodel_v.autoencoders.base import Figures, Finding, Scores
from worldmodel_v.autoencoders.blocks import beside, halvings, residual_network
from worldmodel_v.autoencoders.gaussian.health import active_latents, kl_per_latent
from worldmodel_v.autoencoders.gaussian.posterior import Noise, Posterior
from worldmodel_v.autoencoders.gaussian.settings import MAX_LATENT_DIM, GaussianSettings
from worldmodel_v.autoencoders.gaussian.vae import (
    GaussianAutoencoder,
    GaussianConfig,
    Health,
    bounded_logvar,
    gaussian_latents,
    require_network,
)
from worldmodel_v.schema import Column, Draw
from worldmodel_v.surface import option

HIDDEN = 256
"""Units of the layer between the levels, each way."""


@dataclass(frozen=True, kw_only=True)
class LadderSettings(GaussianSettings):
    """The levels, and the loss."""

    top_dim: Annotated[int, Interval(ge=1, le=MAX_LATENT_DIM // 2)] = 16
    """Latents of the top level."""

    bottom_dim: Annotated[int, Interval(ge=1, le=MAX_LATENT_DIM // 2)] = 32
    """Latents of the bottom level, from which frames are decoded."""


@dataclass(frozen=True, kw_only=True)
class LadderConfig(LadderSettings, GaussianConfig):
    """What determines the network and its loss."""

    def __post_init__(self) -> None:
        require_network("resnet", self.frame_shape)
        super().__post_init__()


class Estimates(NamedTuple):
    """The means and log variances that a layer gives."""

    mean: torch.Tensor
    logvar: torch.Tensor


class LadderVAE(GaussianAutoencoder):
    """The VAE's residual network around two levels of latents."""

    settings_class = LadderSettings
    config_class = LadderConfig
    config: LadderConfig
    kind = "ladder"
    shown = ("kl", "kl_top")
    sizes = ("top_dim", "bottom_dim")
    to_bottom: nn.Linear
    to_top: nn.Sequential
    top_down: nn.Sequential
    from_latent: nn.Linear

    def __init__(self, config: LadderConfig) -> None:
        network = residual_network(halvings(config.frame_shape), config.channels)
        features, top, bottom = network.features + config.condition_dim, config.top_dim, config.bottom_dim
        super().__init__(
            config,
            network,
            (top + bottom,),
            to_bottom=nn.Linear(features, 2 * bottom),
            to_top=nn.Sequential(nn.Linear(features, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * top)),
            top_down=nn.Sequential(nn.Linear(top, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * bottom)),
            from_latent=nn.Linear(bottom + config.condition_dim, math.prod(network.bottom)),
        )

    def posterior(self, x_BCHW: torch.Tensor, condition_BK: torch.Tensor | None = None, noise: Noise = None) -> Posterior:
        """Of both levels: (B, Z). The bottom's is given z_top, drawn with the first T of `noise`, (B, Z), or its mean."""
        features_BN = beside(self.features(x_BCHW).flatten(start_dim=1), self.standardised(condition_BK))
        top = Posterior(*estimates(self.to_top(features_BN)))
        z_top = top.sample(noise[:, : self.config.top_dim]) if isinstance(noise, torch.Tensor) else top.mu
        bottom = merged(estimates(self.to_bottom(features_BN)), self.prior_of_bottom(z_top))
        return Posterior(*(torch.cat(levels, dim=1) for levels in zip(top, bottom, strict=True)))

    def prior_of_bottom(self, z_top_BT: torch.Tensor) -> Estimates:
        """p(z_bottom|z_top): mean and log variance, float32 (B, L) each."""
        return estimates(self.top_down(z_top_BT))

    def decode_logits(self, z_BZ: torch.Tensor, condition_BK: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, H, W) before the sigmoid, in float32 for any autocast."""
        z_top, u = z_BZ.split((self.config.top_dim, self.config.bottom_dim), dim=1)
        prior = self.prior_of_bottom(z_top)
        z_bottom = prior.mean + torch.exp(0.5 * prior.logvar) * u
        bottom = self.from_latent(beside(z_bottom, self.standardised(condition_BK))).unflatten(1, self._bottom)
        return self.decoder(bottom.contiguous(memory_format=torch.channels_last)).float()

    def latents(self, dtype: str) -> tuple[tuple[Column, ...], tuple[Draw, ...]]:
        """mu and logvar, (N, Z), the top level first; `parts` names them."""
        levels = {"top": self.config.top_dim, "bottom": self.config.bottom_dim}
        parts = tuple(f"{level}_{number}" for level, size in levels.items() for number in range(size))
        return gaussian_latents(self.latent_shape, dtype, parts)

    def step_figures(self, kl_Z: torch.Tensor) -> dict[str, torch.Tensor]:
        """`kl_top` and `kl_bottom`, whose sum is the KL."""
        top, bottom = self._by_level(kl_Z)
        return {"kl_top": top.sum(), "kl_bottom": bottom.sum()}

    def own_figures(self, scores: Scores) -> Figures:
        """The KL of each level, and how many of its latents are active."""
        kl, active = (self._by_level(values) for values in (kl_per_latent(scores), active_latents(scores)))
        of_levels: Figures = {}
        for level, kl_of, active_of in zip(("top", "bottom"), kl, active, strict=True):
            of_levels |= {f"kl_{level}_nats": float(kl_of.sum()), f"active_{level}": int(active_of.sum())}
        return of_levels

    def findings(self, step: int, figures: Figures, health_: Health) -> list[Finding]:
        """Also a level that is not used."""
        found = super().findings(step, figures, health_)
        unused = [level for level in ("top", "bottom") if figures[f"active_{level}"] == 0]
        if len(unused) == 1:
            level = unused[0]
            text = (
                f"step {step}: the {level} level is not used (KL {figures[f'kl_{level}_nats']:.2g} nats, 0 of "
                f"{getattr(self.config, f'{level}_dim')} latents are active); lengthen {option('beta_warmup_steps')}, use "
                f"{option('free_bits')}, or train {option('autoencoder', 'gaussian')}, which has one level"
            )
            found.append(Finding("level", text))
        return found

    def _by_level(self, values_Z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return values_Z.split((self.config.top_dim, self.config.bottom_dim))


def estimates(values_BN: torch.Tensor) -> Estimates:
    """The halves of a layer's output as mean and log variance, in float32 for any autocast."""
    mean, logvar = values_BN.float().chunk(2, dim=1)
    return Estimates(mean, bounded_logvar(logvar))


def merged(bottom_up: Estimates, prior: Estimates) -> Posterior:
    """N(m̂, ŝ²) and the prior N(m, s²) by their precisions, in units of the prior: the posterior of (z - m) / s."""
    r = bottom_up.logvar - prior.logvar
    distance = (bottom_up.mean - prior.mean) * torch.exp(-0.5 * prior.logvar)
    return Posterior(distance * torch.sigmoid(-r), functional.logsigmoid(r))
