"""The convolutional VAE of world models: stride-2 convolutions down to 4x4, transposed convolutions back up.

Legend: B batch, C channel (3), H = W = S frame size, Z latent.

For 64x64 frames the encoder is 3 -> 32 -> 64 -> 128 -> 256 channels (kernel 4, stride 2, padding 1), one linear layer gives
mu and log σ², and the decoder mirrors it. Other powers of two get more or fewer layers, the widest having 256 channels.
Predicting log σ² keeps the variance positive without a constraint and the KL free of a logarithm of a small number.
Source: Kingma & Welling 2013 (arXiv:1312.6114); Ha & Schmidhuber 2018 (arXiv:1803.10122).
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn

from worldmodel_v.errors import ConfigError

Likelihood = Literal["gaussian", "bernoulli"]

BASE_CHANNELS = 32
MAX_CHANNELS = 256
BOTTOM_SIZE = 4
MAX_LATENT_DIM = 4096


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """What determines the network; it is stored inside the weights' file."""

    frame_size: int = 64
    """Height and width of the frames: a power of two from 8."""

    latent_dim: int = 32
    """Z, the size of the latent."""

    likelihood: Likelihood = "gaussian"
    """What the decoder's output means: see `worldmodel_v.models.losses`."""

    def __post_init__(self) -> None:
        if self.frame_size < 8 or self.frame_size & (self.frame_size - 1):
            raise ConfigError(f"the VAE needs frames whose size is a power of two from 8, got {self.frame_size}")
        if not 1 <= self.latent_dim <= MAX_LATENT_DIM:
            raise ConfigError(f"--latent-dim must be 1 to {MAX_LATENT_DIM}, got {self.latent_dim}")
        if self.likelihood not in ("gaussian", "bernoulli"):
            raise ConfigError(f"--likelihood: expected gaussian or bernoulli, got {self.likelihood!r}")

    @property
    def channels(self) -> list[int]:
        """Output channels of the encoder's layers."""
        depth = int(math.log2(self.frame_size // BOTTOM_SIZE))
        return [min(BASE_CHANNELS << layer, MAX_CHANNELS) for layer in range(depth)]


class Posterior(NamedTuple):
    """q(z|x) = N(mu, exp(logvar)), a diagonal Gaussian."""

    mu: torch.Tensor
    """(B, Z)"""

    logvar: torch.Tensor
    """(B, Z): log σ²"""

    def sample(self, noise: torch.Tensor | torch.Generator | None = None) -> torch.Tensor:
        """z = mu + σ ε with ε ~ N(0, I): the reparameterisation, through which gradients reach mu and logvar.

        `noise` is ε itself, (B, Z), or the generator that draws it.
        """
        if not isinstance(noise, torch.Tensor):
            noise = torch.randn(self.mu.shape, generator=noise, device=self.mu.device, dtype=self.mu.dtype)
        return self.mu + torch.exp(0.5 * self.logvar) * noise


class ConvVAE(nn.Module):
    """Encoder and decoder. Frames go in as `frames_to_input` makes them: float (B, 3, S, S) in [0, 1]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.encoder = nn.Sequential(*_downsampling(channels))
        flat = channels[-1] * BOTTOM_SIZE**2
        self.to_posterior = nn.Linear(flat, 2 * config.latent_dim)
        self.from_latent = nn.Linear(config.latent_dim, flat)
        self.decoder = nn.Sequential(*_upsampling(channels))

    def encode(self, x_BCHW: torch.Tensor) -> Posterior:
        """The posterior of each frame, in float32 whatever the autocast."""
        flat = self.encoder(x_BCHW).flatten(start_dim=1)
        mu, logvar = self.to_posterior(flat).float().chunk(2, dim=1)
        return Posterior(mu, logvar)

    def decode_logits(self, z_BZ: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) before the sigmoid, in float32 whatever the autocast."""
        bottom = self.from_latent(z_BZ).unflatten(1, (-1, BOTTOM_SIZE, BOTTOM_SIZE))
        return self.decoder(bottom.contiguous(memory_format=torch.channels_last)).float()

    def decode(self, z_BZ: torch.Tensor) -> torch.Tensor:
        """The mean of p(x|z): (B, 3, S, S) in [0, 1]."""
        return torch.sigmoid(self.decode_logits(z_BZ))


def frames_to_input(frames_BHWC: torch.Tensor) -> torch.Tensor:
    """uint8 (B, H, W, 3) on any device -> float32 (B, 3, H, W) in [0, 1], channels_last in memory (no copy is made for it)."""
    return frames_BHWC.permute(0, 3, 1, 2).float().div_(255.0)


def _downsampling(channels: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in zip([3, *channels[:-1]], channels, strict=True):
        layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), nn.ReLU()]
    return layers


def _upsampling(channels: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.ReLU()]
    for before, after in zip(channels[::-1], [*channels[-2::-1], 3], strict=True):
        layers += [nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1), nn.ReLU()]
    return layers[:-1]
