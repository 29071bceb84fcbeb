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

conv and resnet take any height and width that are multiples of 8, and halve them down to 4 to 7 rows and columns (`blocks`).
Powers of two end at 4x4.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

from torch import nn

from worldmodel_v.autoencoders.blocks import Network, Shape, halvings, residual_network
from worldmodel_v.errors import ConfigError
from worldmodel_v.preprocessing import MAX_SIDE, SIDE_STEP
from worldmodel_v.surface import option

ArchitectureName = Literal["conv", "ha2018", "resnet", "mlp"]


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


def _conv(frame_shape: Shape, channels: int) -> Network:
    stages = halvings(frame_shape)
    widths = [channels, *(min(32 << layer, 256) for layer in range(len(stages)))]
    encoder = [
        layer
        for stage, (before, after) in zip(stages, pairwise(widths), strict=True)
        for layer in (stage.convolution(before, after), nn.ReLU())
    ]
    decoder = [
        layer
        for stage, (before, after) in zip(stages[::-1], pairwise(widths[::-1]), strict=True)
        for layer in (nn.ReLU(), stage.transposed(before, after))
    ]
    bottom = (widths[-1], *stages[-1].after)
    return Network(nn.Sequential(*encoder), math.prod(bottom), bottom, nn.Sequential(*decoder))


def _ha2018(frame_shape: Shape, channels: int) -> Network:
    encoder = [
        layer
        for before, after in pairwise([channels, 32, 64, 128, 256])
        for layer in (nn.Conv2d(before, after, kernel_size=4, stride=2), nn.ReLU())
    ]
    decoder: list[nn.Module] = []
    for (before, after), kernel_size in zip(pairwise([1024, 128, 64, 32, channels]), (5, 5, 6, 6), strict=True):
        decoder += [nn.ConvTranspose2d(before, after, kernel_size, stride=2), nn.ReLU()]
    return Network(nn.Sequential(*encoder), 2 * 2 * 256, (1024, 1, 1), nn.Sequential(*decoder[:-1]))


def _mlp(frame_shape: Shape, channels: int) -> Network:
    values, hidden = channels * math.prod(frame_shape), 400
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(values, hidden), nn.ReLU())
    decoder = (nn.Flatten(), nn.ReLU(), nn.Linear(hidden, values), nn.Unflatten(1, (channels, *frame_shape)))
    return Network(encoder, hidden, (hidden, 1, 1), nn.Sequential(*decoder))


ARCHITECTURES: dict[str, Architecture] = {
    "conv": Architecture(_conv, SIDE_STEP, MAX_SIDE),
    "ha2018": Architecture(_ha2018, 64, 64),
    "resnet": Architecture(lambda shape, channels: residual_network(halvings(shape), channels), SIDE_STEP, MAX_SIDE),
    "mlp": Architecture(_mlp, SIDE_STEP, 64),
}
"""By the name that `--architecture` takes."""
