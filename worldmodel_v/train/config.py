"""What `wm-train` can be asked for."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from worldmodel_v.errors import ConfigError
from worldmodel_v.models import Likelihood

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Fit a VAE to the frames of a rollout dataset.

    The same command again continues from the last checkpoint, and does nothing when training is complete; a larger
    --steps trains on. Other settings on the same directory are refused.
    """

    data: Path
    """The rollouts that wm-collect wrote."""

    out: Path
    """Where weights, checkpoint, metrics and pictures go."""

    steps: int = 10_000
    """Optimiser steps in all."""

    batch_size: int = 256
    """Frames in a step."""

    latent_dim: int = 32
    """Size of the latent z."""

    likelihood: Likelihood = "gaussian"
    """gaussian: sum of squared errors; bernoulli: binary cross-entropy from logits."""

    beta: float = 1.0
    """Weight of the KL term, against sums over pixels; 1 is the evidence lower bound, more regularises, less sharpens."""

    beta_warmup_steps: int = 1000
    """Steps over which the weight rises linearly from 0 to beta (KL annealing); 0 for none."""

    learning_rate: float = 1e-3
    """Adam's step size."""

    weight_decay: float = 1e-5
    """Decoupled weight decay (AdamW)."""

    max_grad_norm: float = 100.0
    """Gradients are scaled down to this total norm; the loss is a sum over pixels, so norms are in the tens."""

    holdout_every: int = 10
    """Every k-th episode is held out for evaluation: numbers k - 1, 2k - 1, …"""

    seed: int = 0
    """Seeds the weights, the order of the frames and the latent noise."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""

    precision: Precision = "auto"
    """fp32, bf16 (autocast), or auto: bf16 on CUDA, fp32 on a CPU."""

    compile: bool = False
    """Compile the objective with torch.compile: pays where steps are many; needs a C++ compiler (on CUDA: Triton)."""

    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: for large frames that do not fit in memory."""

    resume: bool = True
    """Whether to continue from the checkpoint that is there; --no-resume trains anew and replaces it."""

    log_every: int = 20
    """Steps between two lines of metrics."""

    checkpoint_every: int = 500
    """Steps between two checkpoints, each with a held-out evaluation and a picture."""

    def __post_init__(self) -> None:
        at_least = {"steps": 1, "batch_size": 1, "latent_dim": 1, "log_every": 1, "checkpoint_every": 1}
        at_least |= {"beta": 0, "beta_warmup_steps": 0, "weight_decay": 0, "seed": 0, "holdout_every": 2}
        for name, bound in at_least.items():
            if not getattr(self, name) >= bound:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {bound}, got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise ConfigError(f"--seed must be below 2^63, got {self.seed}")
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")

    def identity(self) -> dict[str, Any]:
        """The settings that determine the weights after a given number of steps; a continued run must share them."""
        free = {
            "data",
            "out",
            "steps",
            "device",
            "compile",
            "checkpoint_activations",
            "resume",
            "log_every",
            "checkpoint_every",
        }
        return {name: value for name, value in asdict(self).items() if name not in free}
