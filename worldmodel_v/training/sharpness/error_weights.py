"""`--error-weight`: more weight for the errors of what is small and rare.

Legend: B batch, C channels, H, W frame.

A blurred edge and a lost ball of four pixels add little to a sum over all pixels. Here each value's error e gets a weight:

    Σ w e,   w = 1/2 + m / (2 mean(m))

The mean is over the values of a frame, so the mean weight of every frame is 1, and the loss stays in its units. m is

- gradient: how much a pixel differs from its four neighbours in the recorded frame, the root of the sum of squares. Wei et al.
  2020 (arXiv:2008.01928, the gradient-weighted loss) weigh pixels by the gradient too, there by how much the gradients of both
  pictures differ, which would have to be learned against;
- error: |x̂ - x|, as a constant. So the larger half of the errors matters more, as in the focal loss (Lin et al. 2017,
  arXiv:1708.02002, with γ = 1).

Half of the weight is the same for all values: with weights of zero the decoder could draw what it likes on flat parts.

With weights, what is minimised is no evidence lower bound: Σ w e is no -log p(x|z) of one distribution, because w depends on x.
`loss` in the record, the learned σ and the ELBO of evaluations stay those without weights; `weighted_error` is the term with.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from worldmodel_v.training.extras import ExtraLoss, Made, Term

ErrorWeight = Literal["none", "gradient", "error"]


class WeightedErrors(ExtraLoss):
    """Adds Σ (w - 1) e, so that the errors in the loss have the weights w."""

    in_parts = True
    shown = ("weighted_error",)

    def __init__(self, kind: ErrorWeight) -> None:
        self._kind = kind

    def term(self, made: Made) -> Term:
        """The difference that the weights make."""
        weights = error_weights(self._kind, made.batch.x, made.frames)
        weighted, plain = ((each * made.errors).flatten(start_dim=1).sum(dim=1).mean() for each in (weights, 1.0))
        return Term(weighted - plain, {"weighted_error": weighted})


@torch.no_grad()
def error_weights(kind: ErrorWeight, x_BCHW: Tensor, frames_BCHW: Tensor) -> Tensor:
    """The weight of each value: float (B, C, H, W) or (B, 1, H, W), at least 1/2, with a mean of 1 for each frame."""
    importance = gradient(x_BCHW) if kind == "gradient" else (frames_BCHW - x_BCHW).abs()
    mean = importance.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(mean > 0, 0.5 + 0.5 * importance / mean.clamp_min(torch.finfo(mean.dtype).tiny), 1.0)


def gradient(x_BCHW: Tensor) -> Tensor:
    """How much each pixel differs from its neighbours above, below, left and right: (B, 1, H, W)."""
    padded = functional.pad(x_BCHW, (1, 1, 1, 1), mode="replicate")
    height, width = x_BCHW.shape[2:]
    neighbours = [padded[:, :, i : i + height, j : j + width] for i, j in ((0, 1), (2, 1), (1, 0), (1, 2))]
    squares = [(x_BCHW - each).square().sum(dim=1, keepdim=True) for each in neighbours]
    return torch.stack(squares).sum(dim=0).sqrt()
