"""The VAE of world models: a network of `architectures` around a Gaussian latent, and what determines it.

Legend: B batch, C channels (1 or 3), H, W frame, Z latent, K values of the condition.

Predicting log σ² keeps the variance positive without a constraint and the KL free of a logarithm of a small number.
Source: Kingma & Welling 2013 (arXiv:1312.6114); Ha & Schmidhuber 2018 (arXiv:1803.10122); with a condition, Sohn et al.
2015: q(z|x, c) and p(x|z, c), the K values standing beside the encoder's features and beside z.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Gt, Interval
from torch import nn

from worldmodel_v.autoencoders.base import (
    Autoencoder,
    AutoencoderConfig,
    Batch,
    Compile,
    Figures,
    Finding,
    Latents,
    Loss,
    Measure,
    Score,
    Scores,
)
from worldmodel_v.autoencoders.gaussian import health
from worldmodel_v.autoencoders.gaussian.annealing import annealed_beta
from worldmodel_v.autoencoders.gaussian.architectures import ArchitectureName, build_network, require_architecture
from worldmodel_v.autoencoders.gaussian.likelihood import bound, sampled_log_likelihood, sigma_of
from worldmodel_v.autoencoders.gaussian.losses import elbo
from worldmodel_v.autoencoders.gaussian.posterior import Posterior
from worldmodel_v.autoencoders.gaussian.recompute import Recomputed
from worldmodel_v.errors import ConfigError
from worldmodel_v.preprocessing import SIDE_STEP
from worldmodel_v.schema import PLAIN, Column, Draw

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
class VAEConfig(AutoencoderConfig):
    """What determines the network and its loss. Frames have a height and width that are multiples of 8; see `architectures`
    for the limits of each."""

    latent_dim: Annotated[int, Interval(ge=1, le=MAX_LATENT_DIM)] = 32
    """Z, the size of the latent."""

    architecture: ArchitectureName = "conv"
    """The network, by its name in `worldmodel_v.autoencoders.gaussian.architectures`."""

    likelihood: Likelihood = "gaussian"
    """What the decoder's output means: see `worldmodel_v.autoencoders.gaussian.losses`."""

    sigma: Annotated[float, Gt(0)] = UNIT_WEIGHT_SIGMA
    """The standard deviation of "gaussian"; with "calibrated" where the learned one begins."""

    beta: float = 1.0
    """Weight of the KL in the loss."""

    beta_warmup_steps: int = 0
    """Steps over which the weight rises from 0, see `annealed_beta`."""

    beta_cycles: int = 1
    """How often it rises."""

    free_bits: float = 0.0
    """λ of `losses.kl_penalty`."""

    kl_tolerance: float = 0.0
    """τ of `losses.kl_penalty`."""

    def __post_init__(self) -> None:
        if any(side < SIDE_STEP or side % SIDE_STEP for side in self.frame_shape):
            sides = f"{self.frame_height}x{self.frame_width}"
            raise ConfigError(f"the VAE needs frames whose height and width are multiples of {SIDE_STEP}, got {sides}")
        require_architecture(self.architecture, self.frame_shape)
        super().__post_init__()


