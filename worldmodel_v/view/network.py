"""A decoder as a short list of operations with weights, which the page computes with TensorFlow.js.

Legend: C channels, H, W map, K kernel, S stride, P padding, I input, O output.

Every module that the built-in decoders are made of has one line in `_Converter._operations`; any other module raises
`NotConvertible`, so nothing is shown that is not what PyTorch computes. Maps are (H, W, C) in the page. Before the modules come
two operations that are none: `places` makes a map of the latents of `spatial`, `levels` joins the two levels of `ladder`.

- A transposed convolution becomes a convolution that computes all S x S outputs of a place as channels, followed by a
  `shuffle` (Shi et al. 2016, arXiv:1609.05158): TensorFlow.js has no fast transposed one on WebAssembly.
- One on a single pixel, directly after a linear layer, becomes a linear layer together with it. This takes 3.3 of the 3.6
  million weights of ha2018's decoder away.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from worldmodel_v.autoencoders.blocks import ResidualBlock
from worldmodel_v.autoencoders.gaussian import GaussianAutoencoder
from worldmodel_v.autoencoders.gaussian.ladder import LadderVAE
from worldmodel_v.autoencoders.gaussian.spatial import SpatialVAE
from worldmodel_v.view.packing import Weights

Operation = dict[str, Any]


class NotConvertible(Exception):
    """The page has no operation for a part of the network; the text names the part."""


def convert_decoder(model: GaussianAutoencoder) -> tuple[list[Operation], Weights]:
    """The operations from (z, standardised condition) to a frame (H, W, C) in [0, 1]; raises NotConvertible."""
    converter = _Converter()
    first: list[Operation] = []
    to_map: list[nn.Module] = [nn.Unflatten(1, model._bottom)]
    match model:
        case SpatialVAE():
            first, to_map = [{"op": "places", "shape": list(model.latent_shape)}], []
        case LadderVAE():
            sizes = [model.config.top_dim, model.config.bottom_dim]
            first = [{"op": "levels", "sizes": sizes, "prior": converter.convert([model.top_down])}]
    assert isinstance(model.from_latent, nn.Module)
    return [*first, *converter.convert([model.from_latent, *to_map, model.decoder, nn.Sigmoid()])], converter.weights


class _Converter:
    """Walks over modules in the order in which they are applied."""

    def __init__(self) -> None:
        self.weights = Weights()

    def convert(self, modules: Iterable[nn.Module]) -> list[Operation]:
        flat = [part for module in modules for part in (module if isinstance(module, nn.Sequential) else [module])]
        return [operation for module in _merged(flat) for operation in self._operations(module)]

    def _operations(self, module: nn.Module) -> list[Operation]:
        match module:
            case nn.Linear():
                return [{"op": "linear", **self._parameters(module.weight.T, module.bias)}]
            case nn.Conv2d():
                return [self._convolution(module)]
            case nn.ConvTranspose2d():
                return self._transposed(module)
            case nn.GroupNorm():
                parameters = self._parameters(module.weight, module.bias)
                return [{"op": "groupnorm", "groups": module.num_groups, "epsilon": module.eps, **parameters}]
            case ResidualBlock():
                return [{"op": "residual", "change": self.convert([module.change])}]
            case nn.Upsample(mode="nearest", scale_factor=None):
                return [{"op": "resize", "size": [*_pair(module.size)]}]
            case nn.Unflatten(dim=1):
                return [{"op": "unflatten", "shape": list(module.unflattened_size)}]
            case nn.Flatten(start_dim=1, end_dim=-1):
                return [{"op": "flatten"}]
            case nn.ReLU() | nn.SiLU() | nn.Sigmoid():
                return [{"op": type(module).__name__.lower()}]
        raise NotConvertible(f"it has a layer {type(module).__name__}, which the page cannot compute")

    def _parameters(self, weight: torch.Tensor | np.ndarray, bias: torch.Tensor | None) -> dict[str, Any]:
        if bias is None:
            raise NotConvertible("it has a layer without a bias, which the page cannot compute")
        values = weight.detach().numpy() if isinstance(weight, torch.Tensor) else weight
        return {"weight": self.weights.add(values), "bias": self.weights.add(bias.detach().numpy())}

    def _convolution(self, module: nn.Conv2d) -> Operation:
        _require_plain(module)
        kernel_HWIO = module.weight.permute(2, 3, 1, 0)
        pad = [[side, side] for side in _pair(module.padding)]
        return {"op": "conv", "strides": list(module.stride), "pad": pad, **self._parameters(kernel_HWIO, module.bias)}

    def _transposed(self, module: nn.ConvTranspose2d) -> list[Operation]:
        _require_plain(module)
        vertical, horizontal = (_Phases(module, side) for side in (0, 1))
        weight_IOHW, strides = module.weight.detach().numpy(), list(module.stride)
        channels, outputs = weight_IOHW.shape[:2]
        kernel = np.zeros((vertical.size, horizontal.size, channels, *strides, outputs), np.float32)
        for y, phase_y, at_y in vertical.taps():
            for x, phase_x, at_x in horizontal.taps():
                kernel[y, x, :, phase_y, phase_x] = weight_IOHW[:, :, at_y, at_x]
        bias = None if module.bias is None else module.bias.repeat(strides[0] * strides[1])
        parameters = self._parameters(kernel.reshape(vertical.size, horizontal.size, channels, -1), bias)
        return [
            {"op": "conv", "strides": [1, 1], "pad": [vertical.pad, horizontal.pad], **parameters},
            {"op": "shuffle", "strides": strides, "crop": [vertical.crop, horizontal.crop]},
        ]


class _Phases:
    """One side of a transposed convolution as S convolutions: output S q + r takes input q - d with weight S d + r + P."""

    def __init__(self, module: nn.ConvTranspose2d, side: int) -> None:
        self._kernel, self._stride, self._padding = (
            int(values[side]) for values in (module.kernel_size, module.stride, module.padding)
        )
        longer = self._kernel + int(module.output_padding[side]) - 2 * self._padding - self._stride
        self._furthest = (self._kernel - 1 - self._padding) // self._stride
        nearest = -((self._stride - 1 + self._padding) // self._stride)
        more = -(-longer // self._stride)
        self.size = self._furthest - nearest + 1
        self.pad = [self._furthest, more - nearest]
        self.crop = more * self._stride - longer
        if min(self.pad) < 0:
            raise NotConvertible("it has a transposed convolution that drops part of what it computes")

    def taps(self) -> Iterator[tuple[int, int, int]]:
        """(place in the new kernel, phase r, place in the old kernel) of each weight along this side."""
        for place in range(self.size):
            for phase in range(self._stride):
                old = self._stride * (self._furthest - place) + phase + self._padding
                if 0 <= old < self._kernel:
                    yield place, phase, old


def _pair(sides: Any) -> tuple[int, int]:
    """(height, width), of which both are given."""
    height, width = sides
    return int(height), int(width)


def _require_plain(module: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Raise NotConvertible for groups, dilation, or a padding that is not zeros of a given width."""
    plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    if not plain or isinstance(module.padding, str):
        raise NotConvertible(f"it has a {type(module).__name__} with groups, dilation or another padding")


def _merged(modules: list[nn.Module]) -> list[nn.Module]:
    """The same modules, of which a linear layer and a transposed convolution of its one pixel are one linear layer."""
    match modules:
        case [nn.Linear() as linear, nn.Unflatten(unflattened_size=(_, 1, 1)), nn.ConvTranspose2d() as transposed, *others]:
            return [*_on_one_pixel(linear, transposed), *others]
    return modules


@torch.no_grad()
def _on_one_pixel(linear: nn.Linear, transposed: nn.ConvTranspose2d) -> tuple[nn.Linear, nn.Unflatten]:
    exact_linear, exact = copy.deepcopy(linear).double(), copy.deepcopy(transposed).double()
    inputs = torch.cat([torch.zeros(1, linear.in_features), torch.eye(linear.in_features)]).double()
    maps = exact(exact_linear(inputs)[:, :, None, None])
    outputs = maps.flatten(start_dim=1)
    both = nn.Linear(linear.in_features, outputs.shape[1])
    both.bias.copy_(outputs[0])
    both.weight.copy_((outputs[1:] - outputs[0]).T)
    return both, nn.Unflatten(1, tuple(maps.shape[1:]))
