"""`--total-correlation` by a discriminator, which learns to tell latents from latents that were mixed among frames.

Legend: B batch, Z latent.

    minimised = rest + weight · mean log D(z) / (1 - D(z)),   z ~ q(z)
    D learns from  - 1/2 (mean log D(z) + mean log(1 - D(z'))),   z' ~ Π_j q(z_j)

z' are the latents of the batch, each permuted among the frames on its own. The best D gives log q(z) - log Π_j q(z_j), whose
mean is the total correlation. Source: FactorVAE, Kim & Mnih 2018 (arXiv:1802.05983), equations 2 and 3, algorithms 1 and 2;
their γ is the weight. As there, D has six layers with leaky ReLU (slope 0.2), and learns with Adam, 1e-4 and β = (0.5, 0.9).
Unlike there, its layers have 256 units in place of 1,000, because it runs three times a step, and z' comes from the same batch
as z in place of a second one. D computes in float32, for any autocast.

It needs no overlap of posteriors and no number of frames. But it lags behind the encoder, and underestimates what it has not
found yet. The mutual information and the dimension-wise KL are not estimated. The loss of D is recorded in bits: 0 if it tells
all latents from mixed ones, 1 if it guesses, which is the aim.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodel_v.training.adversary import Adversary
from worldmodel_v.training.extras import Made, Term, require_drawn
from worldmodel_v.training.schedules import step_seed

LEARNING_RATE = 1e-4
BETAS = (0.5, 0.9)
WIDTH = 256
NUM_HIDDEN = 5
SLOPE = 0.2
PERMUTATION = 1
"""The purpose of the step's seed; that of the latents' noise has no number."""


class LatentDiscriminator(nn.Sequential):
    """float32 (B, Z) -> the logit of D, (B, 1)."""

    def __init__(self, num_latents: int) -> None:
        widths = (num_latents, *[WIDTH] * NUM_HIDDEN)
        hidden = [(nn.Linear(before, WIDTH), nn.LeakyReLU(SLOPE)) for before in widths[:-1]]
        super().__init__(*(layer for pair in hidden for layer in pair), nn.Linear(WIDTH, 1))


class DiscriminatedCorrelation(Adversary[LatentDiscriminator]):
    """The weighted total correlation that a discriminator estimates."""

    figure = "latent_discriminator_loss"
    shown = ("total_correlation", "latent_discriminator_loss")

    def __init__(self, weight: float, num_latents: int, seed: int, device: torch.device) -> None:
        """`seed` and the step determine the permutations. Fresh weights are drawn from PyTorch's default generator."""
        super().__init__(LatentDiscriminator(num_latents).to(device), LEARNING_RATE, BETAS)
        self._weight, self._seed = weight, seed
        self._latents: tuple[Tensor, Tensor] | None = None

    def term(self, made: Made) -> Term:
        """The estimate; keeps the latents, and mixed ones, for the discriminator's step."""
        drawn = require_drawn(made.drawn, made.model, made.batch)
        all_z = made.share.gather(drawn.z).detach()
        generator = torch.Generator("cpu").manual_seed(step_seed(self._seed, made.batch.step, PERMUTATION))
        self._latents = drawn.z.detach(), permuted(all_z, generator)[made.share.rows(len(all_z))]
        network = self._fixed()
        with torch.autocast(drawn.z.device.type, enabled=False):
            correlation = network(drawn.z.float()).mean()
        return Term(self._weight * drawn.nat * correlation, {"total_correlation": correlation})

    def _own_loss(self) -> Tensor:
        """The cross-entropy of telling the last latents from mixed ones, in bits."""
        assert self._latents is not None
        (z, mixed), self._latents = self._latents, None
        logits, logits_of_mixed = self._network(torch.cat([z, mixed])).chunk(2)
        return (functional.softplus(-logits).mean() + functional.softplus(logits_of_mixed).mean()) / (2 * math.log(2))


def permuted(z_BZ: Tensor, generator: torch.Generator) -> Tensor:
    """Each latent permuted among the rows, independently of the others: (B, Z). `generator` is on the CPU."""
    order = torch.rand(z_BZ.shape, generator=generator, dtype=torch.float64, device="cpu").argsort(dim=0, stable=True)
    return z_BZ.gather(0, order.to(z_BZ.device))
