"""What an autoencoder must provide to the pipeline: frames into latents and back.

Legend: B batch, N frames, C channels (1 or 3), H, W frame, K values of the condition.

An autoencoder is a `torch.nn.Module` that is built from its config alone. Training minimises its loss and records the figures
that it names; encoding stores the columns that it declares; evaluation decodes what it encodes. The pipeline does not see
the rest (a likelihood, a posterior, a codebook). Methods with a default are optional.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, make_dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from worldmodel_v.errors import ConfigError, ModelNotUsable
from worldmodel_v.schema import Column, Draw
from worldmodel_v.settings import require_settings

Latents = dict[str, Tensor]
"""The columns that an autoencoder declares, by name: one row for each frame."""

Figures = dict[str, float]
"""Numbers by name. A name ends with the unit, if there is one: `psnr_db`, `kl_nats`, `entropy_bits`."""

Compile = Callable[[Callable], Callable]


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings:
    """What a user sets of an autoencoder. Subclasses add fields, all of them JSON values with a default.

    Each field is an option of `wm-train`, with the docstring below it as its help, and a field of `train` in a pipeline file.
    Bounds are declared with the type, as in `Annotated[int, Ge(1)]`.
    """

    def require_combination(self, steps: int) -> None:
        """Raise ConfigError if the settings do not fit together, or not a training of so many steps."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """What determines an autoencoder; it is stored inside the weights' file. That of an autoencoder has its settings too."""

    frame_height: int = 64
    """H"""

    frame_width: int = 64
    """W"""

    channels: Literal[1, 3] = 3
    """C: 3 for RGB, 1 for brightness."""

    condition: tuple[str, ...] = ()
    """What encoder and decoder get in addition to frame and latent: names of `state` factors, or "action"."""

    condition_dim: int = 0
    """K, the number of values of the condition."""

    def __post_init__(self) -> None:
        if self.frame_height < 1 or self.frame_width < 1:
            raise ConfigError(f"frames of {self.frame_height}x{self.frame_width} cannot be encoded")
        require_settings(self)
        if len(self.condition) > self.condition_dim or (self.condition_dim and not self.condition):
            raise ConfigError(f"a condition on {list(self.condition)} cannot have {self.condition_dim} values")

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(H, W)"""
        return self.frame_height, self.frame_width


class Batch(NamedTuple):
    """The input of a training step. The batch may be a part of one that several processes share."""

    x: Tensor
    """float (B, C, H, W) in [0, 1]"""

    condition: Tensor | None
    """float (B, K) in the data's own units, or None for an autoencoder without a condition."""

    noise: Tensor | None
    """float (B, *noise_shape) from N(0, 1), a function of the seed and the step; None without a `noise_shape`."""

    step: int
    """How many steps were done before this one."""

    across: Callable[[Tensor], Tensor]
    """Turns a mean over this part of the batch into the mean over all of it; differentiable."""


class Reconstructed(NamedTuple):
    """What the decoder made of a batch, for losses on pictures. Both have gradients."""

    frames: Tensor
    """float (B, C, H, W) in [0, 1]"""

    errors: Tensor
    """float (B, C, H, W): `Loss.minimised` contains their sum over a frame, as a mean over the batch."""


class Drawn(NamedTuple):
    """The latents that a batch's frames were decoded from, for losses on latents. The prior of each is N(0, 1)."""

    z: Tensor
    """float32 (B, Z), with gradients: drawn with `Batch.noise`, which has a number for each."""

    parameters: tuple[Tensor, ...]
    """float32 (B, Z) each, with gradients: what the posterior of each frame's latents is determined by."""

    log_density: Callable[..., Tensor]
    """log q(z|x) of each latent in nats, elementwise, from z and parameters whose shapes are broadcast."""

    nat: Tensor | float
    """What a nat of the KL weighs in `Loss.minimised`, before beta."""


class Loss(NamedTuple):
    """The result of a training step."""

    minimised: Tensor
    """Scalar, a mean over the batch: the gradients are those of this value."""

    figures: Mapping[str, Tensor | float]
    """What is recorded of the step; tensors are averaged over processes. `loss` is `minimised`, unless `figures` has one."""

    reconstructed: Callable[[], Reconstructed] | None = None
    """Gives the reconstructions, for --error-weight, --adversarial and --perceptual; without it these are refused."""

    drawn: Drawn | None = None
    """The latents, for --total-correlation; None where a frame's latents are no vector or not independent, given the frame.
    Then the option is refused."""


