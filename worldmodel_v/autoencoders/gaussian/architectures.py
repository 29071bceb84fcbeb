"""The networks of the VAE by name: the encoder, from a frame to features, and the decoder, from a small map to a frame.

Legend: B batch, C channels, H, W frame.

- conv: stride-2 convolutions with padding (kernel 4), 32 to 256 channels down to 4 to 7 rows and columns, and transposed
  convolutions back.
- ha2018: the same layers as in the paper. Without padding, 64x64 shrinks to 2x2x256, and the decoder starts from a single
  pixel of 1024 channels; no other size fits. Source: Ha & Schmidhuber 2018 (arXiv:1803.10122), appendix A.1.
- resnet: residual blocks (He et al. 2016, arXiv:1603.05027) with GroupNorm and SiLU. The decoder resizes by nearest
  neighbour and then convolves, which avoids the checkerboard of transposed convolutions (Odena et al. 2016,
  doi:10.23915/distill.00003). It is half as wide as conv, so that a step costs less than twice as much on a CPU.
  It uses GroupNorm and not BatchNorm, because a frame's latent must not depend on the other frames of a batch.
- mlp: one hidden layer of 400 units each way (Kingma & Welling 2013), for small frames.

conv and resnet take any height and width that are multiples of 8. Each layer halves both. When one side is at 4 to 7, the
further layers halve only the longer side. An odd side is rounded down (11 becomes 5), and the decoder restores it (5
becomes 11). Powers of two end at 4x4. Rejected: halving the longer side first (four times the arithmetic for 16x1000);
padding odd sides, which shows the convolutions an edge that does not exist.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor, nn

from worldmodel_v.errors import ConfigError
from worldmodel_v.preprocessing import MAX_SIDE, SIDE_STEP
from worldmodel_v.surface import option

ArchitectureName = Literal["conv", "ha2018", "resnet", "mlp"]

SMALLEST_BOTTOM = 4

Shape = tuple[int, int]
"""(height, width) of a frame or map."""


class Network(NamedTuple):
    """The two halves of a VAE, without the linear layers around the latent."""

    encoder: nn.Module
    """(B, C, H, W) -> a map of `features` values a frame."""

    features: int

    bottom: tuple[int, int, int]
    """The shape (channels, height, width) that the decoder begins with."""

    decoder: nn.Module
    """(B, *bottom) -> (B, C, H, W), before the sigmoid."""


class Architecture(NamedTuple):
    """A network by name, and the frames that it takes."""

    build: Callable[[Shape, int], Network]
    """((height, width), channels) -> a network with fresh weights."""

    min_size: int
    max_size: int


def build_network(name: str, frame_shape: Shape, channels: int) -> Network:
    """The network of a name with fresh weights; the arguments must have passed `require_architecture`."""
    return ARCHITECTURES[name].build(frame_shape, channels)


def require_architecture(name: str, frame_shape: Shape) -> None:
    """Raise ConfigError if there is no such architecture, or if it does not take frames of this size."""
    if name not in ARCHITECTURES:
        raise ConfigError(field="architecture", expected=f"one of {', '.join(ARCHITECTURES)}", got=name)
    _, smallest, largest = ARCHITECTURES[name]
    if not smallest <= min(frame_shape) <= max(frame_shape) <= largest:
        sizes = f"{smallest}x{smallest}" + (f" to {largest}x{largest}" if largest > smallest else "")
        raise ConfigError(
            f"takes frames of {sizes}, these are {frame_shape[0]}x{frame_shape[1]}",
            field="architecture",
            got=name,
            remedy=f"choose another architecture, or collect with another {option('frame_size')}",
        )


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


def halvings(frame_shape: Shape) -> list[Halving]:
    """How a frame is halved, until halving again would make both sides shorter than 4."""
    found, shape = [], frame_shape
    while max(shape) >= 2 * SMALLEST_BOTTOM:
        height, width = (2 if side >= 2 * SMALLEST_BOTTOM else 1 for side in shape)
        found.append(Halving(shape, (shape[0] // height, shape[1] // width), (height, width)))
        shape = found[-1].after
    return found


def _conv(frame_shape: Shape, channels: int) -> Network:
    stages = halvings(frame_shape)
    widths = [channels, *(min(32 << layer, 256) for layer in range(len(stages)))]
    encoder = [
        layer
        for stage, (before, after) in zip(stages, _pairs(widths), strict=True)
        for layer in (stage.convolution(before, after), nn.ReLU())
    ]
    decoder = [
        layer
        for stage, (before, after) in zip(stages[::-1], _pairs(widths[::-1]), strict=True)
        for layer in (nn.ReLU(), stage.transposed(before, after))
    ]
    bottom = (widths[-1], *stages[-1].after)
    return Network(nn.Sequential(*encoder), math.prod(bottom), bottom, nn.Sequential(*decoder))


def _ha2018(frame_shape: Shape, channels: int) -> Network:
    encoder = [
        layer
        for before, after in _pairs([channels, 32, 64, 128, 256])
        for layer in (nn.Conv2d(before, after, kernel_size=4, stride=2), nn.ReLU())
    ]
    decoder: list[nn.Module] = []
    for (before, after), kernel_size in zip(_pairs([1024, 128, 64, 32, channels]), (5, 5, 6, 6), strict=True):
        decoder += [nn.ConvTranspose2d(before, after, kernel_size, stride=2), nn.ReLU()]
    return Network(nn.Sequential(*encoder), 2 * 2 * 256, (1024, 1, 1), nn.Sequential(*decoder[:-1]))


def _resnet(frame_shape: Shape, channels: int) -> Network:
    stages = halvings(frame_shape)
    widths = [channels, *(min(16 << layer, 128) for layer in range(len(stages)))]
    encoder: list[nn.Module] = []
    for stage, (before, after) in zip(stages, _pairs(widths), strict=True):
        encoder += [stage.convolution(before, after), ResidualBlock(after)]
    decoder: list[nn.Module] = []
    for stage, (before, after) in zip(stages[::-1], _pairs(widths[::-1]), strict=True):
        decoder += [
            *(ResidualBlock(before), *_activation(before), nn.Upsample(size=stage.before, mode="nearest")),
            nn.Conv2d(before, after, kernel_size=3, padding=1),
        ]
    bottom = (widths[-1], *stages[-1].after)
    return Network(nn.Sequential(*encoder, *_activation(widths[-1])), math.prod(bottom), bottom, nn.Sequential(*decoder))


class ResidualBlock(nn.Module):
    """x + f(x), where f is twice (GroupNorm, SiLU, convolution 3x3); keeps the shape (B, channels, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        halves = [(*_activation(channels), nn.Conv2d(channels, channels, kernel_size=3, padding=1)) for _ in range(2)]
        self.change = nn.Sequential(*halves[0], *halves[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x)


def _mlp(frame_shape: Shape, channels: int) -> Network:
    values, hidden = channels * math.prod(frame_shape), 400
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(values, hidden), nn.ReLU())
    decoder = (nn.Flatten(), nn.ReLU(), nn.Linear(hidden, values), nn.Unflatten(1, (channels, *frame_shape)))
    return Network(encoder, hidden, (hidden, 1, 1), nn.Sequential(*decoder))


def _activation(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(num_groups=8, num_channels=channels), nn.SiLU()


def _pairs(widths: list[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(widths))


ARCHITECTURES: dict[str, Architecture] = {
    "conv": Architecture(_conv, SIDE_STEP, MAX_SIDE),
    "ha2018": Architecture(_ha2018, 64, 64),
    "resnet": Architecture(_resnet, SIDE_STEP, MAX_SIDE),
    "mlp": Architecture(_mlp, SIDE_STEP, 64),
}
"""By the name that `--architecture` takes."""
