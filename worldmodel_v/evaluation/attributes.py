"""Directions in the latent space along which one factor of the world changes, and frames edited along them.

A linear regression predicts a factor from mu (only from its active latents: the others would only fit noise). Its weights w
are not the direction of editing: latents are correlated, and along w there are latents that no frame has, from which the
decoder draws nothing useful. So frames are edited along C w, with C the covariance of mu: the difference between frames with
a high and with a low predicted factor (Haufe et al. 2014, doi:10.1016/j.neuroimage.2013.10.067). One step changes the
prediction by its own standard deviation, so that edited frames stay similar to real ones.

Of an angle, cosine and sine are predicted, and R² is that of both together. It has no direction along which it grows without
end, so it is not edited.

Legend: N frames, n frames to edit, m steps, Z latent.
"""

from dataclasses import dataclass

import numpy as np

from worldmodel_v.evaluation.disentangle import correlations
from worldmodel_v.evaluation.factors import ANGLE, Factors, without_end

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

    rms_error: float
    """The root mean square error on these episodes, in the factor's unit; of an angle the shorter way round, in radians."""

    change_per_sigma: float
    """The change of the predicted factor by one step, in its unit: the prediction's standard deviation; 0 for an angle."""

    weights: list[float]
    """(Z,): the weights of the regression; this and `direction` are empty for an angle."""

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
        if attribute.factor != ANGLE and attribute.r2 >= MIN_R2 and not any(value > SAME for value in alike):
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
    r2, rms_error = _tested(mu_NZ[:, active_Z], values_N, half_N, name)
    if name == ANGLE:
        return Attribute(factor=name, r2=r2, rms_error=rms_error, change_per_sigma=0.0, weights=[], direction=[])
    weights = np.zeros(mu_NZ.shape[1])
    weights[active_Z] = _regress(mu_NZ[:, active_Z], values_N)[1]
    centred = mu_NZ - mu_NZ.mean(axis=0)
    prediction = centred @ weights
    sigma = float(prediction.std())
    direction = centred.T @ prediction / (len(mu_NZ) * sigma) if sigma > 0 else weights
    return Attribute(
        factor=name,
        r2=r2,
        rms_error=rms_error,
        change_per_sigma=sigma,
        weights=weights.tolist(),
        direction=direction.tolist(),
    )


def _tested(mu_NZ: np.ndarray, values_N: np.ndarray, known_N: np.ndarray, name: str) -> tuple[float, float]:
    """R² and error on the frames that are not known, of a regression on those that are."""
    compared = without_end(name, values_N)
    actual = compared[~known_N]
    centre, weights = _regress(mu_NZ[known_N], compared[known_N])
    predicted = compared[known_N].mean(axis=0) + (mu_NZ[~known_N] - centre) @ weights
    spread = ((actual - actual.mean(axis=0)) ** 2).sum()
    r2 = 1.0 - float(((actual - predicted) ** 2).sum() / spread) if spread > 0 else 0.0
    error = predicted - actual
    if name == ANGLE:
        error = np.arctan2(predicted[:, 1], predicted[:, 0]) - values_N[~known_N]
        error = np.arctan2(np.sin(error), np.cos(error))
    return r2, float(np.sqrt((error**2).mean()))


def _regress(mu_NZ: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The centre of mu and the weights of a least-squares fit: of (N,) values (Z,), of (N, K) ones (Z, K)."""
    centre = mu_NZ.mean(axis=0)
    weights, *_ = np.linalg.lstsq(mu_NZ - centre, values - values.mean(axis=0), rcond=None)
    return centre, weights


def _halves(episode_N: np.ndarray) -> np.ndarray:
    """Every second episode; of a single episode its first half: bool (N,)."""
    episodes, number = np.unique(episode_N, return_inverse=True)
    return number % 2 == 0 if len(episodes) > 1 else np.arange(len(episode_N)) < len(episode_N) // 2
