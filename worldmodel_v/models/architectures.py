"""The networks of the VAE by name: what turns a frame into features, and what turns a bottom map into a frame.

Legend: B batch, C channels, S frame size.

- conv: stride-2 convolutions with padding (kernel 4), 32 to 256 channels down to 4x4, and transposed convolutions back.
- ha2018: the paper's, to the layer. Without padding 64x64 shrinks to 2x2x256, and the decoder grows a single pixel of 1024
  channels; no other size fits. Source: Ha & Schmidhuber 2018 (arXiv:1803.10122), appendix A.1.
- resnet: residual blocks (He et al. 2016, arXiv:1603.05027) with GroupNorm and SiLU; on the way up nearest-neighbour
  resizing and a convolution, which cannot paint the checkerboard of a transposed one (Odena et al. 2016,
  doi:10.23915/distill.00003). It is half as wide as conv, so that a step costs less than twice as much on a CPU.
  GroupNorm and not BatchNorm, since a frame's latent must not depend on the frames beside it.
- mlp: one hidden layer of 400 units each way (Kingma & Welling 2013), for small frames.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor, nn

from worldmodel_v.errors import ConfigError

ArchitectureName = Literal["conv", "ha2018", "resnet", "mlp"]

BOTTOM_SIZE = 4
MAX_FRAME_SIZE = 1024
"""The largest power of two that frames are recorded in (`storage.layout.MAX_FRAME_SIZE`)."""


class Network(NamedTuple):
    """The two halves of a VAE, without the linear layers around the latent."""

    encoder: nn.Module
    """(B, C, S, S) -> a map of `features` values a frame."""

    features: int

    bottom: tuple[int, int, int]
    """The shape (channels, height, width) that the decoder begins with."""

    decoder: nn.Module
    """(B, *bottom) -> (B, C, S, S), before the sigmoid."""


class Architecture(NamedTuple):
    """A network by name, and the frames that it takes."""

    build: Callable[[int, int], Network]
    """(frame size, channels) -> a network with fresh weights."""

    min_size: int
    max_size: int


def build_network(name: str, frame_size: int, channels: int) -> Network:
    """The network of a name with fresh weights; the arguments must have passed `require_architecture`."""
    return ARCHITECTURES[name].build(frame_size, channels)


def require_architecture(name: str, frame_size: int) -> None:
    """Raise ConfigError if there is no such architecture, or if it does not take frames of this size."""
    if name not in ARCHITECTURES:
        raise ConfigError(f"--architecture: expected one of {', '.join(ARCHITECTURES)}, got {name!r}")
    _, smallest, largest = ARCHITECTURES[name]
    if not smallest <= frame_size <= largest:
        sizes = f"{smallest}x{smallest}" + (f" to {largest}x{largest}" if largest > smallest else "")
        raise ConfigError(
            f"--architecture {name} takes frames of {sizes}, got {frame_size}x{frame_size}; "
            "choose another architecture, or collect with another --frame-size"
        )


def depth(frame_size: int) -> int:
    """How often a frame is halved until it is 4x4."""
    return int(math.log2(frame_size // BOTTOM_SIZE))


def _conv(frame_size: int, channels: int) -> Network:
    widths = [min(32 << layer, 256) for layer in range(depth(frame_size))]
    encoder = [
        layer
        for before, after in _pairs([channels, *widths])
        for layer in (nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), nn.ReLU())
    ]
    decoder = [
        layer
        for before, after in _pairs([*widths[::-1], channels])
        for layer in (nn.ReLU(), nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1))
    ]
    bottom = (widths[-1], BOTTOM_SIZE, BOTTOM_SIZE)
    return Network(nn.Sequential(*encoder), math.prod(bottom), bottom, nn.Sequential(*decoder))


def _ha2018(frame_size: int, channels: int) -> Network:
    encoder = [
        layer
        for before, after in _pairs([channels, 32, 64, 128, 256])
        for layer in (nn.Conv2d(before, after, kernel_size=4, stride=2), nn.ReLU())
    ]
    decoder: list[nn.Module] = []
    for (before, after), kernel_size in zip(_pairs([1024, 128, 64, 32, channels]), (5, 5, 6, 6), strict=True):
        decoder += [nn.ConvTranspose2d(before, after, kernel_size, stride=2), nn.ReLU()]
    return Network(nn.Sequential(*encoder), 2 * 2 * 256, (1024, 1, 1), nn.Sequential(*decoder[:-1]))


def _resnet(frame_size: int, channels: int) -> Network:
    widths = [min(16 << layer, 128) for layer in range(depth(frame_size))]
    encoder: list[nn.Module] = []
    for before, after in _pairs([channels, *widths]):
        encoder += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), ResidualBlock(after)]
    decoder: list[nn.Module] = []
    for before, after in _pairs([*widths[::-1], channels]):
        decoder += [
            *(ResidualBlock(before), *_activation(before), nn.Upsample(scale_factor=2, mode="nearest")),
            nn.Conv2d(before, after, kernel_size=3, padding=1),
        ]
    bottom = (widths[-1], BOTTOM_SIZE, BOTTOM_SIZE)
    return Network(nn.Sequential(*encoder, *_activation(widths[-1])), math.prod(bottom), bottom, nn.Sequential(*decoder))


class ResidualBlock(nn.Module):
    """x + f(x), where f is twice (GroupNorm, SiLU, convolution 3x3); keeps the shape (B, channels, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        halves = [(*_activation(channels), nn.Conv2d(channels, channels, kernel_size=3, padding=1)) for _ in range(2)]
        self.change = nn.Sequential(*halves[0], *halves[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x)


def _mlp(frame_size: int, channels: int) -> Network:
    values, hidden = channels * frame_size**2, 400
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(values, hidden), nn.ReLU())
    decoder = (nn.Flatten(), nn.ReLU(), nn.Linear(hidden, values), nn.Unflatten(1, (channels, frame_size, frame_size)))
    return Network(encoder, hidden, (hidden, 1, 1), nn.Sequential(*decoder))


def _activation(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(num_groups=8, num_channels=channels), nn.SiLU()


def _pairs(widths: list[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(widths))


ARCHITECTURES: dict[str, Architecture] = {
    "conv": Architecture(_conv, 8, MAX_FRAME_SIZE),
    "ha2018": Architecture(_ha2018, 64, 64),
    "resnet": Architecture(_resnet, 8, MAX_FRAME_SIZE),
    "mlp": Architecture(_mlp, 8, 64),
}
"""By the name that `--architecture` takes."""
