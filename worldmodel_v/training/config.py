"""The settings of `wm-train`."""

import json
import math
from dataclasses import asdict, dataclass, fields, make_dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval

from worldmodel_v.autoencoders import registry
from worldmodel_v.autoencoders.gaussian import VAESettings
from worldmodel_v.errors import ConfigError
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import LocalPath, Locations
from worldmodel_v.surface import option
from worldmodel_v.training.extra_settings import Estimator, require_losses, sources_of, without_effect
from worldmodel_v.training.optimizers import source_of
from worldmodel_v.training.schedules import Schedule
from worldmodel_v.training.sharpness.error_weights import ErrorWeight
from worldmodel_v.training.sharpness.perceptual import DISCRIMINATOR
from worldmodel_v.training.trackers import TrackerName
from worldmodel_v.untrusted import canonical_json

Precision = Literal["auto", "fp32", "bf16"]
Publish = Literal["last", "best"]

MAX_BATCH_SIZE = 1 << 16
"""64x64 frames of this number take 0.8 GB, and many times that in the network."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What the training loop is told, whatever it trains. The settings of the autoencoder stand beside these: `TrainConfig` has
    those of the VAE, and `train_config` gives the class for any other."""

    data: Locations = Locations()
    """The rollouts, one dataset or several that agree as for wm-select; directories or URLs."""

    out: LocalPath = LocalPath()
    """Where weights, checkpoint, metrics and pictures go."""

    steps: Annotated[int, Ge(1)] = 10_000
    """Number of all optimiser steps."""

    batch_size: Annotated[int, Interval(ge=1, le=MAX_BATCH_SIZE)] = 256
    """Frames in a step: at most 65536."""

    channels: Literal[1, 3] = 3
    """3: RGB; 1: only brightness."""

    condition: tuple[str, ...] = ()
    """Make the autoencoder conditional: encoder and decoder get these recorded state columns (velocity_x, …) or action."""

    optimizer: str = "adamw"
    """adamw; sgd: with momentum 0.9; or module:factory of your own (see worldmodel_v.training.optimizers)."""

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

    error_weight: ErrorWeight = "none"
    """gradient: errors on edges weigh more; error: large errors weigh more. Then the loss is no bound of log p(x) any more."""

    adversarial: Annotated[float, Ge(0)] = 0.0
    """Weight of a discriminator's loss against blur, relative to all other terms (VQGAN); 0 for none."""

    adversarial_start: Annotated[int, Ge(0)] = 1000
    """Steps before the discriminator begins."""

    perceptual: Annotated[float, Ge(0)] = 0.0
    """Weight of the distance of the features of --perceptual-network; 0 for none."""

    perceptual_network: str = DISCRIMINATOR
    """discriminator: it is trained for this, too; or module:factory of your own, such as VGG16 (see the guide to training)."""

    total_correlation: Annotated[float, Ge(0)] = 0.0
    """Weight of how much latents depend on each other, in nats, beside the KL (beta-TC-VAE, FactorVAE); 0 for none."""

    total_correlation_estimator: Estimator = "sampling"
    """sampling: from the posteriors of a batch; discriminator: by a network that is trained for it."""

    holdout_every: Annotated[int, Ge(2)] = 10
    """Every k-th episode of a collection is held out for evaluation: numbers k - 1, 2k - 1, …"""

    seed: Annotated[int, Ge(0)] = 0
    """Seeds the weights, the order of the frames and the latent noise."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""

    precision: Precision = "auto"
    """fp32, bf16 (autocast), or auto: bf16 on CUDA, fp32 on a CPU. On CUDA, PyTorch computes fp32's convolutions in TF32."""

    num_workers: Annotated[int, Ge(1)] = 1
    """Processes of a Ray cluster that share each batch; each node needs the rollouts at the same path. 1: here, without Ray."""

    address: str | None = None
    """Ray cluster of several workers: auto or HOST:PORT; else RAY_ADDRESS, else one on this machine."""

    compile: bool = False
    """Compile the objective with torch.compile, for many steps: needs a C++ compiler (on CUDA: Triton)."""

    checkpoint_activations: bool = False
    """Recompute activations in the backward pass instead of keeping them: for large frames that do not fit in memory."""

    resume: bool = True
    """Start from step 0 and replace the checkpoint in --out, in place of continuing from it (in Python: resume=False)."""

    track: TrackerName = "tensorboard"
    """What shows metrics and pictures as well: tensorboard (files in --out), wandb (Weights & Biases) or mlflow."""

    log_every: Annotated[int, Ge(1)] = 20
    """Steps between two lines of metrics."""

    checkpoint_every: Annotated[int, Ge(1)] = 500
    """Steps between two checkpoints, each with a held-out evaluation and a picture."""

    keep: Annotated[int, Ge(1)] = 1
    """Checkpoints to keep; above 1, the latest ones are also stored under checkpoints/, named by step."""

    publish: Publish = "last"
    """Which weights become the finished autoencoder: the last, or the best at a checkpoint (for a VAE by the held-out ELBO)."""

    stop_on_collapse: bool = False
    """Stop after a checkpoint if the latents have collapsed; without it there is only a warning."""

    autoencoder: str = registry.DEFAULT
    """gaussian, spatial, ladder: VAEs; fsq, vq, categorical: tokens; or module:Class (see worldmodel_v.autoencoders)."""

    def __post_init__(self) -> None:
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
        own = registry.settings_class(self.autoencoder)
        if not isinstance(self, own) or _names(self) != _names(own) | _names(LoopConfig):
            remedy = f"make them with train_config({self.autoencoder!r})(…)"
            raise ConfigError("has other settings than these", field="autoencoder", got=self.autoencoder, remedy=remedy)
        self.require_combination(self.steps)

    def _check_combinations(self) -> None:
        """Raise ConfigError if one option makes another meaningless."""
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
        require_losses(self)
        if repeated := [name for name in self.condition if self.condition.count(name) > 1]:
            raise ConfigError(f"names {repeated[0]!r} twice", field="condition", got=self.condition)

    def identity(self) -> dict[str, Any]:
        """The settings that determine the weights after a given number of steps; a continued run must share them.

        With a cosine schedule, `steps` is one of them. Values are as in JSON: a tuple is a list. Raises ConfigError if a
        user's own optimiser, autoencoder or perceptual network cannot be loaded.
        """
        free = {"data", "out", "steps", "device", "resume", "log_every", "checkpoint_every", "compile"}
        free |= {"checkpoint_activations", "keep", "publish", "stop_on_collapse", "track", "num_workers", "address"}
        free |= without_effect(self)
        if self.schedule == "cosine":
            free.remove("steps")
        settings = canonical_json({name: value for name, value in asdict(self).items() if name not in free})
        own = registry.sha256_of_source(self.autoencoder)
        of_code = source_of(self.optimizer) | ({"autoencoder_sha256": own} if own else {}) | sources_of(self)
        return json.loads(settings) | of_code


@dataclass(frozen=True, kw_only=True)
class TrainConfig(VAESettings, LoopConfig):
    """Fit an autoencoder, by default a VAE, to the frames of a rollout dataset.

    Run the same command again to continue from the last checkpoint; it does nothing when training is complete. Give a larger
    number of --steps to train on. Other settings are refused for the same directory.
    """


def train_config(autoencoder: str) -> type[Any]:
    """The class of settings of a training with this autoencoder: those of the loop, and its own.

    `train_config("my_module:MyClass")(data=…, out=…, levels=3)` is what `train` takes. Raises ConfigError if the autoencoder
    cannot be loaded, or if a name of its settings is the loop's.
    """
    if autoencoder == registry.DEFAULT:
        return TrainConfig
    settings, named = registry.settings_class(autoencoder, taken=_names(LoopConfig)), [("autoencoder", str, autoencoder)]
    about = {"__doc__": TrainConfig.__doc__, "__post_init__": LoopConfig.__post_init__}
    return make_dataclass("TrainConfig", named, bases=(settings, LoopConfig), namespace=about, frozen=True, kw_only=True)


def _names(config: Any) -> set[str]:
    return {each.name for each in fields(config)}
