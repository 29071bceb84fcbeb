"""The VAE of world models: a network of `architectures` around a Gaussian latent, and what it shares with its relatives.

`GaussianAutoencoder` has the loss, the figures and the columns of all with Gaussian latents; `VAE`, `spatial` and `ladder`
have their networks. It treats a frame's latents as one vector; where they are a map, only the columns show it.

Legend: B batch, C channels (1 or 3), H, W frame, Z latent, K values of the condition.

The network predicts log σ²: this keeps the variance positive without a constraint, and the KL needs no logarithm of a small
number. Source: Kingma & Welling 2013 (arXiv:1312.6114); Ha & Schmidhuber 2018 (arXiv:1803.10122); with a condition, Sohn et
al. 2015: q(z|x, c) and p(x|z, c), with the K values appended to the encoder's features and to z.
"""

import copy
import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from worldmodel_v.autoencoders.base import (
    Autoencoder,
    AutoencoderConfig,
    Batch,
    Compile,
    Drawn,
    Figures,
    Finding,
    Latents,
    Loss,
    Measure,
    Score,
    Scores,
)
from worldmodel_v.autoencoders.blocks import Network, Shape, beside
from worldmodel_v.autoencoders.gaussian import health
from worldmodel_v.autoencoders.gaussian.annealing import annealed_beta
from worldmodel_v.autoencoders.gaussian.architectures import build_network, require_architecture
from worldmodel_v.autoencoders.gaussian.likelihood import bound, sampled_log_likelihood, sigma_of
from worldmodel_v.autoencoders.gaussian.losses import elbo
from worldmodel_v.autoencoders.gaussian.posterior import Noise, Posterior, gaussian_log_density
from worldmodel_v.autoencoders.gaussian.recompute import Recomputed
from worldmodel_v.autoencoders.gaussian.settings import GaussianSettings, VAESettings
from worldmodel_v.autoencoders.reconstruction import reconstructed
from worldmodel_v.errors import ConfigError
from worldmodel_v.preprocessing import SIDE_STEP
from worldmodel_v.schema import PLAIN, Column, Draw

MIN_SIGMA = 1 / 255
"""A calibrated decoder's σ is at least one level of a byte; otherwise the weight of constant frames would have no bound."""

CALIBRATION_STEPS = 20
"""Steps over which a calibrated decoder's σ² is averaged."""

MAX_LOGVAR = 20.0
"""Up to here log σ² is the network's output; see `bounded_logvar`."""

Health = Mapping[str, float | list[float]]


@dataclass(frozen=True, kw_only=True)
class GaussianConfig(GaussianSettings, AutoencoderConfig):
    """What all with Gaussian latents are determined by."""


@dataclass(frozen=True, kw_only=True)
class VAEConfig(VAESettings, GaussianConfig):
    """What determines the network and its loss. Height and width of frames must be multiples of 8; see `architectures`
    for the limits of each."""

    def __post_init__(self) -> None:
        require_network(self.architecture, self.frame_shape)
        super().__post_init__()


