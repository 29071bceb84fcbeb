"""Numbers that show how good an autoencoder is, on frames that it was not trained on.

Legend: N frames, B batch, C channel, H, W frame, D = C·H·W values of a frame, Z latent, K size of the condition.

`evaluate_frames` gives the short result that training reports; `score_frames` goes over the frames once and keeps the figures
of each frame, for further analysis.
"""

import threading
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder, Latents, frames_to_input
from worldmodel_v.autoencoders.base import CodedBatch, Figures, Measure, Scores
from worldmodel_v.evaluation.conditions import as_arguments
from worldmodel_v.evaluation.threads import in_threads, num_threads
from worldmodel_v.process import plain_tensors
from worldmodel_v.progress import Progress, Silent

BATCH_SIZE = 250


def evaluate_frames(
    model: Autoencoder,
    frames_NHWC: np.ndarray,
    device: torch.device,
    progress: Progress | None = None,
    condition_NK: np.ndarray | None = None,
) -> Figures:
    """Evaluate on uint8 frames (N, H, W, 3), in float32; leaves the model in evaluation mode."""
    return summarise(model, score_frames(model, frames_NHWC, device, progress, condition_NK, title="held-out figures"))


@plain_tensors()
def score_frames(
    model: Autoencoder,
    frames_NHWC: np.ndarray,
    device: torch.device,
    progress: Progress | None = None,
    condition_NK: np.ndarray | None = None,
    measures: Mapping[str, Measure] | None = None,
    seed: int = 0,
    title: str = "evaluate",
) -> Scores:
    """Encode and decode every frame once, and apply `measures` and the autoencoder's own measures to each, with noise from
    `seed`; `title` is that of the progress. Leaves the model in evaluation mode. On a CPU, batches are computed in threads
    (`threads`)."""
    model.eval()
    condition_NK = np.zeros((len(frames_NHWC), 0), np.float32) if condition_NK is None else condition_NK
    plain: dict[str, Measure] = {"squared_error": squared_error, **(measures or {})}
    drawing = model.measures(torch.Generator(device).manual_seed(seed))

    @torch.no_grad()
    def score(turn: _Turn) -> _Scored:
        try:
            batch = coded_batch(model, frames_NHWC[turn.rows], device, condition_NK[turn.rows])
            turn.is_there.wait()
            measured = {name: measure(batch) for name, measure in drawing.items()}
        finally:
            turn.of_next.set()
        measured = {name: measure(batch) for name, measure in plain.items()} | measured
        found = {name: (value() if callable(value) else value).double().cpu() for name, value in measured.items()}
        latents = {name: (rows.double() if rows.is_floating_point() else rows).cpu() for name, rows in batch.latents.items()}
        return _Scored(latents, found, batch.x[0].numel())

    task = (progress or Silent()).task(title, len(frames_NHWC), "frames")
    at_once = num_threads(len(frames_NHWC) // BATCH_SIZE, device)
    scored: list[_Scored] = []
    for batch in in_threads(score, _turns(len(frames_NHWC)), at_once):
        scored.append(batch)
        task.advance(len(batch.measures["squared_error"]))
    task.close()
    return Scores(
        latents={name: torch.cat([batch.latents[name] for batch in scored]) for name in scored[0].latents},
        measures={name: torch.cat([batch.measures[name] for batch in scored]) for name in scored[0].measures},
        num_values=scored[0].num_values,
    )


class _Scored(NamedTuple):
    """The latents and figures of a batch, on the CPU; floats in float64."""

    latents: Latents
    measures: dict[str, torch.Tensor]
    num_values: int


class _Turn(NamedTuple):
    """The rows of a batch, and when it is its turn to draw noise. It passes the turn on even if it fails."""

    rows: slice
    is_there: threading.Event
    of_next: threading.Event


def _turns(num_frames: int) -> list[_Turn]:
    starts = range(0, num_frames, BATCH_SIZE)
    events = [threading.Event() for _ in range(len(starts) + 1)]
    events[0].set()
    return [_Turn(slice(start, start + BATCH_SIZE), *events[i : i + 2]) for i, start in enumerate(starts)]


def coded_batch(model: Autoencoder, frames_BHWC: np.ndarray, device: torch.device, condition_BK: np.ndarray) -> CodedBatch:
    """Some frames with their latents and reconstructions; call it without gradients."""
    x, condition = model_input(model, frames_BHWC, device), as_arguments(condition_BK, device)
    latents = model.encode(x, *condition)
    return CodedBatch(x, condition, latents, model.decode(latents, *condition))


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
