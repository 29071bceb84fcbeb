"""What the page computes, in PyTorch: each operation once, in the same order, on the same weights.

No page is written whose decoder gives other frames than the autoencoder (`check_operations`), so an autoencoder with a forward
pass of its own cannot be shown wrongly. The same comparison says whether weights may be stored in half precision.

Legend: N frames, C channels, H, W map.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from worldmodel_v.autoencoders import output_to_frames
from worldmodel_v.autoencoders.blocks import beside_everywhere
from worldmodel_v.autoencoders.gaussian.ladder import estimates
from worldmodel_v.view.network import NotConvertible, Operation
from worldmodel_v.view.packing import Precision, Weights

PRECISIONS: tuple[Precision, ...] = ("float16", "float32")
MAX_DIFFERENCE = 1
"""In grey levels of 256."""


@torch.no_grad()
def choose_precision(
    operations: Sequence[Operation], weights: Weights, inputs_NI: torch.Tensor, expected_NCHW: torch.Tensor
) -> Precision:
    """The smallest precision of weights in which the operations give these frames, to within a grey level.

    Raises NotConvertible if there is none.
    """
    expected = output_to_frames(expected_NCHW).int()
    for precision in PRECISIONS:
        found = output_to_frames(compute(operations, weights.rounded(precision), inputs_NI)).int()
        if found.shape == expected.shape and int((found - expected).abs().max()) <= MAX_DIFFERENCE:
            return precision
    raise NotConvertible("its layers, one after the other, do not give its frames")


def compute(operations: Sequence[Operation], buffer: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Inputs (N, I) through all operations, with the numbers of `buffer` as weights."""
    for operation in operations:
        x = _compute(operation, buffer, x)
    return x


def _compute(operation: Operation, buffer: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    match operation["op"]:
        case "places":
            return _places(x, operation["shape"])
        case "levels":
            top, bottom, condition = x.tensor_split([operation["sizes"][0], sum(operation["sizes"])], dim=1)
            expected = estimates(compute(operation["prior"], buffer, top))
            return torch.cat([expected.mean + torch.exp(0.5 * expected.logvar) * bottom, condition], dim=1)
        case "linear":
            return x @ _weight(operation, buffer) + _bias(operation, buffer)
        case "conv":
            (top, bottom), (left, right) = operation["pad"]
            kernel_OIHW = _weight(operation, buffer).permute(3, 2, 0, 1)
            padded = functional.pad(x, (left, right, top, bottom))
            return functional.conv2d(padded, kernel_OIHW, _bias(operation, buffer), operation["strides"])
        case "shuffle":
            return _shuffled(x, *operation["strides"], *operation["crop"])
        case "groupnorm":
            parameters = (_weight(operation, buffer), _bias(operation, buffer))
            return functional.group_norm(x, operation["groups"], *parameters, operation["epsilon"])
        case "residual":
            return x + compute(operation["change"], buffer, x)
        case "resize":
            return functional.interpolate(x, operation["size"], mode="nearest")
        case "unflatten":
            return x.reshape(len(x), *operation["shape"])
        case "flatten":
            return x.flatten(start_dim=1)
        case "relu":
            return functional.relu(x)
        case "silu":
            return functional.silu(x)
        case "sigmoid":
            return torch.sigmoid(x)
    raise ValueError(f"no operation {operation['op']!r}")


def _places(x_NI: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The latents as a map of shape (h, w, c), with the condition behind them at each place: (N, c + K, h, w)."""
    size = int(torch.Size(shape).numel())
    z_NCHW = x_NI[:, :size].unflatten(1, tuple(shape)).permute(0, 3, 1, 2)
    return beside_everywhere(z_NCHW, x_NI[:, size:])


def _shuffled(x_NCHW: torch.Tensor, high: int, wide: int, crop_y: int, crop_x: int) -> torch.Tensor:
    phases = x_NCHW.unflatten(1, (high, wide, -1))
    y = phases.permute(0, 3, 4, 1, 5, 2).flatten(2, 3).flatten(3, 4)
    return y[:, :, : y.shape[2] - crop_y, : y.shape[3] - crop_x]


def _weight(operation: Operation, buffer: torch.Tensor) -> torch.Tensor:
    return _at(operation["weight"], buffer)


def _bias(operation: Operation, buffer: torch.Tensor) -> torch.Tensor:
    return _at(operation["bias"], buffer)


def _at(place: dict[str, Any], buffer: torch.Tensor) -> torch.Tensor:
    size = int(torch.Size(place["shape"]).numel())
    return buffer[place["at"] : place["at"] + size].reshape(place["shape"])
