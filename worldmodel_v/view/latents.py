"""What the page says of a VAE's latents: what its sliders move, and the decoder; or why it cannot.

A slider moves one latent where a frame is a vector. A map has too many, each of a single place, so its sliders move principal
components of the whole map, fitted to the frames of the page. Rejected: components for vectors as well, which would hide single
latents; sliders for a place that is chosen first, which need a second control and move a small patch.

Legend: N frames, Z latent (a map as one vector), C components, K size of the condition.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder
from worldmodel_v.autoencoders.gaussian import VAE, GaussianAutoencoder
from worldmodel_v.autoencoders.gaussian.ladder import LadderVAE
from worldmodel_v.autoencoders.gaussian.posterior import Posterior, aggregate, gaussian_kl, posterior_of
from worldmodel_v.autoencoders.gaussian.spatial import SpatialVAE
from worldmodel_v.evenly import evenly_spaced
from worldmodel_v.view.computing import choose_precision
from worldmodel_v.view.episodes import Excerpt
from worldmodel_v.view.network import NotConvertible, Operation, convert_decoder
from worldmodel_v.view.packing import Precision, Weights, numbers

COMPARED_FRAMES = 128
MAX_COMPONENTS = 24


@dataclass(frozen=True, kw_only=True)
class Slider:
    """One way to move z: a latent, or a component, which is a direction in the space of all latents."""

    name: str
    amount: float
    """What it says of frames: the mean KL(q(z_i|x) || N(0, 1)) of a latent in nats; the share of the variance in percent."""

    mean: float
    std: float
    """Of a latent under q(z), with the variance of the posteriors; of a component over the frames' mu."""

    at: int
    """Which latent, or which row of the components."""


@dataclass(frozen=True, kw_only=True)
class PageDecoder:
    """A decoder that the page runs, and how its latents are moved."""

    operations: list[Operation]
    weights: Weights
    precision: Precision
    sliders: list[Slider]
    """What says most comes first."""

    components: np.ndarray | None
    """Orthonormal, float32 (C, Z), for a map of latents; None if each slider moves one latent."""

    def for_page(self) -> dict[str, Any]:
        """Everything but the frames' own latents."""
        return {
            "sliders": [asdict(slider) for slider in self.sliders],
            "components": None if self.components is None else numbers(self.components),
            "operations": self.operations,
            "weights": self.weights.packed(self.precision),
        }


def page_decoder(model: Autoencoder, excerpts: Sequence[Excerpt]) -> PageDecoder:
    """The decoder of a VAE, compared with PyTorch on frames of the page; raises NotConvertible, which says why."""
    if type(model) not in (VAE, SpatialVAE, LadderVAE):
        raise NotConvertible(f"its autoencoder is {model.kind}, which is not gaussian, spatial or ladder")
    assert isinstance(model, GaussianAutoencoder)
    operations, weights = convert_decoder(model)
    posterior = posterior_of(
        {name: torch.from_numpy(np.concatenate([each.latents[name] for each in excerpts])) for name in ("mu", "logvar")}
    )
    condition = np.concatenate([each.condition for each in excerpts])
    is_map = len(model.latent_shape) > 1
    components = principal_components(posterior.mu) if is_map else None
    return PageDecoder(
        operations=operations,
        weights=weights,
        precision=_precision(model, operations, weights, posterior.mu, condition),
        sliders=_of_latents(model, posterior) if components is None else _of_components(components, posterior.mu),
        components=None if components is None else components.numpy(),
    )


def principal_components(mu_NZ: torch.Tensor) -> torch.Tensor:
    """At most 24 orthonormal directions in which frames differ most, the largest weight of each positive: float32 (C, Z)."""
    mu = mu_NZ.double()
    _, spread, directions_CZ = torch.linalg.svd(mu - mu.mean(dim=0), full_matrices=False)
    directions_CZ = directions_CZ[spread > 1e-6 * spread[0]][:MAX_COMPONENTS]
    largest = directions_CZ.gather(1, directions_CZ.abs().argmax(dim=1, keepdim=True))
    return (directions_CZ * largest.sign()).float()


def _of_components(components_CZ: torch.Tensor, mu_NZ: torch.Tensor) -> list[Slider]:
    along_NC = (mu_NZ @ components_CZ.T).double()
    shares = 100 * along_NC.var(dim=0, correction=0) / mu_NZ.double().var(dim=0, correction=0).sum()
    means, stds = along_NC.mean(dim=0), along_NC.std(dim=0, correction=0)
    return [
        Slider(name=f"PC {i + 1}", amount=float(shares[i]), mean=float(means[i]), std=float(stds[i]), at=i)
        for i in range(len(components_CZ))
    ]


def _of_latents(model: GaussianAutoencoder, posterior: Posterior) -> list[Slider]:
    (column, _), _ = model.latents("float32")
    names = column.parts or [f"z{i}" for i in range(model.latent_dim)]
    kl, spread = gaussian_kl(posterior).double().mean(dim=0).tolist(), aggregate(posterior)
    return [
        Slider(name=names[i], amount=kl[i], mean=spread.mean[i], std=math.sqrt(spread.variance[i]), at=i)
        for i in sorted(range(len(kl)), key=lambda i: -kl[i])
    ]


@torch.no_grad()
def _precision(
    model: GaussianAutoencoder, operations: list[Operation], weights: Weights, mu_NZ: torch.Tensor, condition_NK: np.ndarray
) -> Precision:
    """Compared on frames that are spread over the page, and on as many draws of N(0, I)."""
    rows = evenly_spaced(len(mu_NZ), COMPARED_FRAMES)
    z = torch.cat([mu_NZ[rows], torch.randn(len(rows), mu_NZ.shape[1], generator=torch.Generator().manual_seed(0))])
    condition = torch.from_numpy(condition_NK[rows]).repeat(2, 1) if condition_NK.shape[1] else None
    standardised = model.standardised(condition)
    inputs = z if standardised is None else torch.cat([z, standardised], dim=1)
    return choose_precision(operations, weights, inputs, model.decode_z(z, condition))


def latents_for_page(model: GaussianAutoencoder, excerpt: Excerpt) -> dict[str, Any]:
    """mu of each row as a vector (T, Z), and the standardised condition (T, K)."""
    standardised = model.standardised(torch.from_numpy(excerpt.condition) if model.config.condition_dim else None)
    return {
        "mu": numbers(excerpt.latents["mu"]),
        "condition": "" if standardised is None else numbers(standardised.numpy()),
    }
