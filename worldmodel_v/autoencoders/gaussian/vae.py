"""The VAE of world models: a network of `architectures` around a Gaussian latent, and what determines it.

Legend: B batch, C channels (1 or 3), H, W frame, Z latent, K values of the condition.

Predicting log σ² keeps the variance positive without a constraint and the KL free of a logarithm of a small number.
Source: Kingma & Welling 2013 (arXiv:1312.6114); Ha & Schmidhuber 2018 (arXiv:1803.10122); with a condition, Sohn et al.
2015: q(z|x, c) and p(x|z, c), the K values standing beside the encoder's features and beside z.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import nn

from worldmodel_v.autoencoders.gaussian.architectures import ArchitectureName, build_network, require_architecture
from worldmodel_v.errors import ConfigError, ModelMismatch

Likelihood = Literal["gaussian", "calibrated", "bernoulli"]

MAX_LATENT_DIM = 4096
UNIT_WEIGHT_SIGMA = math.sqrt(0.5)
"""The standard deviation at which -log p(x|z) is the sum of squared errors, up to a constant."""

MIN_SIGMA = 1 / 255
"""A calibrated decoder's σ does not fall below one level of a byte: constant frames would weigh without bound."""

CALIBRATION_STEPS = 20
"""Steps over which a calibrated decoder's σ² is averaged."""

