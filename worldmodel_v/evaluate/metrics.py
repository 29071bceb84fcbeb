"""Numbers that tell what a VAE is worth, on frames it was not trained on.

Legend: N frames, B batch, C channel, H, W frame, D = C·H·W values of a frame, Z latent, K size of the condition.

`evaluate` is the short answer that training gives; `score_frames` goes over the frames once and keeps every frame's own
figures, for whoever wants to ask more of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from worldmodel_v.autoencoders import frames_to_input
from worldmodel_v.autoencoders.gaussian import VAE, Posterior, gaussian_kl
from worldmodel_v.evaluate.conditions import as_arguments
from worldmodel_v.progress import Progress, Silent

BATCH_SIZE = 250
ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A VAE on a set of frames; reconstructions are decoded from mu."""

    num_frames: int

    psnr_db: float
    """Peak signal-to-noise ratio, 10 log10(1 / MSE) of each frame, averaged over frames; higher is closer."""

    squared_error: float
    """The sum of squared errors of a frame with values in [0, 1], averaged over frames (the paper's reconstruction loss)."""

    kl_nats: float
    """KL(q(z|x) || N(0, I)) of a frame, averaged over frames: how much the latent says."""

    active_units: int
    """Latents whose mean varies over the frames with a variance above 0.01 (Burda et al. 2016, arXiv:1509.00519)."""

    latent_dim: int


class CodedBatch(NamedTuple):
    """Some frames, and what the VAE makes of them."""

    x: torch.Tensor
    """float (B, C, H, W) in [0, 1]"""

    condition: tuple[torch.Tensor, ...]
    """What `encode` and `decode` take beside it: (B, K), or nothing."""

    posterior: Posterior

    reconstruction: torch.Tensor
    """float (B, C, H, W): decoded from mu"""


class Measure(Protocol):
    """One number for each frame of a batch: (B,)."""

    def __call__(self, model: VAE, batch: CodedBatch, /) -> torch.Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Every frame's own figures, on the CPU in float64."""

    posterior: Posterior
    """mu and logvar, each (N, Z)"""

    measures: Mapping[str, torch.Tensor]
    """By name, each (N,); "squared_error" is always among them."""

    num_values: int
    """D, the number of values in a frame."""

    @property
    def psnr(self) -> torch.Tensor:
        """Decibels of each frame: (N,)."""
        return psnr(self.measures["squared_error"], self.num_values)

    @property
    def kl(self) -> torch.Tensor:
        """KL of each latent, averaged over frames, in nats: (Z,)."""
        return gaussian_kl(self.posterior).mean(dim=0)

    @property
    def active(self) -> torch.Tensor:
        """Which latents say something: bool (Z,)."""
        return self.posterior.mu.var(dim=0, unbiased=False) > ACTIVE_VARIANCE


def evaluate(
    model: VAE,
    frames_NHWC: np.ndarray,
    device: torch.device,
    progress: Progress | None = None,
    condition_NK: np.ndarray | None = None,
) -> Evaluation:
    """Evaluate on uint8 frames (N, H, W, 3), in float32; leaves the model in evaluation mode."""
    return summarise(score_frames(model, frames_NHWC, device, progress, condition_NK))


@torch.no_grad()
def score_frames(
    model: VAE,
    frames_NHWC: np.ndarray,
    device: torch.device,
    progress: Progress | None = None,
    condition_NK: np.ndarray | None = None,
    measures: Mapping[str, Measure] | None = None,
) -> Scores:
    """Encode and decode every frame once, and measure each; leaves the model in evaluation mode."""
    wanted: dict[str, Measure] = {"squared_error": squared_error, **(measures or {})}
    found: dict[str, list[torch.Tensor]] = {name: [] for name in (*wanted, *Posterior._fields)}
    num_values = 0
    task = (progress or Silent()).task("evaluate", len(frames_NHWC), "frames")
    for batch in coded_batches(model, frames_NHWC, device, condition_NK):
        for name, measure in wanted.items():
            found[name].append(measure(model, batch).double().cpu())
        for name, part in batch.posterior._asdict().items():
            found[name].append(part.double().cpu())
        num_values = batch.x[0].numel()
        task.advance(len(batch.x))
    task.close()
    columns = {name: torch.cat(parts) for name, parts in found.items()}
    posterior = Posterior(**{name: columns.pop(name) for name in Posterior._fields})
    return Scores(posterior=posterior, measures=columns, num_values=num_values)


@torch.no_grad()
def coded_batches(
    model: VAE, frames_NHWC: np.ndarray, device: torch.device, condition_NK: np.ndarray | None = None
) -> Iterator[CodedBatch]:
    """The frames in order, batch by batch, with their posteriors and reconstructions."""
    model.eval()
    condition_NK = np.zeros((len(frames_NHWC), 0), np.float32) if condition_NK is None else condition_NK
    for start in range(0, len(frames_NHWC), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        x = model_input(model, frames_NHWC[rows], device)
        condition = as_arguments(condition_NK[rows], device)
        posterior = model.encode(x, *condition)
        yield CodedBatch(x, condition, posterior, model.decode(posterior.mu, *condition))


def model_input(model: VAE, frames_BHWC: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 frames as the model takes them: float (B, C, H, W) in [0, 1], on the device."""
    return frames_to_input(torch.from_numpy(np.ascontiguousarray(frames_BHWC)).to(device), model.config.channels)


def summarise(scores: Scores) -> Evaluation:
    """The averages over all frames."""
    mu = scores.posterior.mu
    return Evaluation(
        num_frames=len(mu),
        psnr_db=float(scores.psnr.mean()),
        squared_error=float(scores.measures["squared_error"].mean()),
        kl_nats=float(scores.kl.sum()),
        active_units=int(scores.active.sum()),
        latent_dim=mu.shape[1],
    )


def squared_error(model: VAE, batch: CodedBatch) -> torch.Tensor:
    """The sum of squared errors of each frame's reconstruction: (B,)."""
    return (batch.reconstruction - batch.x).square().flatten(start_dim=1).sum(dim=1)


def ssim(model: VAE, batch: CodedBatch) -> torch.Tensor:
    """The structural similarity of each frame and its reconstruction: (B,), 1 where they are equal.

    Wang et al. 2004 (doi:10.1109/TIP.2003.819861): a Gaussian window of σ = 1.5 (11 pixels) around every pixel, the frame
    continued by reflection, averaged over pixels and channels.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    decoded, x = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (batch.reconstruction, batch.x))
    found = structural_similarity_index_measure(decoded, x, data_range=1.0, reduction="none")
    return torch.as_tensor(found)


def psnr(squared_error_N: torch.Tensor, num_values: int) -> torch.Tensor:
    """Decibels of each frame, from its sum of squared errors over `num_values` values in [0, 1]: (N,)."""
    return -10.0 * torch.log10(squared_error_N.clamp_min(1e-12) / num_values)