class VAE(Autoencoder):
    """Encoder and decoder. Frames go in as `frames_to_input` makes them: float (B, C, H, W) in [0, 1]."""

    config_class = VAEConfig
    config: VAEConfig
    kind = "gaussian"
    score: ClassVar[Score] = Score("elbo_nats", higher_is_better=True)
    shown = ("kl",)
    variance: torch.Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config)
        network = build_network(config.architecture, config.frame_shape, config.channels)
        self._bottom = network.bottom
        self._encoder_dtype = torch.float32
        self.encoder = network.encoder
        self.to_posterior = nn.Linear(network.features + config.condition_dim, 2 * config.latent_dim)
        self.from_latent = nn.Linear(config.latent_dim + config.condition_dim, math.prod(network.bottom))
        self.decoder = network.decoder
        self.register_buffer("variance", torch.tensor(config.sigma**2), persistent=config.likelihood == "calibrated")
        self.noise_shape = (config.latent_dim,)
        self.in_parts = config.architecture != "mlp"  # whose gradients take as long to add as some rows to compute
        self.settled_step = (2 * config.beta_cycles - 1) * config.beta_warmup_steps

    @property
    def sigma(self) -> torch.Tensor:
        """0-dim: the standard deviation of the Gaussian likelihoods, fixed or learned (of no meaning for "bernoulli")."""
        return self.variance.sqrt()

    @property
    def error_scale(self) -> torch.Tensor:
        """0-dim: 2 σ². The loss times this is in units of squared errors, whatever σ; 1 for "bernoulli"."""
        return 2 * self.variance

    def posterior(self, x_BCHW: torch.Tensor, condition_BK: torch.Tensor | None = None) -> Posterior:
        """The posterior of each frame, in float32 whatever the autocast, or the type of the encoder's weights."""
        features_BN = self.encoder(x_BCHW.to(self._encoder_dtype)).flatten(start_dim=1).float()
        mu, logvar = self.to_posterior(self._beside(features_BN, condition_BK)).float().chunk(2, dim=1)
        return Posterior(mu, bounded_logvar(logvar))

    def decode_logits(self, z_BZ: torch.Tensor, condition_BK: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, H, W) before the sigmoid, in float32 whatever the autocast."""
        bottom = self.from_latent(self._beside(z_BZ, condition_BK)).unflatten(1, self._bottom)
        return self.decoder(bottom.contiguous(memory_format=torch.channels_last)).float()

    def decode_z(self, z_BZ: torch.Tensor, condition_BK: torch.Tensor | None = None) -> torch.Tensor:
        """The mean of p(x|z): (B, C, H, W) in [0, 1]."""
        return torch.sigmoid(self.decode_logits(z_BZ, condition_BK))

    @torch.no_grad()
    def calibrate(self, squared_error: torch.Tensor) -> None:
        """Move a calibrated decoder's σ² towards a batch's mean squared error of a value (0-dim); others stay as they are.

        The optimal σ² is that error (Rybkin et al. 2021, arXiv:2006.13202, section 3.3); here it is averaged over some
        steps, so that one σ serves training, evaluation and several devices, and a single odd batch hardly moves it. It
        begins at the config's σ, where the loss is the plain sum of squared errors. Rejected: a parameter log σ, which
        Adam moves by its step size and which would take thousands of steps to arrive.
        """
        if (
            self.config.likelihood == "calibrated"
        ):  # in another tensor: the gradients of the loss before may still need this one
            self.variance = self.variance.lerp(squared_error.clamp_min(MIN_SIGMA**2), 1 / CALIBRATION_STEPS)

    def _beside(self, values_BN: torch.Tensor, condition_BK: torch.Tensor | None) -> torch.Tensor:
        """`values` with the standardised condition beside them; raises ModelNotUsable if it is missing or of another size."""
        standardised = self.standardised(condition_BK)
        return values_BN if standardised is None else torch.cat([values_BN, standardised], dim=1)

    # As an autoencoder

    def latents(self, dtype: str) -> tuple[tuple[Column, ...], tuple[Draw, ...]]:
        """mu and logvar, (N, Z), from which z is drawn."""
        return gaussian_latents(self.config.latent_dim, dtype)

    def encode(self, x_BCHW: torch.Tensor, condition_BK: torch.Tensor | None = None) -> Latents:
        """mu and logvar of each frame: float32 (B, Z)."""
        return self.posterior(x_BCHW, condition_BK)._asdict()

    def decode(self, latents: Latents, condition_BK: torch.Tensor | None = None) -> torch.Tensor:
        """Frames decoded from mu."""
        return self.decode_z(latents["mu"], condition_BK)

    def loss(self, batch: Batch) -> Loss:
        """-ELBO, with the KL weighted by beta."""
        return self.objective()(batch)

    def objective(self, *, compile: Compile | None = None, recompute: bool = False) -> Callable[[Batch], Loss]:
        """`loss`; what is compiled is `elbo`, between whose graphs the noise is drawn, so that it is the same as without."""
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
            return Loss(bound * error_scale, figures | learned)

        return loss

    def measures(self, generator: torch.Generator) -> Mapping[str, Measure]:
        """log p(x|z) of each frame, for one z."""
        return {"log_likelihood": sampled_log_likelihood(self, generator)}

    def figures(self, scores: Scores) -> Figures:
        """KL, active units, and where the likelihood was measured the bound."""
        figures = health.figures(scores)
        measured = "log_likelihood" in scores.measures
        return figures | ({"elbo_nats": bound(scores, sigma_of(self)).elbo_nats} if measured else {})

    def health(self, scores: Scores) -> dict[str, float | list[float]]:
        """What the posteriors are, one by one and together."""
        return health.posterior_health(scores)

    def findings(self, step: int, figures: Figures, health_: Mapping[str, float | list[float]]) -> list[Finding]:
        """Latents far wider than the prior, and a collapsed posterior."""
        return health.findings(step, figures, health_)

    def samples(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Frames decoded from the prior N(0, I), of a conditional VAE under its training data's mean condition."""
        z = torch.randn(count, self.config.latent_dim, generator=generator, dtype=torch.float32, device="cpu")
        return self.decode_z(z.to(self.variance.device), self.typical_condition(count))

    def for_inference(self, device: torch.device, precision: str, *, compile: bool = False) -> "VAE":
        """On a CPU in fp32 with the convolutions of `winograd`; in bf16 all but the last layer is bfloat16."""
        if precision == "bf16":
            model = copy.deepcopy(self)
            model._encoder_dtype = torch.bfloat16
            model.encoder.to(torch.bfloat16)
            return model
        if device.type != "cpu" or compile:
            return self
        from worldmodel_v.autoencoders.gaussian.winograd import with_fast_convolutions

        return with_fast_convolutions(self)


def gaussian_latents(latent_dim: int, dtype: str) -> tuple[tuple[Column, ...], tuple[Draw, ...]]:
    """The columns of a diagonal Gaussian: mu and logvar, (N, Z), from which z is drawn."""
    names = ("mu", "logvar")
    columns = tuple(Column(name=name, dtype=dtype, row_shape=(latent_dim,), role="latent", filters=PLAIN) for name in names)
    return columns, (Draw(name="z", distribution="normal", columns=names),)


def bounded_logvar(logvar: torch.Tensor) -> torch.Tensor:
    """`logvar` itself from -20 to 20, and beyond that growing as a logarithm: exp of it cannot overflow.

    σ from 5e-5 to 22,000 is far more than any posterior needs, and there the gradient is exactly 1. A plain clamp has no
    gradient outside, so that a posterior that was ever thrown there could never come back.
    """
    within = logvar.clamp(-MAX_LOGVAR, MAX_LOGVAR)
    beyond = logvar - within
    return within + beyond.sign() * torch.log1p(beyond.abs())
