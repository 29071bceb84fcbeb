"""A VAE whose latents are a small map, as the KL autoencoder of latent diffusion: each place describes its part of the frame.

Legend: B batch, C channels, H, W frame, h, w places, c channels of the latent, Z = h w c.

    q(z|x) = Π N(z_ijk; mu_ijk, σ²_ijk),   p(z) = N(0, I),   loss = -log p(x|z) + β Σ_ijk KL(q(z_ijk|x) || p(z_ijk))

Source: Rombach et al. 2022 (arXiv:2112.10752), section 3.1 ("KL-reg"). It has the network of the tokens' `grid`, without
linear layers: 1x1 convolutions lead to mu and log σ² at each place, and back. Columns are (h, w, c), with the channels last as
in frames. Likelihood, KL, annealing and floors are those of the VAE with one vector.

It is a kind of its own and no setting of `gaussian`: two of its architectures have no map, and the files of a VAE with one
vector stay as they are.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import nn

from worldmodel_v.autoencoders.base import Figures, Finding, Scores
from worldmodel_v.autoencoders.blocks import beside_everywhere, halvings, require_grid, residual_network
from worldmodel_v.autoencoders.gaussian.health import active_latents, kl_per_latent
from worldmodel_v.autoencoders.gaussian.posterior import Noise, Posterior
from worldmodel_v.autoencoders.gaussian.settings import MAX_LATENT_DIM, GaussianSettings
from worldmodel_v.autoencoders.gaussian.vae import (
    GaussianAutoencoder,
    GaussianConfig,
    Health,
    bounded_logvar,
    require_network,
)
from worldmodel_v.errors import ConfigError
from worldmodel_v.surface import option


@dataclass(frozen=True, kw_only=True)
class SpatialSettings(GaussianSettings):
    """The map of latents, and the loss."""

    latent_grid: Annotated[int, Interval(ge=1, le=64)] = 8
    """Places along a side: a side is halved while at least as many remain, so 64x64 gives 8x8, and 96x64 gives 12x8."""

    latent_channels: Annotated[int, Interval(ge=1, le=MAX_LATENT_DIM)] = 4
    """Latents at each place."""


@dataclass(frozen=True, kw_only=True)
class SpatialConfig(SpatialSettings, GaussianConfig):
    """What determines the network and its loss."""

    def __post_init__(self) -> None:
        require_network("resnet", self.frame_shape)
        super().__post_init__()
        require_grid(self.frame_shape, self.latent_grid, field="latent_grid", what="latents")
        height, width, channels = self.latent_shape
        if height * width * channels > MAX_LATENT_DIM:
            what = f"at {height}x{width} places, a frame has {height * width * channels} latents"
            raise ConfigError(
                what,
                field="latent_channels",
                got=channels,
                expected=f"at most {MAX_LATENT_DIM} of a frame",
                remedy=f"ask for fewer, or for a smaller {option('latent_grid')}",
            )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, c)"""
        return *halvings(self.frame_shape, self.latent_grid)[-1].after, self.latent_channels


class SpatialVAE(GaussianAutoencoder):
    """A map of latents for each frame."""

    settings_class = SpatialSettings
    config_class = SpatialConfig
    config: SpatialConfig
    kind = "spatial"
    sizes = ("latent_channels", "latent_grid")
    to_posterior: nn.Conv2d
    from_latent: nn.Conv2d

    def __init__(self, config: SpatialConfig) -> None:
        network = residual_network(halvings(config.frame_shape, config.latent_grid), config.channels)
        width, beside = network.bottom[0], config.condition_dim
        super().__init__(
            config,
            network,
            config.latent_shape,
            to_posterior=nn.Conv2d(width + beside, 2 * config.latent_channels, kernel_size=1),
            from_latent=nn.Conv2d(config.latent_channels + beside, width, kernel_size=1),
        )

    def posterior(self, x_BCHW: torch.Tensor, condition_BK: torch.Tensor | None = None, noise: Noise = None) -> Posterior:
        """See the base class; the noise changes nothing."""
        features = beside_everywhere(self.features(x_BCHW), self.standardised(condition_BK))
        mu, logvar = self.to_posterior(features).float().permute(0, 2, 3, 1).chunk(2, dim=3)
        return Posterior(mu.flatten(start_dim=1), bounded_logvar(logvar).flatten(start_dim=1))

    def decode_logits(self, z_BZ: torch.Tensor, condition_BK: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, H, W) before the sigmoid, in float32 for any autocast."""
        z_Bchw = self.shaped(z_BZ).permute(0, 3, 1, 2)
        return self.decoder(self.from_latent(beside_everywhere(z_Bchw, self.standardised(condition_BK)))).float()

    def own_figures(self, scores: Scores) -> Figures:
        """`dead_channels`, which are active at no place, and `num_channels`."""
        is_active = active_latents(scores).view(self.latent_shape).any(dim=(0, 1))
        return {"dead_channels": int((~is_active).sum()), "num_channels": len(is_active)}

    def health(self, scores: Scores) -> dict[str, float | list[float]]:
        """Also `kl_per_channel` in nats, the sum over places."""
        kl_per_channel = kl_per_latent(scores).view(self.latent_shape).sum(dim=(0, 1))
        return super().health(scores) | {"kl_per_channel": kl_per_channel.tolist()}

    def findings(self, step: int, figures: Figures, health_: Health) -> list[Finding]:
        """Also channels that say nothing."""
        found = super().findings(step, figures, health_)
        dead, channels = figures["dead_channels"], figures["num_channels"]
        if 0 < dead < channels:
            text = (
                f"step {step}: {dead} of {channels} channels of the latent are active at no place; fewer "
                f"{option('latent_channels')} would do as well, or a lower {option('beta')} would use them"
            )
            found.append(Finding("channels", text))
        return found
