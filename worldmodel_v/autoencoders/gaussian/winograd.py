"""Convolutions in batches on a CPU, with a third of the products: Winograd's algorithm between fused activations.

Legend: B batch, F frames at a time, H, W size of a map, C channels, T tiles, P the places of a transformed tile.

A 3x3 convolution computes a 4x4 tile of its output from a 6x6 tile of its input. In Winograd's basis, convolving is
multiplying place by place, which takes 36 products for each pair of channels instead of 144: F(4x4, 3x3) of Lavin & Gray
2016 (arXiv:1509.09308). All tiles' products at a place are one matrix product. A 4x4 convolution of stride 2 is a 2x2
convolution over the four maps of every other row and column; it takes 25 products instead of 64: F(4x4, 2x2). About 64 tiles
at a time go through all operations, with GroupNorm and SiLU, so the data stay in the core's cache. PyTorch reads and writes
memory for GroupNorm and SiLU twice each.

It is float32 arithmetic, summed in another order. The basis itself loses a digit, but here GroupNorm subtracts the mean
before it squares; PyTorch's GroupNorm does not, and loses more. A frame's latents do not depend on the other frames of its
batch. But their last digits depend on two things. One is the frame's place in the batch, for PyTorch's layers around these
blocks and for widths that `products` does not take: some kernels of OpenBLAS (Haswell's) sum a row's products in an order
that depends on the row's number. The other is the size of the batch: fewer than `SMALLEST_BATCH` frames, and maps of more
than `MAX_TILES` tiles, use PyTorch's convolutions. The first use compiles for half a minute; the result is kept.

Rejected: F(2x2, 3x3), with 64 products for the same tile; Winograd in PyTorch's operations, whose memory traffic costs as
much time as the fewer products save; the first convolution, because three channels are too few.
"""

import copy
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import torch
from torch import nn

from worldmodel_v.autoencoders.blocks import ResidualBlock

if TYPE_CHECKING:
    from worldmodel_v.autoencoders.gaussian.vae import GaussianAutoencoder

TILES_AT_ONCE = 64
MAX_TILES = 256
SMALLEST_BATCH = 8

G3 = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""(6, 3): transforms a column of a 3x3 kernel into the basis of F(4, 3)."""

G2 = np.array([[1 / 2, 0], [-1 / 2, -1 / 2], [-1 / 6, 1 / 6], [1 / 6, 1 / 3], [0, 1]])
"""(5, 2): transforms a column of a 2x2 kernel into the basis of F(4, 2)."""


def with_fast_convolutions(model: "GaussianAutoencoder") -> "GaussianAutoencoder":
    """A copy of the VAE with fast convolutions in its encoder, in float32 on the CPU; the VAE itself if none can be fast.

    It needs numba and SciPy; if they are not installed, the VAE itself is returned.
    """
    if not any(isinstance(module, ResidualBlock) or _halves(module) for module in model.encoder.children()):
        return model
    try:
        import scipy.linalg  # noqa: F401

        import worldmodel_v.autoencoders.gaussian.winograd_kernels  # noqa: F401
    except ImportError:
        return model
    model = copy.deepcopy(model)
    for name, module in list(model.encoder.named_children()):
        if isinstance(module, ResidualBlock):
            setattr(model.encoder, name, FastResidualBlock(module))
        elif _halves(module):
            setattr(model.encoder, name, FastHalving(module))
    return model


def _halves(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution that `FastHalving` can replace, and that gets faster by it."""
    if not isinstance(module, nn.Conv2d) or module.in_channels < 8:
        return False
    return (module.kernel_size, module.stride, module.padding) == ((4, 4), (2, 2), (1, 1))


