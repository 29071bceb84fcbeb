"""A network that tells recorded frames from reconstructions, patch by patch, and its loss.

Legend: B batch, C channels, H, W frame, h, w patches.

It is a PatchGAN (Isola et al. 2017, arXiv:1611.07004): convolutions that judge overlapping patches, here of 38x38 pixels, one
score each. Spectral norm (Miyato et al. 2018, arXiv:1802.05957) keeps the largest singular value of every layer's matrix at 1,
so its scores cannot grow without bound; there is no batch norm, so frames are judged one by one. It is narrow (32 to 128
channels), because it runs three times a step. It computes in float32, for any autocast. A score has no bias: as long as all
scores lie within the margin, its gradient would be the rounding of a sum that is zero, and Adam makes whole updates of that.

    hinge loss = (mean max(0, 1 - D(x)) + mean max(0, 1 + D(x̂))) / 2        (Lim & Ye 2017, arXiv:1705.02894)

It is 0 if every patch is told apart with certainty, and 1 if the scores say nothing.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

WIDTHS = (32, 64, 128)
SLOPE = 0.2


class Judgement(NamedTuple):
    """What a discriminator says of frames."""

    features: list[Tensor]
    """The activations of each hidden layer: (B, channels, h, w)."""

    scores: Tensor
    """(B, 1, h, w), high for recorded frames."""


class Discriminator(nn.Module):
    """Three convolutions that halve height and width, and one that scores."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, *WIDTHS)
        self.hidden = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1))
            for before, after in zip(widths, WIDTHS, strict=False)
        )
        self.score = spectral_norm(nn.Conv2d(WIDTHS[-1], 1, kernel_size=3, padding=1, bias=False))

    def forward(self, x_BCHW: Tensor) -> Judgement:
        """Judge frames in [0, 1]. In training mode each call is a step of the power iterations for the spectral norms."""
        with torch.autocast(x_BCHW.device.type, enabled=False):
            features, values = [], 2 * x_BCHW.float() - 1
            for layer in self.hidden:
                values = functional.leaky_relu(layer(values), SLOPE)
                features.append(values)
            return Judgement(features, self.score(values))


def discriminator_loss(real_scores: Tensor, made_scores: Tensor) -> Tensor:
    """The hinge loss, 0-dim, from the scores of recorded frames and of reconstructions."""
    return (functional.relu(1 - real_scores).mean() + functional.relu(1 + made_scores).mean()) / 2


def generator_loss(made_scores: Tensor) -> Tensor:
    """What the decoder minimises, 0-dim: - mean D(x̂)."""
    return -made_scores.mean()
