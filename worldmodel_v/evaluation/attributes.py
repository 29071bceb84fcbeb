"""Directions in the latent space along which one factor of the world changes, and frames edited along them.

A linear regression predicts a factor from mu (only from its active latents: the others would only fit noise). Its weights w
are not the direction of editing: latents are correlated, and along w there are latents that no frame has, from which the
decoder draws nothing useful. So frames are edited along C w, with C the covariance of mu: the difference between frames with
a high and with a low predicted factor (Haufe et al. 2014, doi:10.1016/j.neuroimage.2013.10.067). One step changes the
prediction by its own standard deviation, so that edited frames stay similar to real ones.

Legend: N frames, n frames to edit, m steps, Z latent.
"""

from dataclasses import dataclass

import numpy as np

from worldmodel_v.evaluation.disentangle import correlations
from worldmodel_v.evaluation.factors import Factors

NUM_EDITS = 3
MIN_R2 = 0.3
STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Positions along the direction, in steps."""

SAME = 0.9
"""Factors that correlate more than this are one attribute: only one of the four wheels' speeds is edited."""


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A linear regression of a factor on the latents."""

    factor: str

    r2: float
    """Share of the variance explained on every second episode, fitted on the others; negative if worse than the mean."""

    change_per_sigma: float
    """The change of the predicted factor by one step, in its unit: the prediction's standard deviation."""

    weights: list[float]
    """(Z,): the weights of the regression."""

    direction: list[float]
    """(Z,): one step."""

    achieved: float | None = None
    """`achieved_share` of edited frames; None if it was not edited."""


def fit_attributes(mu_NZ: np.ndarray, active_Z: np.ndarray, factors: Factors, episode_N: np.ndarray) -> list[Attribute]:
    """A regression for every factor, the best predicted first; empty if no latent is active."""
    if not active_Z.any():
        return []
    half_N = _halves(episode_N)
    found = [_fit(mu_NZ.astype(np.float64), active_Z, factors[name], half_N, name) for name in factors.names]
    return sorted(found, key=lambda attribute: -attribute.r2)


def choose_edits(attributes: list[Attribute], factors: Factors) -> list[Attribute]:
    """The few best predicted attributes, at most one of similar ones; equal R² (to 0.1) in the order of `factors`."""
    chosen: list[Attribute] = []
    for attribute in sorted(attributes, key=lambda item: (-round(item.r2, 1), factors.names.index(item.factor))):
        alike = [abs(correlations(factors[other.factor][:, None], factors[attribute.factor][:, None])) for other in chosen]
        if attribute.r2 >= MIN_R2 and not any(value > SAME for value in alike):
            chosen.append(attribute)
    return chosen[:NUM_EDITS]


def edit(z_nZ: np.ndarray, attribute: Attribute) -> np.ndarray:
    """Each latent moved by -2 to 2 steps: (n, m, Z)."""
    return z_nZ[:, None] + np.array(STEPS)[None, :, None] * np.array(attribute.direction)


def achieved_share(edited_nmZ: np.ndarray, found_nmZ: np.ndarray, attribute: Attribute) -> float:
    """The share of the intended change of the factor that is predicted from the edited frames after encoding them again.

    1: the decoder drew the whole change; 0: it drew none of it. From the two outermost steps, averaged over frames.
    """
    weights = np.array(attribute.weights)
    asked, found = ((points[:, -1] - points[:, 0]) @ weights for points in (edited_nmZ, found_nmZ))
    return float(found.mean() / asked.mean())


def _fit(mu_NZ: np.ndarray, active_Z: np.ndarray, values_N: np.ndarray, half_N: np.ndarray, name: str) -> Attribute:
    known, unknown = half_N, ~half_N
    centre, weights = _regress(mu_NZ[known][:, active_Z], values_N[known])
    predicted = values_N[known].mean() + (mu_NZ[unknown][:, active_Z] - centre) @ weights
    spread = ((values_N[unknown] - values_N[unknown].mean()) ** 2).sum()
    r2 = 1.0 - float(((values_N[unknown] - predicted) ** 2).sum() / spread) if spread > 0 else 0.0

    weights = np.zeros(mu_NZ.shape[1])
    weights[active_Z] = _regress(mu_NZ[:, active_Z], values_N)[1]
    centred = mu_NZ - mu_NZ.mean(axis=0)
    prediction = centred @ weights
    sigma = float(prediction.std())
    direction = centred.T @ prediction / (len(mu_NZ) * sigma) if sigma > 0 else weights
    return Attribute(factor=name, r2=r2, change_per_sigma=sigma, weights=weights.tolist(), direction=direction.tolist())


def _regress(mu_NZ: np.ndarray, values_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The centre of mu and the weights of a least-squares fit."""
    centre = mu_NZ.mean(axis=0)
    weights, *_ = np.linalg.lstsq(mu_NZ - centre, values_N - values_N.mean(), rcond=None)
    return centre, weights


def _halves(episode_N: np.ndarray) -> np.ndarray:
    """Every second episode; of a single episode its first half: bool (N,)."""
    episodes, number = np.unique(episode_N, return_inverse=True)
    return number % 2 == 0 if len(episodes) > 1 else np.arange(len(episode_N)) < len(episode_N) // 2