class GaussianAutoencoder(Autoencoder):
    """Its latents are Z independent normal numbers with the prior N(0, I). Subclasses have `posterior` and `decode_logits`.

    Frames go in as `frames_to_input` makes them: float (B, C, H, W) in [0, 1].
    """

    config: GaussianConfig
    score: ClassVar[Score] = Score("elbo_nats", higher_is_better=True)
    shown: ClassVar[tuple[str, ...]] = ("kl",)
    sizes: ClassVar[tuple[str, ...]]
    """The settings that say how many latents there are."""

    independent: ClassVar[bool] = False
    """Whether a frame's latents are one vector, each of which is drawn from its own mu and logvar alone."""

    variance: torch.Tensor

    def __init__(
        self, config: GaussianConfig, network: Network, latent_shape: tuple[int, ...], **around_latent: nn.Module
    ) -> None:
        """`around_latent` are the layers between encoder and decoder, by their names."""
        super().__init__(config)
        self.latent_shape, self.latent_dim = latent_shape, math.prod(latent_shape)
        self._bottom = network.bottom
        self._encoder_dtype = torch.float32
        self.encoder = network.encoder
        for name, module in around_latent.items():
            self.add_module(name, module)
        self.decoder = network.decoder
        self.register_buffer("variance", torch.tensor(config.sigma**2), persistent=config.likelihood == "calibrated")
        self.noise_shape = (self.latent_dim,)
        self.in_parts = True
        self.settled_step = config.settled_step

    @property
    def sigma(self) -> torch.Tensor:
        """0-dim: the standard deviation of the Gaussian likelihoods, fixed or learned (without meaning for "bernoulli")."""
        return self.variance.sqrt()

    @property
    def error_scale(self) -> torch.Tensor:
        """0-dim: 2 σ². The loss times this is in units of squared errors, for any σ; 1 for "bernoulli"."""
        return 2 * self.variance

    @abstractmethod
    def posterior(self, x_BCHW: torch.Tensor, condition_BK: torch.Tensor | None = None, noise: Noise = None) -> Posterior:
        """The posterior of each frame, always in float32, for any autocast and any dtype of the encoder's weights.

        `noise`, (B, Z), is for latents whose posterior depends on how others are drawn; a generator counts as None.
        """

    @abstractmethod
    def decode_logits(self, z_BZ: torch.Tensor, condition_BK: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, H, W) before the sigmoid, in float32 for any autocast."""

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """What the encoder makes of frames: a map, or (B, N), in float32."""
        return self.encoder(x_BCHW.to(self._encoder_dtype)).float()

    def decode_z(self, z_BZ: torch.Tensor, condition_BK: torch.Tensor | None = None) -> torch.Tensor:
        """The mean of p(x|z): (B, C, H, W) in [0, 1]."""
        return torch.sigmoid(self.decode_logits(z_BZ, condition_BK))

    @torch.no_grad()
    def calibrate(self, squared_error: torch.Tensor) -> None:
        """Move a calibrated decoder's σ² towards a batch's mean squared error of a value (0-dim); other decoders keep theirs.

        The optimal σ² is that error (Rybkin et al. 2021, arXiv:2006.13202, section 3.3). Here it is averaged over some
        steps, so that training, evaluation and several devices use the same σ, and one unusual batch changes it little. It
        begins at the config's σ, where the loss is the plain sum of squared errors. Rejected: a parameter log σ: Adam
        changes it by its step size, so it would need thousands of steps to converge.
        """
        if self.config.likelihood == "calibrated":
            # in a new tensor: the gradients of the previous loss may still need this one
            self.variance = self.variance.lerp(squared_error.clamp_min(MIN_SIGMA**2), 1 / CALIBRATION_STEPS)

    # As an autoencoder

    def latents(self, dtype: str) -> tuple[tuple[Column, ...], tuple[Draw, ...]]:
        """mu and logvar, (N, Z) or (N, h, w, c), from which z is drawn."""
        return gaussian_latents(self.latent_shape, dtype)

    def encode(self, x_BCHW: torch.Tensor, condition_BK: torch.Tensor | None = None) -> Latents:
        """mu and logvar of each frame: float32 (B, *latent_shape)."""
        return {name: self.shaped(values) for name, values in self.posterior(x_BCHW, condition_BK)._asdict().items()}

    def decode(self, latents: Latents, condition_BK: torch.Tensor | None = None) -> torch.Tensor:
        """Frames decoded from mu."""
        mu = latents["mu"]
        return self.decode_z(mu if mu.ndim == 2 else mu.flatten(start_dim=1), condition_BK)

    def shaped(self, values_BZ: torch.Tensor) -> torch.Tensor:
        """(B, *latent_shape) of vectors."""
        return values_BZ if len(self.latent_shape) == 1 else values_BZ.unflatten(1, self.latent_shape)

    def loss(self, batch: Batch) -> Loss:
        """-ELBO, with the KL weighted by beta."""
        return self.objective()(batch)

    def objective(self, *, compile: Compile | None = None, recompute: bool = False) -> Callable[[Batch], Loss]:
        """`loss`. Only `elbo` is compiled; the noise is drawn between its graphs, so it is the same as without."""
        terms_of = compile(elbo) if compile else elbo
        network: Any = Recomputed(self) if recompute else self

        def loss(batch: Batch) -> Loss:
            config = self.config
            beta = annealed_beta(batch.step, config.beta, config.beta_warmup_steps, config.beta_cycles)
            error_scale = self.error_scale
            floors = {"free_bits": config.free_bits, "kl_tolerance": config.kl_tolerance}
            terms = terms_of(network, batch.x, batch.noise, batch.condition, **floors, across=batch.across)
            if self.training and terms.squared_error is not None:
                self.calibrate(terms.squared_error)
            bound = terms.loss(beta)
            figures = {"loss": bound, "reconstruction": terms.reconstruction, "kl": terms.kl, "beta": beta}
            learned = {"sigma": self.sigma} if config.likelihood == "calibrated" else {}
            assert terms.logits is not None
            assert terms.posterior is not None
            assert terms.z is not None
            made = functools.partial(reconstructed, config.likelihood, terms.logits, batch.x)
            drawn = Drawn(terms.z, terms.posterior, gaussian_log_density, error_scale) if self.independent else None
            return Loss(bound * error_scale, figures | learned | self.step_figures(terms.kl_per_latent), made, drawn)

        return loss

    def step_figures(self, kl_Z: torch.Tensor) -> Figures | dict[str, torch.Tensor]:
        """Further figures of a step, from the KL of each latent."""
        return {}

    def measures(self, generator: torch.Generator) -> Mapping[str, Measure]:
        """log p(x|z) of each frame, for one z."""
        return {"log_likelihood": sampled_log_likelihood(self, generator)}

    def figures(self, scores: Scores) -> Figures:
        """KL, active units, `own_figures`, and the bound if the likelihood was measured."""
        figures = health.figures(scores) | self.own_figures(scores)
        measured = "log_likelihood" in scores.measures
        return figures | ({"elbo_nats": bound(scores, sigma_of(self)).elbo_nats} if measured else {})

    def own_figures(self, scores: Scores) -> Figures:
        """Figures that only this kind of VAE has."""
        return {}

    def health(self, scores: Scores) -> dict[str, float | list[float]]:
        """The posteriors one by one, and the aggregated posterior."""
        return health.posterior_health(scores)

    def findings(self, step: int, figures: Figures, health_: Health) -> list[Finding]:
        """Latents far wider than the prior, and a collapsed posterior."""
        return health.findings(step, figures, health_)

    def samples(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Frames decoded from the prior N(0, I); a conditional VAE gets the mean condition of its training data."""
        z = torch.randn(count, self.latent_dim, generator=generator, dtype=torch.float32, device="cpu")
        return self.decode_z(z.to(self.variance.device), self.typical_condition(count))

    def for_inference(self, device: torch.device, precision: str, *, compile: bool = False) -> "GaussianAutoencoder":
        """On a CPU in fp32 it uses the convolutions of `winograd`; in bf16 all layers but the last are bfloat16."""
        if precision == "bf16":
            model = copy.deepcopy(self)
            model._encoder_dtype = torch.bfloat16
            model.encoder.to(torch.bfloat16)
            return model
        if device.type != "cpu" or compile:
            return self
        from worldmodel_v.autoencoders.gaussian.winograd import with_fast_convolutions

        return with_fast_convolutions(self)


