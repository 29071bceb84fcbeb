"""What `wm-train` can be asked for."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval

from worldmodel_v.autoencoders import registry
from worldmodel_v.autoencoders.gaussian import ArchitectureName, Likelihood
from worldmodel_v.autoencoders.gaussian.vae import UNIT_WEIGHT_SIGMA
from worldmodel_v.errors import ConfigError
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import Location, local_path, to_place
from worldmodel_v.surface import option
from worldmodel_v.train.optimizers import source_of
from worldmodel_v.train.schedules import Schedule

Precision = Literal["auto", "fp32", "bf16"]
Publish = Literal["last", "best"]

MAX_BATCH_SIZE = 1 << 16
"""Of 64x64 frames 0.8 GB, and many times that in the network."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Fit a VAE, or an autoencoder of your own, to the frames of a rollout dataset.

    The same command again continues from the last checkpoint, and does nothing when training is complete; a larger
    --steps trains on. Other settings on the same directory are refused.
    """

    data: Location
    """The rollouts that wm-collect wrote: a directory, or its URL."""

    out: Path
    """Where weights, checkpoint, metrics and pictures go."""

    steps: Annotated[int, Ge(1)] = 10_000
    """Optimiser steps in all."""

    batch_size: Annotated[int, Interval(ge=1, le=MAX_BATCH_SIZE)] = 256
    """Frames in a step: at most 65536."""

    autoencoder: str = registry.DEFAULT
    """gaussian: a VAE; or module:Class of your own (see worldmodel_v.autoencoders)."""

    autoencoder_kwargs: str = "{}"
    """Further settings of your own autoencoder, as a JSON object."""

    latent_dim: Annotated[int, Ge(1)] = 32
    """Size of the latent z."""

    architecture: ArchitectureName = "resnet"
    """resnet: residual blocks; conv: stride-2 convolutions; ha2018: the paper's (64x64 only); mlp: for frames up to 64x64."""

    channels: Literal[1, 3] = 3
    """3: RGB; 1: brightness alone."""

    likelihood: Likelihood = "calibrated"
    """calibrated: squared errors under a sigma that is learned; gaussian: under a fixed one; bernoulli: binary
    cross-entropy from logits."""

    sigma: Annotated[float, Gt(0)] = UNIT_WEIGHT_SIGMA
    """The gaussian's standard deviation; at the default, sqrt(1/2), the loss is the sum of squared errors, and a smaller one
    weighs them more against the KL."""

    condition: tuple[str, ...] = ()
    """Make the VAE conditional: names of recorded state columns (velocity_x, …) or action, told to encoder and decoder."""

    beta: Annotated[float, Ge(0)] = 1.0
    """Weight of the KL term, against sums over pixels; 1 is the evidence lower bound, more regularises, less sharpens."""

    beta_warmup_steps: Annotated[int, Ge(0)] = 1000
    """Steps over which the weight rises linearly from 0 to beta (KL annealing); 0 for none."""

    beta_cycles: Annotated[int, Ge(1)] = 1
    """How often it rises: each cycle begins at 0, rises over --beta-warmup-steps and stays for as many; the last one stays."""

    free_bits: Annotated[float, Ge(0)] = 0.0
    """Nats that each latent may say, as a mean over the batch, before the loss counts them; 0 for none."""

    kl_tolerance: Annotated[float, Ge(0)] = 0.0
    """Nats for each latent that a frame may use in all before the loss counts them; the paper's is 0.5, 0 for none."""

    optimizer: str = "adamw"
    """adamw; sgd: with momentum 0.9; or module:factory of your own (see worldmodel_v.train.optimizers)."""

    learning_rate: Annotated[float, Gt(0)] = 1e-3
    """The optimiser's step size, before --schedule."""

    warmup_steps: Annotated[int, Ge(0)] = 0
    """Steps over which the learning rate rises linearly; 0 for none."""

    schedule: Schedule = "constant"
    """The learning rate after that. cosine: falls to 0 at --steps, so such a training cannot be continued with more steps."""

    weight_decay: Annotated[float, Ge(0)] = 1e-5
    """Weight decay: adamw's is decoupled, sgd adds it to the gradients."""

    max_grad_norm: Annotated[float, Gt(0)] = 100.0
    """Gradients are scaled down to this total norm; the loss is a sum over pixels, so norms are in the tens."""

    holdout_every: Annotated[int, Ge(2)] = 10
    """Every k-th episode is held out for evaluation: numbers k - 1, 2k - 1, …"""

    seed: Annotated[int, Ge(0)] = 0
    """Seeds the weights, the order of the frames and the latent noise."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""

    precision: Precision = "auto"
    """fp32, bf16 (autocast), or auto: bf16 on CUDA, fp32 on a CPU. On CUDA, PyTorch computes fp32's convolutions in TF32."""

    num_workers: Annotated[int, Ge(1)] = 1
    """Processes that train together, each on its part of every batch, on GPUs or CPUs of a Ray cluster through Ray Train. Each
    node needs the rollouts at the same path; only this process writes. 1 trains here, without Ray."""

    address: str | None = None
    """Of the Ray cluster to join (auto, HOST:PORT) when there are several workers; a local one starts by default, unless
    RAY_ADDRESS is set."""

    compile: bool = False
    """Compile the objective with torch.compile: pays on a CPU where steps are many, on CUDA it is not measured yet; needs a C++
    compiler (on CUDA: Triton)."""

    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: for large frames that do not fit in memory."""

    resume: bool = True
    """Continue from the checkpoint that is there; --no-resume trains anew and replaces it."""

    log_every: Annotated[int, Ge(1)] = 20
    """Steps between two lines of metrics."""

    checkpoint_every: Annotated[int, Ge(1)] = 500
    """Steps between two checkpoints, each with a held-out evaluation and a picture."""

    keep: Annotated[int, Ge(1)] = 1
    """Checkpoints to keep; above 1, the latest ones stay under checkpoints/, named by step, beside the one to continue from."""

    publish: Publish = "last"
    """Which weights become the finished autoencoder: last, or best (of a VAE by the held-out ELBO, of your own by the figure
    that it names; measured at every checkpoint)."""

    stop_on_collapse: bool = False
    """Stop, after a checkpoint, when the latents have collapsed; otherwise there is only a warning."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", to_place(self.data))
        object.__setattr__(self, "out", local_path("out", self.out))
        if self.max_grad_norm == math.inf:
            raise ConfigError(
                field="max_grad_norm",
                expected="a finite number",
                got=self.max_grad_norm,
                remedy="give a large one, such as 1e9, to never clip",
            )
        require_settings(self)
        if self.batch_size % self.num_workers:
            raise ConfigError(
                f"cannot be cut into {self.num_workers} equal parts",
                field="batch_size",
                got=self.batch_size,
                remedy=f"choose a multiple of {option('num_workers')}",
            )
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Raise ConfigError where one option takes the meaning from another."""
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
        needed = (2 * self.beta_cycles - 1) * self.beta_warmup_steps
        if self.beta_cycles > 1 and needed > self.steps:
            raise ConfigError(
                f"{self.beta_warmup_steps} rising and as many resting steps of each need {needed} steps, {option('steps')} "
                f"is {self.steps}",
                field="beta_cycles",
                got=self.beta_cycles,
                remedy=f"ask for more, or lower {option('beta_warmup_steps')}",
            )
        if self.schedule == "cosine" and self.warmup_steps >= self.steps:
            raise ConfigError(
                f"has no steps left after {option('warmup_steps', self.warmup_steps)}, {option('steps')} is {self.steps}",
                field="schedule",
                got="cosine",
                remedy=f"ask for more, or lower {option('warmup_steps')}",
            )
        if self.address and self.num_workers == 1:
            raise ConfigError(
                "one worker trains here, on no cluster",
                field="address",
                got=self.address,
                remedy=f"ask for more {option('num_workers')}, or leave it out",
            )
        if repeated := [name for name in self.condition if self.condition.count(name) > 1]:
            raise ConfigError(f"names {repeated[0]!r} twice", field="condition", got=self.condition)

    def identity(self) -> dict[str, Any]:
        """The settings that determine the weights after a given number of steps; a continued run must share them.

        With a cosine schedule all steps are among them. As JSON holds them: a tuple is a list. Raises ConfigError if an
        optimiser or autoencoder of one's own cannot be loaded.
        """
        free = {"data", "out", "steps", "device", "resume", "log_every", "checkpoint_every", "compile"}
        free |= {"checkpoint_activations", "keep", "publish", "stop_on_collapse", "num_workers", "address"}
        if self.schedule == "cosine":
            free.remove("steps")
        settings = {name: value for name, value in asdict(self).items() if name not in free}
        return {
            **settings,
            "condition": list(self.condition),
            **source_of(self.optimizer),
            **registry.source_of(self.autoencoder),
        }