MAX_LOGVAR = 20.0
"""log σ² is what the network says up to here; see `bounded_logvar`."""


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """What determines the network; it is stored inside the weights' file."""

    frame_height: int = 64
    """H, a multiple of 8; see `architectures` for the limits of each."""

    frame_width: int = 64
    """W, a multiple of 8."""

    latent_dim: int = 32
    """Z, the size of the latent."""

    architecture: ArchitectureName = "conv"
    """The network, by its name in `worldmodel_v.autoencoders.gaussian.architectures`."""

    channels: int = 3
    """C: 3 for RGB, 1 for brightness."""

    likelihood: Likelihood = "gaussian"
    """What the decoder's output means: see `worldmodel_v.autoencoders.gaussian.losses`."""

    sigma: float = UNIT_WEIGHT_SIGMA
    """The standard deviation of "gaussian"; with "calibrated" where the learned one begins."""

    condition: tuple[str, ...] = ()
    """What encoder and decoder are told beside frame and latent: names of `state` factors, or "action"."""

    condition_dim: int = 0
    """K, the number of values that these are."""

    def __post_init__(self) -> None:
        if any(side < 8 or side % 8 for side in self.frame_shape):
            sides = f"{self.frame_height}x{self.frame_width}"
            raise ConfigError(f"the VAE needs frames whose height and width are multiples of 8, got {sides}")
        if not 1 <= self.latent_dim <= MAX_LATENT_DIM:
            raise ConfigError(f"--latent-dim must be 1 to {MAX_LATENT_DIM}, got {self.latent_dim}")
        require_architecture(self.architecture, self.frame_shape)
        if self.channels not in (1, 3):
            raise ConfigError(f"--channels: expected 3 (RGB) or 1 (brightness), got {self.channels}")
        if self.likelihood not in get_args(Likelihood):
            raise ConfigError(f"--likelihood: expected gaussian, calibrated or bernoulli, got {self.likelihood!r}")
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise ConfigError(f"--sigma must be positive, got {self.sigma}")
        if len(self.condition) > self.condition_dim or (self.condition_dim and not self.condition):
            raise ConfigError(f"a condition on {list(self.condition)} cannot have {self.condition_dim} values")

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(H, W)"""
        return self.frame_height, self.frame_width


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


class VAE(nn.Module):
    """Encoder and decoder. Frames go in as `frames_to_input` makes them: float (B, C, H, W) in [0, 1].

    A VAE with a condition takes it as float (B, K) in the data's own units and standardises it by `condition_mean` and
    `condition_std`, which are the training data's and travel with the weights; one without a condition is called without.
    """

    variance: torch.Tensor
    condition_mean: torch.Tensor
    condition_std: torch.Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        network = build_network(config.architecture, config.frame_shape, config.channels)
        self._bottom = network.bottom
        self.encoder = network.encoder
        self.to_posterior = nn.Linear(network.features + config.condition_dim, 2 * config.latent_dim)
        self.from_latent = nn.Linear(config.latent_dim + config.condition_dim, math.prod(network.bottom))
        self.decoder = network.decoder
        self.register_buffer("variance", torch.tensor(config.sigma**2), persistent=config.likelihood == "calibrated")
        if config.condition_dim:
            self.register_buffer("condition_mean", torch.zeros(config.condition_dim))
            self.register_buffer("condition_std", torch.ones(config.condition_dim))

    @property
    def sigma(self) -> torch.Tensor:
        """0-dim: the standard deviation of the Gaussian likelihoods, fixed or learned (of no meaning for "bernoulli")."""
        return self.variance.sqrt()

    @property
    def error_scale(self) -> torch.Tensor:
        """0-dim: 2 σ². The loss times this is in units of squared errors, whatever σ; 1 for "bernoulli"."""
        return 2 * self.variance

    def encode(self, x_BCHW: torch.Tensor, condition_BK: torch.Tensor | None = None) -> Posterior:
        """The posterior of each frame, in float32 whatever the autocast, or the type of the encoder's weights."""
        features = self._beside(self.encoder(x_BCHW).flatten(start_dim=1).float(), condition_BK)
        mu, logvar = self.to_posterior(features).float().chunk(2, dim=1)
        return Posterior(mu, bounded_logvar(logvar))

    def decode_logits(self, z_BZ: torch.Tensor, condition_BK: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, H, W) before the sigmoid, in float32 whatever the autocast."""
        bottom = self.from_latent(self._beside(z_BZ, condition_BK)).unflatten(1, self._bottom)
        return self.decoder(bottom.contiguous(memory_format=torch.channels_last)).float()

    def decode(self, z_BZ: torch.Tensor, condition_BK: torch.Tensor | None = None) -> torch.Tensor:
        """The mean of p(x|z): (B, C, H, W) in [0, 1]."""
        return torch.sigmoid(self.decode_logits(z_BZ, condition_BK))

    def typical_condition(self, count: int) -> torch.Tensor | None:
        """The training data's mean condition, `count` times: (count, K); None for a VAE without a condition."""
        return self.condition_mean.expand(count, -1) if self.config.condition_dim else None

    @torch.no_grad()
    def standardise_by(self, mean_K: torch.Tensor, std_K: torch.Tensor) -> None:
        """Take over the condition's mean and standard deviation; a value that never varies keeps its scale."""
        self.condition_mean.copy_(mean_K)
        self.condition_std.copy_(torch.where(std_K > 1e-6, std_K, torch.ones_like(std_K)))

    @torch.no_grad()
    def calibrate(self, squared_error: torch.Tensor) -> None:
        """Move a calibrated decoder's σ² towards a batch's mean squared error of a value (0-dim); others stay as they are.

        The optimal σ² is that error (Rybkin et al. 2021, arXiv:2006.13202, section 3.3); here it is averaged over some
        steps, so that one σ serves training, evaluation and several devices, and a single odd batch hardly moves it. It
        begins at the config's σ, where the loss is the plain sum of squared errors. Rejected: a parameter log σ, which
        Adam moves by its step size and which would take thousands of steps to arrive.
        """
        if self.config.likelihood == "calibrated":
            self.variance.lerp_(squared_error.clamp_min(MIN_SIGMA**2), 1 / CALIBRATION_STEPS)

    def _beside(self, values_BN: torch.Tensor, condition_BK: torch.Tensor | None) -> torch.Tensor:
        """`values` with the standardised condition beside them; raises ModelMismatch if it is missing or of another size."""
        expected = self.config.condition_dim
        found = 0 if condition_BK is None else condition_BK.shape[1]
        if found != expected:
            names = ", ".join(self.config.condition) or "nothing"
            raise ModelMismatch(f"the VAE is conditional on {names}: expected {expected} values a frame, got {found}")
        if condition_BK is None:
            return values_BN
        return torch.cat([values_BN, (condition_BK - self.condition_mean) / self.condition_std], dim=1)


def bounded_logvar(logvar: torch.Tensor) -> torch.Tensor:
    """`logvar` itself from -20 to 20, and beyond that growing as a logarithm: exp of it cannot overflow.

    σ from 5e-5 to 22,000 is far more than any posterior needs, and there the gradient is exactly 1. A plain clamp has no
    gradient outside, so that a posterior that was ever thrown there could never come back.
    """
    within = logvar.clamp(-MAX_LOGVAR, MAX_LOGVAR)
    beyond = logvar - within
    return within + beyond.sign() * torch.log1p(beyond.abs())
