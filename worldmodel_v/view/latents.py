"""What the page says of a VAE's latents: their order, their spread, and the decoder; or why it cannot.

Legend: N frames, Z latent, K size of the condition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder
from worldmodel_v.autoencoders.gaussian import VAE
from worldmodel_v.autoencoders.gaussian.posterior import aggregate, gaussian_kl, posterior_of
from worldmodel_v.data.evenly import evenly_spaced
from worldmodel_v.view.computing import choose_precision
from worldmodel_v.view.episodes import Excerpt
from worldmodel_v.view.network import NotConvertible, Operation, convert_decoder
from worldmodel_v.view.packing import Precision, Weights, numbers

COMPARED_FRAMES = 128


@dataclass(frozen=True, kw_only=True)
class PageDecoder:
    """A decoder that the page runs, and what it needs to know of the latents."""

    operations: list[Operation]
    weights: Weights
    precision: Precision
    kl: list[float]
    """Mean KL(q(z_i|x) || N(0, 1)) of each latent over the frames of the page, in nats."""

    mean: list[float]
    std: list[float]
    """Of q(z): with the variance of the posteriors."""

    def for_page(self) -> dict[str, Any]:
        """Everything but the frames' own latents."""
        order = sorted(range(len(self.kl)), key=lambda i: -self.kl[i])
        about = {"kl": self.kl, "mean": self.mean, "std": self.std, "order": order}
        return {**about, "operations": self.operations, "weights": self.weights.packed(self.precision)}


def page_decoder(model: Autoencoder, excerpts: Sequence[Excerpt]) -> PageDecoder:
    """The decoder of a VAE, compared with PyTorch on frames of the page; raises NotConvertible, which says why."""
    if type(model) is not VAE:
        raise NotConvertible(f"its autoencoder is {model.kind}, whose latents are no vector with a Gaussian for each number")
    operations, weights = convert_decoder(model)
    latents = {name: torch.from_numpy(np.concatenate([each.latents[name] for each in excerpts])) for name in ("mu", "logvar")}
    condition = np.concatenate([each.condition for each in excerpts])
    posterior = posterior_of(latents)
    spread = aggregate(posterior)
    return PageDecoder(
        operations=operations,
        weights=weights,
        precision=_precision(model, operations, weights, latents["mu"], condition),
        kl=gaussian_kl(posterior).double().mean(dim=0).tolist(),
        mean=spread.mean,
        std=np.sqrt(spread.variance).tolist(),
    )


@torch.no_grad()
def _precision(
    model: VAE, operations: list[Operation], weights: Weights, mu_NZ: torch.Tensor, condition_NK: np.ndarray
) -> Precision:
    """Compared on frames that are spread over the page, and on as many draws of N(0, I)."""
    rows = evenly_spaced(len(mu_NZ), COMPARED_FRAMES)
    z = torch.cat([mu_NZ[rows], torch.randn(len(rows), mu_NZ.shape[1], generator=torch.Generator().manual_seed(0))])
    condition = torch.from_numpy(condition_NK[rows]).repeat(2, 1) if condition_NK.shape[1] else None
    standardised = model.standardised(condition)
    inputs = z if standardised is None else torch.cat([z, standardised], dim=1)
    return choose_precision(operations, weights, inputs, model.decode_z(z, condition))


def latents_for_page(model: VAE, excerpt: Excerpt) -> dict[str, Any]:
    """mu of each row (T, Z), and the standardised condition (T, K)."""
    standardised = model.standardised(torch.from_numpy(excerpt.condition) if model.config.condition_dim else None)
    return {
        "mu": numbers(excerpt.latents["mu"]),
        "condition": "" if standardised is None else numbers(standardised.numpy()),
    }
