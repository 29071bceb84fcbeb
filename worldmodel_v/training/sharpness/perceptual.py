"""`--perceptual`: the distance of the features that a network finds in a frame and in its reconstruction.

Legend: B batch, C channels, H, W frame, D = C H W.

    d(x, x̂) = D Σ_l mean (φ_l(x) - φ_l(x̂))²        (Johnson et al. 2016, arXiv:1603.08155, equation 2)

The mean is over the values of layer l. The factor D puts it into the units of a sum of squared errors. φ is the discriminator
(Larsen et al. 2016, arXiv:1512.09300), or a fixed network of the user's own, such as VGG16: `module:factory`.

The factory takes no arguments and returns a `torch.nn.Module` that maps float32 (B, 3, H, W) in [0, 1] to a list of feature
maps. Its weights are not trained. They are not in the checkpoint; their SHA-256 is, so that a training does not continue with
others.
"""

import hashlib
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel_v.autoencoders.registry import sha256_of_own
from worldmodel_v.errors import ConfigError, one_line, retold
from worldmodel_v.own_modules import load_own
from worldmodel_v.training.extras import ExtraLoss, Made, Term

DISCRIMINATOR = "discriminator"
DIGEST = "network_sha256"


class OwnPerceptual(ExtraLoss):
    """The weighted distance of the features of a fixed network."""

    shown = ("perceptual",)

    def __init__(self, weight: float, network: nn.Module, device: torch.device) -> None:
        self._weight = weight
        self._digest = _digest(network)
        self._network = network.to(device)

    def term(self, made: Made) -> Term:
        """The distance, and `perceptual`, without the weight."""
        with torch.autocast(made.frames.device.type, enabled=False):
            with torch.no_grad():
                real = self._features(made.batch.x)
            distance = feature_distance(real, self._features(made.frames), made.frames[0].numel())
        return Term(self._weight * distance, {"perceptual": distance})

    def _features(self, frames_BCHW: Tensor) -> list[Tensor]:
        return self._network(frames_BCHW.float().expand(-1, 3, -1, -1))

    def tensors(self) -> dict[str, Tensor]:
        """The SHA-256 of the network's weights: uint8 (32,)."""
        return {DIGEST: self._digest}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Raises ValueError if the network's weights are not those of the checkpoint."""
        if tensors.keys() != {DIGEST} or not torch.equal(tensors[DIGEST], self._digest):
            raise ValueError("the perceptual network has other weights than before")


def feature_distance(real: list[Tensor], made: list[Tensor], num_values: int) -> Tensor:
    """d(x, x̂), 0-dim, from the features of both and the number of a frame's values."""
    return num_values * torch.stack([(a - b).square().mean() for a, b in zip(real, made, strict=True)]).sum()


def load_network(name: str, frame_shape: tuple[int, int]) -> nn.Module:
    """The user's own network, in evaluation mode and without gradients; raises ConfigError unless it gives feature maps."""
    refusal = partial(ConfigError, field="perceptual_network", got=name)
    factory = _factory(name)
    with retold(lambda error: refusal(f"cannot be built: {one_line(error)}; it is called as factory()")):
        network = factory()
    if not isinstance(network, nn.Module):
        raise refusal(f"returned a {type(network).__name__:.100}", expected="a torch.nn.Module")
    network.float().eval().requires_grad_(requires_grad=False)
    with retold(lambda error: refusal(f"fails on frames: {one_line(error)}; it gets float32 (B, 3, H, W) in [0, 1]")):
        frames = torch.zeros(2, 3, *frame_shape, requires_grad=True)
        found = network(frames)
    if why := _nonsense(found):
        raise refusal(f"gives {why}", expected="a list of feature maps: float (B, …) with gradients, finite")
    return network


def _factory(name: str) -> Any:
    refusal = partial(ConfigError, field="perceptual_network", got=name)
    _, separator, attribute = name.partition(":")
    if not separator:
        raise refusal("unknown", expected=f"{DISCRIMINATOR}, or module:factory of your own")
    factory = load_own(name, lambda why: refusal(f"cannot be loaded: {why}", expected="module:factory on the Python path"))
    if not callable(factory):
        raise refusal(f"{attribute} is not callable", expected="a factory that returns a torch.nn.Module")
    return factory


def _nonsense(found: Any) -> str | None:
    """What is wrong with the features of two frames; None if nothing."""
    if not isinstance(found, list | tuple):
        return f"a {type(found).__name__:.100}"
    if not found:
        return "no feature map"
    for each in found:
        if not (isinstance(each, Tensor) and each.is_floating_point()):
            return f"a {type(each).__name__:.100} among them that is no tensor of floats"
        if each.ndim < 2 or len(each) != 2:
            return f"a map of the shape {tuple(each.shape)} for two frames"
        if not each.requires_grad:
            return "a map without gradients"
        if not each.isfinite().all():
            return "a map with NaN or infinite values for a black frame"
    return None


def source_of(name: str) -> dict[str, str]:
    """What a training records with the name of a network of one's own: the SHA-256 of its code; raises ConfigError."""
    own = "" if name == DISCRIMINATOR else sha256_of_own(_factory(name), name)
    return {"perceptual_network_sha256": own} if own else {}


def _digest(network: nn.Module) -> Tensor:
    """The SHA-256 over each weight's name, dtype, shape and bytes: uint8 (32,)."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return torch.tensor(list(sha256.digest()), dtype=torch.uint8)
