"""A distribution of latents that is fitted after training, so that samples from it look like frames.

Training brings a VAE's latents near N(0, I), and no nearer than the weight of its KL asks for. Where they lie in fact is
q(z) = E_x[q(z|x)], which draws z ~ q(z|x) for recorded frames show. A density that is fitted to these draws gives
better samples: a Gaussian with full covariance, or a mixture of ten (Ghosh et al. 2020, arXiv:1903.12436, section 4).

How well it fits is told by the negative log-likelihood of latents from other episodes: it is fitted to half of the held-out
episodes and scored on the other half, both ways.

Legend: N frames, n samples, Z latent.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["full-covariance", "mixture"]

COMPONENTS = {"full-covariance": 1, "mixture": 10}
FRAMES_PER_VALUE = 20
"""A component has a covariance of Z x Z values, so it needs so many frames for each of the Z: with fewer, there are fewer."""

SMALLEST_VARIANCE = 1e-4


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
    mixture: Any
    """scikit-learn's `GaussianMixture`."""

    def sample(self, count: int) -> np.ndarray:
        """float64 (n, Z), in random order."""
        z_nZ: np.ndarray = self.mixture.sample(count)[0]
        return np.random.default_rng(0).permutation(z_nZ)


def fit_prior(kind: Kind, mu_NZ: np.ndarray, logvar_NZ: np.ndarray, episode_N: np.ndarray, seed: int) -> Prior:
    """Fit it to draws from the posteriors of frames; `episode_N` says which episode a frame is of."""
    noise = np.random.default_rng(seed).standard_normal(mu_NZ.shape)
    z_NZ = mu_NZ.astype(np.float64) + np.exp(0.5 * logvar_NZ.astype(np.float64)) * noise
    standard = 0.5 * (np.square(z_NZ) + np.log(2 * np.pi)).sum(axis=1).mean()
    fit = PriorFit(kind=kind, nll_nats=_nll(kind, z_NZ, episode_N, seed), standard_normal_nll_nats=float(standard))
    return Prior(fit, _fitted(kind, z_NZ, seed))


def _nll(kind: Kind, z_NZ: np.ndarray, episode_N: np.ndarray, seed: int) -> float | None:
    """Of each half of the episodes under the fit to the other half."""
    in_second = np.isin(episode_N, np.unique(episode_N)[1::2])
    halves = [z_NZ[~in_second], z_NZ[in_second]]
    if min(map(len, halves)) < 2:
        return None
    scores = [_fitted(kind, halves[1 - i], seed).score_samples(half) for i, half in enumerate(halves)]
    return -float(np.concatenate(scores).mean())


def _fitted(kind: Kind, z_NZ: np.ndarray, seed: int) -> Any:
    from sklearn.mixture import GaussianMixture

    components = max(1, min(COMPONENTS[kind], z_NZ.shape[0] // (FRAMES_PER_VALUE * z_NZ.shape[1])))
    mixture = GaussianMixture(components, reg_covar=SMALLEST_VARIANCE, init_params="k-means++", random_state=seed)
    with warnings.catch_warnings(action="ignore"):  # that it has not converged, which its likelihood shows
        return mixture.fit(z_NZ)