class VAE(GaussianAutoencoder):
    """One vector for each frame."""

    settings_class = VAESettings
    config_class = VAEConfig
    config: VAEConfig
    kind = "gaussian"
    sizes = ("latent_dim",)
    independent = True
    to_posterior: nn.Linear
    from_latent: nn.Linear

    def __init__(self, config: VAEConfig) -> None:
        network = build_network(config.architecture, config.frame_shape, config.channels)
        super().__init__(
            config,
            network,
            (config.latent_dim,),
            to_posterior=nn.Linear(network.features + config.condition_dim, 2 * config.latent_dim),
            from_latent=nn.Linear(config.latent_dim + config.condition_dim, math.prod(network.bottom)),
        )
        self.in_parts = config.architecture != "mlp"  # whose gradients take as long to add as some rows to compute

    def posterior(self, x_BCHW: torch.Tensor, condition_BK: torch.Tensor | None = None, noise: Noise = None) -> Posterior:
        """See the base class; the noise changes nothing."""
        features_BN = self.features(x_BCHW).flatten(start_dim=1)
        mu, logvar = self.to_posterior(beside(features_BN, self.standardised(condition_BK))).float().chunk(2, dim=1)
        return Posterior(mu, bounded_logvar(logvar))

    def decode_logits(self, z_BZ: torch.Tensor, condition_BK: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, H, W) before the sigmoid, in float32 for any autocast."""
        bottom = self.from_latent(beside(z_BZ, self.standardised(condition_BK))).unflatten(1, self._bottom)
        return self.decoder(bottom.contiguous(memory_format=torch.channels_last)).float()


def require_network(architecture: str, frame_shape: Shape) -> None:
    """Raise ConfigError unless the network takes frames of this size."""
    if any(side < SIDE_STEP or side % SIDE_STEP for side in frame_shape):
        sides = f"{frame_shape[0]}x{frame_shape[1]}"
        raise ConfigError(f"the VAE needs frames whose height and width are multiples of {SIDE_STEP}, got {sides}")
    require_architecture(architecture, frame_shape)


def gaussian_latents(
    latent_shape: int | tuple[int, ...], dtype: str, parts: tuple[str, ...] = ()
) -> tuple[tuple[Column, ...], tuple[Draw, ...]]:
    """The columns of a diagonal Gaussian: mu and logvar, (N, *latent_shape), from which z is drawn."""
    names, row_shape = ("mu", "logvar"), (latent_shape,) if isinstance(latent_shape, int) else latent_shape
    columns = tuple(
        Column(name=name, dtype=dtype, row_shape=row_shape, role="latent", parts=parts, filters=PLAIN) for name in names
    )
    return columns, (Draw(name="z", distribution="normal", columns=names),)


def bounded_logvar(logvar: torch.Tensor) -> torch.Tensor:
    """`logvar` itself from -20 to 20; outside it grows as a logarithm, so exp of it cannot overflow.

    This allows σ from 5e-5 to 22,000, more than any posterior needs, and the gradient there is exactly 1. A plain clamp has
    no gradient outside the range, so a posterior outside could never come back.
    """
    within = logvar.clamp(-MAX_LOGVAR, MAX_LOGVAR)
    beyond = logvar - within
    return within + beyond.sign() * torch.log1p(beyond.abs())