class CodedBatch(NamedTuple):
    """Some frames, their latents and their reconstructions."""

    x: Tensor
    """float (B, C, H, W) in [0, 1]"""

    condition: tuple[Tensor, ...]
    """The second argument of `encode` and `decode`: (B, K), or nothing."""

    latents: Latents

    reconstruction: Tensor
    """float (B, C, H, W): decoded from the latents"""


class Measure(Protocol):
    """One number for each frame of a batch: (B,), or a function that computes them, perhaps in another order of batches."""

    def __call__(self, batch: CodedBatch, /) -> Tensor | Callable[[], Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The latents and figures of each frame, on the CPU; floats in float64."""

    latents: Latents
    """By column, each (N, …)"""

    measures: Mapping[str, Tensor]
    """By name, each (N,); "squared_error" is always among them."""

    num_values: int
    """D, the number of values in a frame."""

    @property
    def psnr(self) -> Tensor:
        """PSNR of each frame in dB: (N,)."""
        return psnr(self.measures["squared_error"], self.num_values)


class Score(NamedTuple):
    """The figure that decides which weights are the best."""

    figure: str
    higher_is_better: bool

    def is_better(self, figures: Mapping[str, float], than: Mapping[str, float]) -> bool:
        """Whether these figures are better than those in `than`."""
        new, old = figures[self.figure], than[self.figure]
        return new > old if self.higher_is_better else new < old


class Finding(NamedTuple):
    """A problem of a training that its held-out frames show."""

    name: str
    """Each name is reported once."""

    text: str
    """What the problem is, and what to do about it."""

    is_collapse: bool = False
    """Whether the latents carry no information any more; `--stop-on-collapse` then stops the training."""


class Autoencoder(ABC, nn.Module):
    """Frames to latents and back. Frames come as float (B, C, H, W) in [0, 1], conditions as float (B, K) in the data's units.

    A subclass needs `latents`, `encode`, `decode` and `loss`, and `settings_class` if it has settings of its own. The
    condition's mean and standard deviation over the training data are stored with the weights.
    """

    settings_class: ClassVar[type[AutoencoderSettings]] = AutoencoderSettings
    """The class of what a user sets."""

    config_class: ClassVar[type[AutoencoderConfig]] = AutoencoderConfig
    """The class of `config`: the settings, and what the data say. It is made, unless a subclass declares it for its types."""

    kind: str = ""
    """Its name for `--autoencoder`; set by the registry."""

    score: ClassVar[Score] = Score("psnr_db", higher_is_better=True)
    """The held-out figure that `--publish best` uses."""

    shown: ClassVar[tuple[str, ...]] = ()
    """The figures of a step that are shown beside the loss during training."""

    noise_shape: tuple[int, ...] | None = None
    """The shape of the noise that `loss` takes for each frame."""

    in_parts: bool = False
    """Whether copies of the autoencoder may compute `loss` in threads, each on a part of the batch. Then `loss` must be a mean
    over frames. For a value over the whole batch it calls `batch.across`, and all copies make the same calls in the same
    order."""

    settled_step: int = 0
    """The step from which the figures of a training can be judged."""

    condition_mean: Tensor
    condition_std: Tensor

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if "settings_class" in vars(cls) and "config_class" not in vars(cls):
            both = (cls.settings_class, cls.config_class)
            cls.config_class = make_dataclass(f"{cls.__name__}Config", [], bases=both, frozen=True, kw_only=True)

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        if config.condition_dim:
            self.register_buffer("condition_mean", torch.zeros(config.condition_dim))
            self.register_buffer("condition_std", torch.ones(config.condition_dim))

    # Storage

    @abstractmethod
    def latents(self, dtype: str) -> tuple[tuple[Column, ...], tuple[Draw, ...]]:
        """The columns that are stored for a frame, of role `latent`, and what can be drawn from them.

        `dtype`, float32 or float16, is the dtype of real numbers; whole numbers have dtypes of their own.
        """

    @abstractmethod
    def encode(self, x_BCHW: Tensor, condition_BK: Tensor | None = None) -> Latents:
        """The latents of frames: for each column a tensor (B, *row_shape)."""

    @abstractmethod
    def decode(self, latents: Latents, condition_BK: Tensor | None = None) -> Tensor:
        """The frames of latents from `encode`: (B, C, H, W) in [0, 1]."""

    # Training

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """What training minimises. Its only randomness is `batch.noise`."""

    def objective(self, *, compile: Compile | None = None, recompute: bool = False) -> Callable[[Batch], Loss]:
        """`loss`, compiled by `compile`; with `recompute`, activations are not kept for the backward pass.

        Raises ConfigError if the autoencoder does not support this.
        """
        if recompute:
            raise ConfigError(
                f"{self.kind} does not compute activations again", field="checkpoint_activations", remedy="leave it out"
            )
        return compile(self.loss) if compile else self.loss

    # Evaluation

    def measures(self, generator: torch.Generator) -> Mapping[str, Measure]:
        """What is measured of each held-out frame in addition to its squared error; `generator` is the only randomness.

        Batch after batch waits until the one before has been measured, so a measure draws its noise and returns the rest of its
        work as a function: several threads compute such functions at once.
        """
        return {}

    def figures(self, scores: Scores) -> Figures:
        """Figures of held-out frames in addition to PSNR and squared error."""
        return {}

    def health(self, scores: Scores) -> dict[str, float | list[float]]:
        """Numbers on the latents of held-out frames, for the record of the training."""
        return {}

    def findings(self, step: int, figures: Figures, health: Mapping[str, float | list[float]]) -> list[Finding]:
        """The problems that these figures show; called from `settled_step` on."""
        return []

    def samples(self, count: int, generator: torch.Generator) -> Tensor | None:
        """New frames, (count, C, H, W) in [0, 1]; None if the autoencoder has no prior. `generator` is on the CPU."""
        return None

    # Encoding

    def for_inference(self, device: torch.device, precision: str, *, compile: bool = False) -> "Autoencoder":
        """The module that wm-encode uses: itself, or a faster copy. `compile` says that `encode` will be compiled.

        Raises ConfigError if it cannot compute in this precision.
        """
        if precision != "fp32":
            raise ConfigError(f"{self.kind} encodes in fp32", field="precision", got=precision, remedy="leave it out")
        return self

    # The condition

    def standardised(self, condition_BK: Tensor | None) -> Tensor | None:
        """The condition in units of its standard deviation; raises ModelNotUsable if it is missing or of another size."""
        expected = self.config.condition_dim
        found = 0 if condition_BK is None else condition_BK.shape[1]
        if found != expected:
            names = ", ".join(self.config.condition) or "nothing"
            raise ModelNotUsable(f"the VAE is conditional on {names}", expected=f"{expected} values a frame", got=found)
        return None if condition_BK is None else (condition_BK - self.condition_mean) / self.condition_std

    def typical_condition(self, count: int) -> Tensor | None:
        """The training data's mean condition, `count` times: (count, K); None without a condition."""
        return self.condition_mean.expand(count, -1) if self.config.condition_dim else None

    @torch.no_grad()
    def standardise_by(self, mean_K: Tensor, std_K: Tensor) -> None:
        """Set the condition's mean and standard deviation; a value that never varies keeps its scale."""
        self.condition_mean.copy_(mean_K)
        self.condition_std.copy_(torch.where(std_K > 1e-6, std_K, torch.ones_like(std_K)))


def psnr(squared_error_N: Tensor, num_values: int) -> Tensor:
    """PSNR of each frame in dB, from its sum of squared errors over `num_values` values in [0, 1]: (N,)."""
    return -10.0 * torch.log10(squared_error_N.clamp_min(1e-12) / num_values)


def figures_text(figures: Mapping[str, float]) -> str:
    """Figures on one line: `psnr 23.1 dB, kl 12.3 nats, active_units 7`."""
    return ", ".join(f"{heading} {value}" for heading, value in readable_figures(figures).items())


def readable_figures(figures: Mapping[str, float]) -> dict[str, str]:
    """Figures for people: the unit at the end of a name moves behind the number."""
    units = {"_db": " dB", "_nats": " nats", "_bits": " bits"}
    texts = {}
    for name, value in figures.items():
        ending = next((ending for ending in units if name.endswith(ending)), "")
        number = str(value) if isinstance(value, int) else f"{value:.2f}"
        texts[name.removesuffix(ending)] = number + units.get(ending, "")
    return texts
