"""Numbers that show how good an autoencoder is, on frames that it was not trained on.

Legend: N frames, B batch, C channel, H, W frame, D = C·H·W values of a frame, Z latent, K size of the condition.

`evaluate` gives the short result that training reports; `score_frames` goes over the frames once and keeps the figures of
each frame, for further analysis.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder, frames_to_input
from worldmodel_v.autoencoders.base import CodedBatch, Figures, Measure, Scores
from worldmodel_v.evaluate.conditions import as_arguments
from worldmodel_v.process import plain_tensors
from worldmodel_v.progress import Progress, Silent

BATCH_SIZE = 250


def evaluate(
    model: Autoencoder,
    frames_NHWC: np.ndarray,
    device: torch.device,
    progress: Progress | None = None,
    condition_NK: np.ndarray | None = None,
) -> Figures:
    """Evaluate on uint8 frames (N, H, W, 3), in float32; leaves the model in evaluation mode."""
    return summarise(model, score_frames(model, frames_NHWC, device, progress, condition_NK))


@plain_tensors()
@torch.no_grad()
def score_frames(
    model: Autoencoder,
    frames_NHWC: np.ndarray,
    device: torch.device,
    progress: Progress | None = None,
    condition_NK: np.ndarray | None = None,
    measures: Mapping[str, Measure] | None = None,
    seed: int = 0,
) -> Scores:
    """Encode and decode every frame once, and apply `measures` and the autoencoder's own measures to each, with noise from
    `seed`. Leaves the model in evaluation mode."""
    generator = torch.Generator(device).manual_seed(seed)
    wanted: dict[str, Measure] = {"squared_error": squared_error, **(measures or {}), **model.measures(generator)}
    found: dict[str, list[torch.Tensor]] = {name: [] for name in wanted}
    latents: dict[str, list[torch.Tensor]] = {}
    num_values = 0
    task = (progress or Silent()).task("evaluate", len(frames_NHWC), "frames")
    for batch in coded_batches(model, frames_NHWC, device, condition_NK):
        for name, measure in wanted.items():
            found[name].append(measure(batch).double().cpu())
        for name, rows in batch.latents.items():
            latents.setdefault(name, []).append((rows.double() if rows.is_floating_point() else rows).cpu())
        num_values = batch.x[0].numel()
        task.advance(len(batch.x))
    task.close()
    together = {name: torch.cat(parts) for name, parts in latents.items()}
    return Scores(latents=together, measures={name: torch.cat(parts) for name, parts in found.items()}, num_values=num_values)


@torch.no_grad()
def coded_batches(
    model: Autoencoder, frames_NHWC: np.ndarray, device: torch.device, condition_NK: np.ndarray | None = None
) -> Iterator[CodedBatch]:
    """The frames in order, batch by batch, with their latents and reconstructions."""
    model.eval()
    condition_NK = np.zeros((len(frames_NHWC), 0), np.float32) if condition_NK is None else condition_NK
    for start in range(0, len(frames_NHWC), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        x = model_input(model, frames_NHWC[rows], device)
        condition = as_arguments(condition_NK[rows], device)
        latents = model.encode(x, *condition)
        yield CodedBatch(x, condition, latents, model.decode(latents, *condition))


def model_input(model: Autoencoder, frames_BHWC: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 frames as the input of the model: float (B, C, H, W) in [0, 1], on the device."""
    return frames_to_input(torch.from_numpy(np.ascontiguousarray(frames_BHWC)).to(device), model.config.channels)


def summarise(model: Autoencoder, scores: Scores) -> Figures:
    """The averages over all frames: `num_frames`; `psnr_db`, 10 log10(1 / MSE) of each frame; `squared_error`, the sum over a
    frame with values in [0, 1] (the paper's reconstruction loss); and the autoencoder's own figures."""
    return {
        "num_frames": len(scores.psnr),
        "psnr_db": float(scores.psnr.mean()),
        "squared_error": float(scores.measures["squared_error"].mean()),
        **model.figures(scores),
    }


def squared_error(batch: CodedBatch) -> torch.Tensor:
    """The sum of squared errors of each frame's reconstruction: (B,)."""
    return (batch.reconstruction - batch.x).square().flatten(start_dim=1).sum(dim=1)


def ssim(batch: CodedBatch) -> torch.Tensor:
    """The structural similarity of each frame and its reconstruction: (B,), 1 where they are equal.

    Wang et al. 2004 (doi:10.1109/TIP.2003.819861): a Gaussian window of σ = 1.5 (11 pixels) around every pixel, with
    reflection padding, averaged over pixels and channels.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    decoded, x = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (batch.reconstruction, batch.x))
    found = structural_similarity_index_measure(decoded, x, data_range=1.0, reduction="none")
    return torch.as_tensor(found)
