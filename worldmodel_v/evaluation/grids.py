"""Pictures of reconstructions and samples, and their files."""

import io

import numpy as np
import torch
from PIL import Image

from worldmodel_v.autoencoders import Autoencoder, frames_to_input, output_to_frames
from worldmodel_v.evaluation.canvas import Row, frame_grid
from worldmodel_v.process import plain_tensors


@plain_tensors()
@torch.no_grad()
def reconstruction_grid(
    model: Autoencoder, frames_NHWC: np.ndarray, device: torch.device, condition_NK: np.ndarray | None = None
) -> np.ndarray:
    """Frames in the upper row, their reconstructions in the lower one: uint8 RGBA (H', W', 4)."""
    model.eval()
    x = frames_to_input(torch.from_numpy(np.ascontiguousarray(frames_NHWC)).to(device), model.config.channels)
    condition = None if condition_NK is None else torch.from_numpy(np.ascontiguousarray(condition_NK)).to(device)
    decoded = to_frames(model.decode(model.encode(x, condition), condition))
    return frame_grid([Row("", frames_NHWC), Row("", decoded)])


@plain_tensors()
@torch.no_grad()
def sample_grid(model: Autoencoder, *, rows: int, columns: int, seed: int) -> np.ndarray | None:
    """New frames, for a VAE decoded from the prior N(0, I); the same seed gives the same latents at every call. None if the
    autoencoder has no samples."""
    model.eval()
    samples = model.samples(rows * columns, torch.Generator().manual_seed(seed))
    if samples is None:
        return None
    frames = to_frames(samples)
    return frame_grid([Row("", frames[i * columns : (i + 1) * columns]) for i in range(rows)])


def to_frames(x_BCHW: torch.Tensor) -> np.ndarray:
    """float (B, C, H, W) in [0, 1] -> uint8 (B, H, W, 3); one channel becomes grey."""
    return output_to_frames(x_BCHW).cpu().numpy()


def to_png(picture_HWC: np.ndarray) -> bytes:
    """The bytes of a PNG file, of RGB or RGBA."""
    buffer = io.BytesIO()
    Image.fromarray(picture_HWC).save(buffer, format="PNG")
    return buffer.getvalue()
