"""`--total-correlation` by sampling: the KL's three parts, estimated from the posteriors of a batch.

Legend: B batch, N frames of the training, Z latent, x_n a frame, q(z) = 1/N Σ_n q(z|x_n).

    mean KL(q(z|x_n) || p(z)) = I(z; n)                    mutual information of the latents and the frame's number
                              + KL(q(z) || Π_j q(z_j))     total correlation: 0 if the latents are independent
                              + Σ_j KL(q(z_j) || p(z_j))   dimension-wise KL

    minimised = rest + weight · total correlation

Source: Chen et al. 2018 (arXiv:1802.04942), equation 2; with `--beta 1` it is their β-TC-VAE (equation 4, α = γ = 1) for their
β = 1 + weight. As the KL of the rest is known in closed form, only what is added to it is estimated.

q(z) is estimated by minibatch stratified sampling (their appendix C). For a z that was drawn from frame i of the batch,

    q̂(z) = 1/N q(z|x_i) + (N - 1) / (N (B - 1)) Σ_{j≠i} q(z|x_j)

which has no bias; it is their estimator, averaged over all orders of the batch. The logarithm of it is too low on average, and
the more so, the less the posteriors of a batch overlap. If they do not overlap at all, the first term alone remains: then the
total correlation becomes Σ_j I(z_j; n) - log N, which says nothing about dependence. `overlap` is the part of q̂(z) that other
frames give, as a mean: 0 if none overlap, 1 - 1/N if all are equal.

Rejected: minibatch weighted sampling, which puts 1/(N B) before all terms. Its gradients are similar, but its marginals are too
low by up to log N each, so its total correlation is off by up to (Z - 1) log N nats. Memory is in proportion to B² Z.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel_v.training.extras import ExtraLoss, Made, Term, require_drawn


class KLParts(NamedTuple):
    """The parts of the KL in nats, and how far they can be trusted: 0-dim, means over the batch."""

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_wise_kl: Tensor
    overlap: Tensor
    """Between 0 and 1, without gradient."""


class SampledCorrelation(ExtraLoss):
    """The weighted total correlation, and all parts of the KL as figures."""

    shown = ("total_correlation",)

    def __init__(self, weight: float, num_frames: int) -> None:
        """`num_frames` is N, at least 2."""
        self._weight, self._num_frames = weight, num_frames

    def term(self, made: Made) -> Term:
        """From the whole batch: each process computes all of it."""
        drawn = require_drawn(made.drawn, made.model, made.batch)
        z, *parameters = made.share.gather(torch.stack([drawn.z, *drawn.parameters], dim=1)).unbind(dim=1)
        parts = kl_parts(z, tuple(parameters), drawn.log_density, self._num_frames)
        return Term(self._weight * drawn.nat * parts.total_correlation, dict(parts._asdict()))


def kl_parts(z_BZ: Tensor, parameters: tuple[Tensor, ...], log_density: Callable[..., Tensor], num_frames: int) -> KLParts:
    """The three parts for a batch of at least 2, one z of each posterior, of `num_frames` (at least 2) in all.

    `parameters` and `log_density` are those of `Drawn`. The parts sum to the mean of log q(z|x) - log p(z).
    """
    log_q_BBZ = log_density(z_BZ[:, None], *(values[None] for values in parameters))  # row: of which z; column: given which x
    log_weights_BB = stratified_log_weights(z_BZ, num_frames)
    given_own_frame_B = log_q_BBZ.diagonal().sum(dim=0)
    aggregate_B = torch.logsumexp(log_q_BBZ.sum(dim=2) + log_weights_BB, dim=1)
    marginals_B = torch.logsumexp(log_q_BBZ + log_weights_BB[:, :, None], dim=1).sum(dim=1)
    prior_B = -0.5 * (z_BZ.square() + math.log(2 * math.pi)).sum(dim=1)
    own_share_B = torch.exp(given_own_frame_B - math.log(num_frames) - aggregate_B).detach()
    return KLParts(
        mutual_information=(given_own_frame_B - aggregate_B).mean(),
        total_correlation=(aggregate_B - marginals_B).mean(),
        dimension_wise_kl=(marginals_B - prior_B).mean(),
        overlap=1 - own_share_B.mean(),
    )


def stratified_log_weights(z_BZ: Tensor, num_frames: int) -> Tensor:
    """The logarithms of the weights in q̂(z): (B, B), of z's dtype and device. The weights of a row sum to 1."""
    size = len(z_BZ)
    of_others = math.log((num_frames - 1) / (num_frames * (size - 1)))
    return z_BZ.new_full((size, size), of_others).fill_diagonal_(-math.log(num_frames))
