"""Pictures made of frames."""

import io

import numpy as np
import torch
from PIL import Image

from worldmodel_v.autoencoders import frames_to_input, output_to_frames
from worldmodel_v.autoencoders.gaussian import VAE

GAP = 2
SCALE = 2
BACKGROUND = 255


def frame_grid(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of frames, each uint8 (n, H, W, 3), as one picture with gaps, twice the size: uint8 (H', W', 3)."""
    height, width = rows[0].shape[1:3]
    columns = max(len(row) for row in rows)
    picture = np.full((len(rows) * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), BACKGROUND, np.uint8)
    for i, row in enumerate(rows):
        for j, frame in enumerate(row):
            top, left = GAP + i * (height + GAP), GAP + j * (width + GAP)
            picture[top : top + height, left : left + width] = frame
    return picture.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


@torch.no_grad()
def reconstruction_grid(
    model: VAE, frames_NHWC: np.ndarray, device: torch.device, condition_NK: np.ndarray | None = None
) -> np.ndarray:
    """Frames in the upper row, what the VAE makes of them (decoded from mu) in the lower one."""
    model.eval()
    x = frames_to_input(torch.from_numpy(np.ascontiguousarray(frames_NHWC)).to(device), model.config.channels)
    condition = None if condition_NK is None else torch.from_numpy(np.ascontiguousarray(condition_NK)).to(device)
    return frame_grid([frames_NHWC, to_frames(model.decode(model.encode(x, condition).mu, condition))])


@torch.no_grad()
def sample_grid(model: VAE, *, rows: int, columns: int, seed: int, device: torch.device) -> np.ndarray:
    """Frames decoded from the prior N(0, I); the same seed gives the same latents at every call.

    A conditional VAE decodes them under its training data's mean condition.
    """
    model.eval()
    noise = torch.Generator().manual_seed(seed)
    z = torch.randn(rows * columns, model.config.latent_dim, generator=noise).to(device)
    frames = to_frames(model.decode(z, model.typical_condition(len(z))))
    return frame_grid([frames[i * columns : (i + 1) * columns] for i in range(rows)])


def to_frames(x_BCHW: torch.Tensor) -> np.ndarray:
    """float (B, C, H, W) in [0, 1] -> uint8 (B, H, W, 3); one channel becomes grey."""
    return output_to_frames(x_BCHW).cpu().numpy()


def to_png(picture_HWC: np.ndarray) -> bytes:
    """The bytes of a PNG file, of RGB or RGBA."""
    buffer = io.BytesIO()
    Image.fromarray(picture_HWC).save(buffer, format="PNG")
    return buffer.getvalue()
