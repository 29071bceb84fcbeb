"""The encoder and the decoder of a VAE as two modules, which are exported: uint8 frames to latents, and latents to frames.

Legend: B batch, H, W frame, Z latent (of a spatial VAE h, w, c), K condition.

The encoder takes frames as they are recorded, uint8 (B, H, W, 3), and scales them itself (for a VAE of one channel it also
computes their brightness), so users cannot make a mistake there. The decoder gives frames of the same kind. Rejected: float
output of the decoder. Users would have to know its range and order of axes, for digits that no picture shows.
"""

import copy
from typing import NamedTuple

import torch
from torch import nn

from worldmodel_v.autoencoders import frames_to_input, output_to_frames
from worldmodel_v.autoencoders.gaussian import GaussianAutoencoder


class FrameEncoder(nn.Module):
    """Frames to posteriors."""

    def __init__(self, vae: GaussianAutoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: torch.Tensor, condition: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 (B, H, W, 3), and for a conditional VAE float32 (B, K) -> mu, logvar: float32 (B, Z) each."""
        posterior = self.vae.posterior(frames_to_input(frames, self.vae.config.channels), condition)
        return self.vae.shaped(posterior.mu), self.vae.shaped(posterior.logvar)


class LatentDecoder(nn.Module):
    """Latents to frames."""

    def __init__(self, vae: GaussianAutoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """float32 (B, Z), and for a conditional VAE float32 (B, K) -> uint8 (B, H, W, 3)."""
        return output_to_frames(self.vae.decode({"mu": z}, condition))


class Part(NamedTuple):
    """The encoder or the decoder of a VAE, and the names of its inputs and outputs in all formats."""

    name: str
    """encoder or decoder"""

    module: nn.Module
    inputs: dict[str, torch.Tensor]
    """Examples, two rows each. Real inputs may differ only in their number of rows."""

    outputs: tuple[str, ...]


def parts(vae: GaussianAutoencoder) -> tuple[Part, Part]:
    """The encoder and the decoder of a VAE; they hold a copy of it, without gradients."""
    config = vae.config
    # contiguous weights: torch.export.save warns of other layouts, and loading does not restore them
    frozen = copy.deepcopy(vae).eval().requires_grad_(False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    frames = torch.zeros(2, *config.frame_shape, 3, dtype=torch.uint8)
    condition = {"condition": torch.zeros(2, config.condition_dim)} if config.condition else {}
    z = torch.zeros(2, *vae.latent_shape)
    return (
        Part("encoder", FrameEncoder(frozen).eval(), {"frames": frames, **condition}, ("mu", "logvar")),
        Part("decoder", LatentDecoder(frozen).eval(), {"z": z, **condition}, ("frames",)),
    )
