"""A distribution of latents that is fitted after training, so that samples from it look like frames.

Training brings a VAE's latents near N(0, I), and no nearer than the weight of its KL asks for. Where they lie in fact is
q(z) = E_x[q(z|x)], which draws z ~ q(z|x) for recorded frames show. A density that is fitted to these draws gives
better samples: a Gaussian with full covariance, a mixture of ten (Ghosh et al. 2020, arXiv:1903.12436, section 4), or a
normalising flow.

How well it fits is told by the negative log-likelihood of latents from other episodes: it is fitted to half of the held-out
episodes and scored on the other half, both ways. A frame whose latent is unlikely so is one that the other episodes do not
prepare for.

Legend: N frames, n samples, Z latent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch.distributions import Distribution

from worldmodel_v.evaluation.densities import fit_flow, fit_mixture

Kind = Literal["full-covariance", "mixture", "flow"]

COMPONENTS = {"full-covariance": 1, "mixture": 10}
FRAMES_PER_VALUE = 20
"""A component has a covariance of Z x Z values, so it needs so many frames for each of the Z: with fewer, there are fewer."""


@dataclass(frozen=True, kw_only=True)
class PriorFit:
    """How well a fitted prior says where latents of other episodes lie; None where there is a single episode."""

    kind: Kind
    nll_nats: float | None
    """Negative log-likelihood of z, summed over Z and averaged over frames."""

    standard_normal_nll_nats: float
    """The same of N(0, I)."""


@dataclass(frozen=True)
class Prior:
    """A distribution of latents, fitted to all of them."""

    fit: PriorFit
    density: Distribution
    surprise: np.ndarray | None
    """(N,), in nats: -log p(z) under the fit to the other half of the episodes; None if there is a single episode."""

    def sample(self, count: int) -> np.ndarray:
        """float64 (n, Z), the same at every call."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            z_nZ: np.ndarray = self.density.sample(torch.Size([count])).numpy()
        return z_nZ


def fit_prior(kind: Kind, mu_NZ: np.ndarray, logvar_NZ: np.ndarray, episode_N: np.ndarray, seed: int) -> Prior:
    """Fit it to draws from the posteriors of frames; `episode_N` says which episode a frame is of."""
    noise = np.random.default_rng(seed).standard_normal(mu_NZ.shape)
    z_NZ = mu_NZ.astype(np.float64) + np.exp(0.5 * logvar_NZ.astype(np.float64)) * noise
    standard = 0.5 * (np.square(z_NZ) + np.log(2 * np.pi)).sum(axis=1).mean()
    nll_N = across_halves(episode_N, partial(_nll, kind, z_NZ, seed))
    found = None if nll_N is None else float(nll_N.mean())
    fit = PriorFit(kind=kind, nll_nats=found, standard_normal_nll_nats=float(standard))
    return Prior(fit, _fitted(kind, z_NZ, seed), nll_N)


def across_halves(episode_N: np.ndarray, score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray | None:
    """The scores of all frames, each by what was fitted to the other half of the episodes: (N,); None for a single episode.

    `score(fitted_N, scored_N)` takes bool arrays (N,) and gives a score for each of the frames to be scored.
    """
    in_second = np.isin(episode_N, np.unique(episode_N)[1::2])
    if min(in_second.sum(), (~in_second).sum()) < 2:
        return None
    scores_N = np.empty(len(episode_N))
    for half in (in_second, ~in_second):
        scores_N[half] = score(~half, half)
    return scores_N


def _nll(kind: Kind, z_NZ: np.ndarray, seed: int, fitted_N: np.ndarray, scored_N: np.ndarray) -> np.ndarray:
    density = _fitted(kind, z_NZ[fitted_N], seed)
    nll: np.ndarray = -density.log_prob(torch.from_numpy(z_NZ[scored_N])).numpy()
    return nll


def _fitted(kind: Kind, z_NZ: np.ndarray, seed: int) -> Distribution:
    if kind == "flow":
        return fit_flow(z_NZ, seed)
    return fit_mixture(z_NZ, max(1, min(COMPONENTS[kind], z_NZ.shape[0] // (FRAMES_PER_VALUE * z_NZ.shape[1]))), seed)
