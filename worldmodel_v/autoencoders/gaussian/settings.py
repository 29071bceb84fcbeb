"""What a user sets of the VAE: the only place where these settings are declared. `spatial` and `ladder` have further ones."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from worldmodel_v.autoencoders.base import AutoencoderSettings
from worldmodel_v.autoencoders.gaussian.architectures import ArchitectureName
from worldmodel_v.errors import ConfigError
from worldmodel_v.surface import option

Likelihood = Literal["gaussian", "calibrated", "bernoulli"]

MAX_LATENT_DIM = 4096
UNIT_WEIGHT_SIGMA = math.sqrt(0.5)
"""The standard deviation at which -log p(x|z) is the sum of squared errors, up to a constant."""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(AutoencoderSettings):
    """The network around a latent that is one vector."""

    latent_dim: Annotated[int, Interval(ge=1, le=MAX_LATENT_DIM)] = 32
    """Size of the latent z."""

    architecture: ArchitectureName = "resnet"
    """resnet: residual blocks; conv: stride-2 convolutions; ha2018: the paper's (64x64 only); mlp: for frames up to 64x64."""


@dataclass(frozen=True, kw_only=True)
class GaussianSettings(AutoencoderSettings):
    """The loss of all autoencoders with Gaussian latents, and how the weight of the KL changes with the step."""

    likelihood: Likelihood = "calibrated"
    """calibrated: squared errors with a learned sigma; gaussian: with a fixed one; bernoulli: binary cross-entropy."""

    sigma: Annotated[float, Gt(0)] = UNIT_WEIGHT_SIGMA
    """The gaussian's standard deviation: sqrt(1/2) sums squared errors as they are; a smaller one weighs them more."""

    beta: Annotated[float, Ge(0)] = 1.0
    """Weight of the KL term; errors are sums over pixels. 1 is the evidence lower bound, more regularises, less sharpens."""

    beta_warmup_steps: Annotated[int, Ge(0)] = 1000
    """Steps over which the weight rises linearly from 0 to beta (KL annealing); 0 for none."""

    beta_cycles: Annotated[int, Ge(1)] = 1
    """How many times beta rises: each cycle starts at 0, rises over --beta-warmup-steps, then stays as long; the last stays."""

    free_bits: Annotated[float, Ge(0)] = 0.0
    """Nats that each latent may use, as a mean over the batch, before the loss counts them; 0 for none."""

    kl_tolerance: Annotated[float, Ge(0)] = 0.0
    """Nats times Z that a frame may use, in any latents, before the loss counts them; the paper's is 0.5, 0 for none."""

    @property
    def settled_step(self) -> int:
        """The step from which the weight of the KL stays."""
        return (2 * self.beta_cycles - 1) * self.beta_warmup_steps

    def require_combination(self, steps: int) -> None:
        """Raise ConfigError if one setting makes another meaningless, or if `steps` are too few for them."""
        if self.sigma != UNIT_WEIGHT_SIGMA and self.likelihood != "gaussian":
            raise ConfigError(
                f"is for {option('likelihood', 'gaussian')}; {self.likelihood} has no fixed one",
                field="sigma",
                got=self.sigma,
                remedy="leave it out",
            )
        if self.free_bits and self.kl_tolerance:
            raise ConfigError(
                f"holds up the same KL as {option('kl_tolerance')}",
                field="free_bits",
                got=self.free_bits,
                remedy="choose one",
            )
        if self.beta == 0 and (self.free_bits or self.kl_tolerance):
            raise ConfigError(
                f"leaves the KL out, so {option('free_bits')} and {option('kl_tolerance')} have nothing to hold up",
                field="beta",
                got=0,
            )
        if self.beta_cycles > 1 and not self.beta_warmup_steps:
            raise ConfigError(
                f"needs {option('beta_warmup_steps')}, the steps of each rise", field="beta_cycles", got=self.beta_cycles
            )
        if self.beta_cycles > 1 and self.settled_step > steps:
            raise ConfigError(
                f"{self.beta_warmup_steps} rising and as many resting steps of each need {self.settled_step} steps, "
                f"{option('steps')} is {steps}",
                field="beta_cycles",
                got=self.beta_cycles,
                remedy=f"ask for more, or lower {option('beta_warmup_steps')}",
            )


@dataclass(frozen=True, kw_only=True)
class VAESettings(GaussianSettings, NetworkSettings):
    """The network and its loss."""
