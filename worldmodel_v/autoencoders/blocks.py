"""Convolutions that halve a frame down to a small map and back: what the networks of several autoencoders are made of.

Legend: B batch, C channels, H, W frame.

A layer halves a side if it is at least twice as long as the smallest one that is wanted. So when one side is short enough, the
further layers halve only the longer side. An odd side is rounded down (11 becomes 5), and the way back restores it (5
becomes 11). Rejected: halving the longer side first (four times the arithmetic for 16x1000); padding odd sides, which shows the
convolutions an edge that does not exist.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldmodel_v.errors import ConfigError
from worldmodel_v.surface import option

SMALLEST_BOTTOM = 4
"""The default of the smallest side: 64x64 ends at 4x4, other sizes at 4 to 7 rows and columns."""

Shape = tuple[int, int]
"""(height, width) of a frame or map."""


class Network(NamedTuple):
    """The two halves of an autoencoder, without the layers around the latent."""

    encoder: nn.Module
    """(B, C, H, W) -> a map of `features` values a frame."""

    features: int

    bottom: tuple[int, int, int]
    """The shape (channels, height, width) that the decoder begins with."""

    decoder: nn.Module
    """(B, *bottom) -> (B, C, H, W), before the sigmoid."""


class Halving(NamedTuple):
    """A convolution that halves a map in height, width or both, its way back, and the maps before and after it."""

    before: Shape
    after: Shape
    stride: Shape

    @property
    def kernel_size(self) -> Shape:
        """4 along a side that is halved, 3 along one that is kept."""
        return 2 + self.stride[0], 2 + self.stride[1]

    @property
    def output_padding(self) -> Shape:
        """What a transposed convolution adds to come back to `before`."""
        return self.before[0] - self.stride[0] * self.after[0], self.before[1] - self.stride[1] * self.after[1]

    def convolution(self, channels: int, out_channels: int) -> nn.Conv2d:
        """(B, channels, *before) -> (B, out_channels, *after)"""
        return nn.Conv2d(channels, out_channels, self.kernel_size, self.stride, padding=1)

    def transposed(self, channels: int, out_channels: int) -> nn.ConvTranspose2d:
        """(B, channels, *after) -> (B, out_channels, *before)"""
        return nn.ConvTranspose2d(
            channels, out_channels, self.kernel_size, self.stride, padding=1, output_padding=self.output_padding
        )


def halvings(frame_shape: Shape, smallest: int = SMALLEST_BOTTOM) -> list[Halving]:
    """How a frame is halved, until halving again would make both sides shorter than `smallest`."""
    found, shape = [], frame_shape
    while max(shape) >= 2 * smallest:
        height, width = (2 if side >= 2 * smallest else 1 for side in shape)
        found.append(Halving(shape, (shape[0] // height, shape[1] // width), (height, width)))
        shape = found[-1].after
    return found


def require_grid(frame_shape: Shape, grid: int, *, field: str, what: str) -> None:
    """Raise ConfigError if frames do not have so many places along their shorter side after a halving."""
    most = min(frame_shape) // 2
    if grid > most:
        raise ConfigError(
            f"frames of {frame_shape[0]}x{frame_shape[1]} have at most {most} {what} along a side",
            field=field,
            got=grid,
            remedy=f"ask for fewer, or collect with another {option('frame_size')}",
        )


def beside(values_BN: Tensor, values_BK: Tensor | None) -> Tensor:
    """Vectors with further values appended: (B, N + K)."""
    return values_BN if values_BK is None else torch.cat([values_BN, values_BK], dim=1)


def beside_everywhere(maps_BChw: Tensor, values_BK: Tensor | None) -> Tensor:
    """The maps with the values appended at every place: (B, C + K, h, w)."""
    if values_BK is None:
        return maps_BChw
    everywhere = values_BK[:, :, None, None].expand(-1, -1, *maps_BChw.shape[2:])
    return torch.cat([maps_BChw, everywhere.to(maps_BChw.dtype)], dim=1)


def residual_network(stages: list[Halving], channels: int) -> Network:
    """A residual block behind every halving, and before every step of the way back, which resizes by nearest neighbour and then
    convolves; 16 to 128 channels."""
    widths = [channels, *(min(16 << layer, 128) for layer in range(len(stages)))]
    encoder: list[nn.Module] = []
    for stage, (before, after) in zip(stages, pairwise(widths), strict=True):
        encoder += [stage.convolution(before, after), ResidualBlock(after)]
    decoder: list[nn.Module] = []
    for stage, (before, after) in zip(stages[::-1], pairwise(widths[::-1]), strict=True):
        decoder += [
            *(ResidualBlock(before), *activation(before), nn.Upsample(size=stage.before, mode="nearest")),
            nn.Conv2d(before, after, kernel_size=3, padding=1),
        ]
    bottom = (widths[-1], *stages[-1].after)
    return Network(nn.Sequential(*encoder, *activation(widths[-1])), math.prod(bottom), bottom, nn.Sequential(*decoder))


class ResidualBlock(nn.Module):
    """x + f(x), where f is twice (GroupNorm, SiLU, convolution 3x3); keeps the shape (B, channels, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        halves = [(*activation(channels), nn.Conv2d(channels, channels, kernel_size=3, padding=1)) for _ in range(2)]
        self.change = nn.Sequential(*halves[0], *halves[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x)


def activation(channels: int) -> tuple[nn.Module, nn.Module]:
    """GroupNorm and SiLU; `channels` is a multiple of 8."""
    return nn.GroupNorm(num_groups=8, num_channels=channels), nn.SiLU()