class FastResidualBlock(nn.Module):
    """What a `ResidualBlock` computes, without gradients: x + f(x), float32 (B, C, H, W). It overwrites x with the result."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        from worldmodel_v.autoencoders.gaussian.winograd_kernels import Half

        self._block = block
        norms = [module for module in block.change if isinstance(module, nn.GroupNorm)]
        convolutions = [module for module in block.change if isinstance(module, nn.Conv2d)]
        self._halves = [
            Half(
                norm_weight=_array(norm.weight),
                norm_bias=_array(norm.bias),
                eps=np.float32(norm.eps),
                weights=_in_the_basis(G3, _array(convolution.weight)),
                bias=_array(convolution.bias),
            )
            for norm, convolution in zip(norms, convolutions, strict=True)
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from worldmodel_v.autoencoders.gaussian.winograd_kernels import BlockMemory, block_kernel, scratch_size

        _, channels, height, width = x.shape
        frames = _frames_at_once(len(x), height, width)
        if not frames:
            return self._block(x)
        x = x.contiguous(memory_format=torch.channels_last)
        tiles = frames * height * width // 16
        memory = BlockMemory(
            padded=np.zeros((frames, height + 2, (width + 4) * channels), np.float32),
            between=np.empty((frames, height, width * channels), np.float32),
            v=np.empty((36, tiles, channels), np.float32),
            m=np.empty((36, tiles, channels), np.float32),
            scratch=np.empty(scratch_size(channels, width), np.float32),
        )
        block_kernel(channels, width, tiles)(_rows(x), *self._halves, memory)
        return x


class FastHalving(nn.Module):
    """What a convolution 4x4 of stride 2, padding 1 computes, without gradients: float32 (B, C, H, W) to (B, C', H/2, W/2).

    Maps with an odd side go through the convolution itself."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self._convolution = convolution
        weight = _array(convolution.weight)
        out_channels, channels = weight.shape[:2]
        by_side = weight.reshape(out_channels, channels, 2, 2, 2, 2).transpose(0, 3, 5, 1, 2, 4)
        self._weights = _in_the_basis(G2, by_side.reshape(out_channels, 4 * channels, 2, 2))
        self._bias = _array(convolution.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from worldmodel_v.autoencoders.gaussian.winograd_kernels import HalvingMemory, halving_kernel, scratch_size

        batch, channels, height, width = x.shape
        frames = 0 if height % 2 or width % 2 else _frames_at_once(batch, height // 2, width // 2)
        if not frames:
            return self._convolution(x)
        x = x.contiguous(memory_format=torch.channels_last)
        out_channels, tiles = len(self._bias), frames * height * width // 64
        out = torch.empty((batch, out_channels, height // 2, width // 2), memory_format=torch.channels_last)
        memory = HalvingMemory(
            zeros=np.zeros(width * channels, np.float32),
            v=np.zeros((25, tiles, 4 * channels), np.float32),
            m=np.empty((25, tiles, out_channels), np.float32),
            scratch=np.zeros(scratch_size(channels, width), np.float32),
            scratch_out=np.empty(scratch_size(out_channels, width // 2), np.float32),
        )
        halving_kernel(channels, width, out_channels, tiles)(_rows(x), self._weights, self._bias, _rows(out), memory)
        return out


def _frames_at_once(batch: int, height: int, width: int) -> int:
    """How many frames' output maps are computed at a time; 0 if PyTorch's convolution is used instead."""
    tiles = height * width // 16
    if height % 4 or width % 4 or tiles > MAX_TILES or batch < SMALLEST_BATCH:
        return 0
    return max(1, TILES_AT_ONCE // tiles)


def _rows(x: torch.Tensor) -> np.ndarray:
    """(B, C, H, W) in channels_last as (B, H, W C)."""
    return x.permute(0, 2, 3, 1).flatten(start_dim=2).numpy()


def _array(parameter: torch.Tensor | None) -> np.ndarray:
    assert parameter is not None
    return parameter.detach().contiguous().numpy()


def _in_the_basis(basis: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A kernel (C out, C in, n, n) as matrices (P, C in, C out)."""
    places = np.einsum("pa,oiab,qb->pqio", basis, weight.astype(np.float64), basis)
    return np.ascontiguousarray(places.reshape(-1, *places.shape[2:]), np.float32)
