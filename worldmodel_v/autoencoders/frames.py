"""Frames to the input of an autoencoder, and its output to frames.

Legend: B batch, C channels (1 or 3), H, W frame.
"""

import torch

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a frame's brightness (ITU-R BT.601)."""


def frames_to_input(frames_BHWC: torch.Tensor, channels: int = 3) -> torch.Tensor:
    """uint8 (B, H, W, 3) on any device -> float32 (B, C, H, W) in [0, 1], channels_last in memory (no copy is made for it).

    One channel is the brightness, 0.299 R + 0.587 G + 0.114 B.
    """
    x_BCHW = frames_BHWC.permute(0, 3, 1, 2).float() / 255.0  # not in place: torch 2.6 cannot export that
    if channels == 3:
        return x_BCHW
    weights = torch.tensor(LUMA, dtype=x_BCHW.dtype, device=x_BCHW.device).reshape(1, 3, 1, 1)
    return (x_BCHW * weights).sum(dim=1, keepdim=True)


def output_to_frames(x_BCHW: torch.Tensor) -> torch.Tensor:
    """float (B, C, H, W) in [0, 1], as a decoder gives it -> uint8 (B, H, W, 3), rounded; one channel becomes grey."""
    bytes_BCHW = (x_BCHW * 255).round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
    return bytes_BCHW.permute(0, 2, 3, 1)
