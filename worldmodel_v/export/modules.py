"""The two halves of a VAE as modules of their own, which is what is exported: bytes in and latents out, and the way back.

Legend: B batch, H, W frame, Z latent, K condition.

The encoder takes frames as they are recorded, uint8 (B, H, W, 3), and scales them itself (for a VAE of one channel it also
takes their brightness), so that nobody can get that wrong elsewhere; the decoder gives frames of the same kind. Rejected:
floats out of the decoder, whose range and order of axes a consumer would have to know, for digits that no picture shows.
"""

import copy
from typing import NamedTuple

import torch
from torch import nn

from worldmodel_v.autoencoders import frames_to_input, output_to_frames
from worldmodel_v.autoencoders.gaussian import VAE


class FrameEncoder(nn.Module):
    """Frames to posteriors."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: torch.Tensor, condition: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 (B, H, W, 3), and for a conditional VAE float32 (B, K) -> mu, logvar: float32 (B, Z) each."""
        posterior = self.vae.posterior(frames_to_input(frames, self.vae.config.channels), condition)
        return posterior.mu, posterior.logvar


class LatentDecoder(nn.Module):
    """Latents to frames."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """float32 (B, Z), and for a conditional VAE float32 (B, K) -> uint8 (B, H, W, 3)."""
        return output_to_frames(self.vae.decode_z(z, condition))


class Part(NamedTuple):
    """One half of a VAE, and how its inputs and outputs are called everywhere."""

    name: str
    """encoder or decoder"""

    module: nn.Module
    inputs: dict[str, torch.Tensor]
    """Examples, two rows each. Only the rows' number may differ."""

    outputs: tuple[str, ...]


def parts(vae: VAE) -> tuple[Part, Part]:
    """The encoder and the decoder of a VAE; they hold a copy of it, without gradients."""
    config = vae.config
    # weights that lie as their shape says: torch.export.save warns of others, and reading restores no other order
    frozen = copy.deepcopy(vae).eval().requires_grad_(False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    frames = torch.zeros(2, *config.frame_shape, 3, dtype=torch.uint8)
    condition = {"condition": torch.zeros(2, config.condition_dim)} if config.condition else {}
    z = torch.zeros(2, config.latent_dim)
    return (
        Part("encoder", FrameEncoder(frozen).eval(), {"frames": frames, **condition}, ("mu", "logvar")),
        Part("decoder", LatentDecoder(frozen).eval(), {"z": z, **condition}, ("frames",)),
    )
