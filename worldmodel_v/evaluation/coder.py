"""An autoencoder on a device as functions of arrays, for the pictures: frames to latents, and back.

Legend: n frames, H, W, Z latent, K size of the condition.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder
from worldmodel_v.autoencoders.gaussian import GaussianAutoencoder
from worldmodel_v.evaluation.conditions import as_arguments
from worldmodel_v.evaluation.grids import to_frames
from worldmodel_v.evaluation.metrics import BATCH_SIZE, model_input


@dataclass(frozen=True)
class Coder:
    """Encodes and decodes batch by batch, without gradients."""

    model: Autoencoder
    device: torch.device

    @torch.no_grad()
    def encode(self, frames_nHWC: np.ndarray, condition_nK: np.ndarray) -> dict[str, np.ndarray]:
        """The latents of uint8 frames, by column: (n, …) each."""
        parts = [
            self.model.encode(
                model_input(self.model, frames_nHWC[rows], self.device),
                *as_arguments(condition_nK[rows], self.device),
            )
            for rows in _batches(len(frames_nHWC))
        ]
        return {name: torch.cat([part[name].cpu() for part in parts]).numpy() for name in parts[0]}

    @torch.no_grad()
    def decode(self, latents: Mapping[str, np.ndarray], condition_nK: np.ndarray) -> np.ndarray:
        """The frames of latents: uint8 (n, H, W, 3)."""
        parts = [
            to_frames(
                self.model.decode(
                    {name: self._tensor(values[rows]) for name, values in latents.items()},
                    *as_arguments(condition_nK[rows], self.device),
                )
            )
            for rows in _batches(len(condition_nK))
        ]
        return np.concatenate(parts)

    def reconstruct(self, frames_nHWC: np.ndarray, condition_nK: np.ndarray) -> np.ndarray:
        """uint8 frames after encoding and decoding."""
        return self.decode(self.encode(frames_nHWC, condition_nK), condition_nK)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        return (tensor.float() if tensor.is_floating_point() else tensor).to(self.device)


@dataclass(frozen=True)
class GaussianCoder(Coder):
    """The coder of a VAE, whose latents are taken as one vector."""

    model: GaussianAutoencoder

    @property
    def latent_dim(self) -> int:
        return self.model.latent_dim

    def encode_mu(self, frames_nHWC: np.ndarray, condition_nK: np.ndarray) -> np.ndarray:
        """mu of uint8 frames: float32 (n, Z)."""
        return self.encode(frames_nHWC, condition_nK)["mu"].reshape(len(frames_nHWC), -1)

    def decode_z(self, z_nZ: np.ndarray, condition_nK: np.ndarray) -> np.ndarray:
        """The mean frames of latents: uint8 (n, H, W, 3)."""
        return self.decode({"mu": z_nZ}, condition_nK)


def _batches(count: int) -> list[slice]:
    return [slice(start, start + BATCH_SIZE) for start in range(0, count, BATCH_SIZE)]
