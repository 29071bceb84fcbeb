"""A VAE on a device as functions from arrays to arrays, for the pictures: frames in, latents out, and back.

Legend: n frames, H, W, Z latent, K size of the condition.
"""

from dataclasses import dataclass

import numpy as np
import torch

from worldmodel_v.autoencoders.gaussian import VAE
from worldmodel_v.evaluate.conditions import as_arguments
from worldmodel_v.evaluate.grids import to_frames
from worldmodel_v.evaluate.metrics import BATCH_SIZE, model_input


@dataclass(frozen=True)
class Coder:
    """Encodes and decodes batch by batch, without gradients."""

    model: VAE
    device: torch.device

    @property
    def latent_dim(self) -> int:
        return self.model.config.latent_dim

    @torch.no_grad()
    def encode(self, frames_nHWC: np.ndarray, condition_nK: np.ndarray) -> np.ndarray:
        """mu of uint8 frames: float32 (n, Z)."""
        parts = [
            self.model.encode(
                model_input(self.model, frames_nHWC[rows], self.device),
                *as_arguments(condition_nK[rows], self.device),
            ).mu.cpu()
            for rows in _batches(len(frames_nHWC))
        ]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def decode(self, z_nZ: np.ndarray, condition_nK: np.ndarray) -> np.ndarray:
        """The mean frames of latents: uint8 (n, H, W, 3)."""
        parts = [
            to_frames(
                self.model.decode(
                    torch.from_numpy(z_nZ[rows].astype(np.float32)).to(self.device),
                    *as_arguments(condition_nK[rows], self.device),
                )
            )
            for rows in _batches(len(z_nZ))
        ]
        return np.concatenate(parts)


def _batches(count: int) -> list[slice]:
    return [slice(start, start + BATCH_SIZE) for start in range(0, count, BATCH_SIZE)]
