"""Whether single latents encode single factors of the world: SAP and MIG against the recorded `state`.

Legend: N frames, S factors, Z latents.

- SAP (Kumar et al. 2018, arXiv:1711.00848): for each factor, the R² of a linear regression on its best single latent, minus
  the R² of the second best; averaged over factors.
- MIG (Chen et al. 2018, arXiv:1802.04942): for each factor, the mutual information with its best latent, minus that with the
  second best, divided by the factor's entropy; averaged over factors. mu and continuous factors are cut into 20 bins of equal
  width, as in Locatello et al. 2019 (arXiv:1811.12359).

Both are 1 if exactly one latent encodes each factor, and 0 if two latents encode it equally well, or no latent does.

An angle has no end, so its R² with a latent is that of the latent's regression on the angle's cosine and sine (Mardia 1976,
doi:10.2307/2335637), which does not depend on where the angle begins.
"""

from dataclasses import dataclass

import numpy as np

from worldmodel_v.evaluation.factors import ANGLE, Factors, without_end

NUM_BINS = 20


@dataclass(frozen=True, kw_only=True)
class FactorScore:
    """How well latents encode one factor."""

    factor: str
    latent: int
    """The latent that predicts it best, linearly."""

    r2: float
    """Share of the factor's variance that this latent alone explains."""

    sap: float
    """R² of the best latent minus that of the second best."""

    mig_latent: int
    """The latent with the largest mutual information."""

    mig: float
    """Mutual information with the best latent minus that with the second best, divided by the factor's entropy."""


@dataclass(frozen=True, kw_only=True)
class TopFactor:
    """The factor that one latent correlates with most."""

    factor: str
    correlation: float
    """Pearson's, with its sign; of an angle the root of its R², without one."""

    @property
    def strength(self) -> str:
        """The correlation in digits."""
        return f"{self.correlation:{'.2f' if self.factor == ANGLE else '+.2f'}}"


@dataclass(frozen=True, kw_only=True)
class Disentanglement:
    """SAP and MIG, with the scores of each factor."""

    sap: float
    mig: float
    factors: list[FactorScore]
    """In the order of the recorded state."""

    top_factors: list[TopFactor]
    """One for each latent."""


def disentangle(mu_NZ: np.ndarray, factors: Factors) -> Disentanglement:
    """Compare latents with factors. With a single latent, the second best counts as 0."""
    correlation_SZ = _factor_correlations(factors, mu_NZ)
    r2_SZ = correlation_SZ**2
    information_SZ, entropy_S = _information(factors.values, mu_NZ)
    sap_S = _gap(r2_SZ)
    mig_S = _gap(information_SZ) / entropy_S
    scores = [
        FactorScore(
            factor=name,
            latent=int(r2_SZ[i].argmax()),
            r2=float(r2_SZ[i].max()),
            sap=float(sap_S[i]),
            mig_latent=int(information_SZ[i].argmax()),
            mig=float(mig_S[i]),
        )
        for i, name in enumerate(factors.names)
    ]
    best_Z = np.abs(correlation_SZ).argmax(axis=0)
    tops = [TopFactor(factor=factors.names[i], correlation=float(correlation_SZ[i, z])) for z, i in enumerate(best_Z)]
    return Disentanglement(sap=float(sap_S.mean()), mig=float(mig_S.mean()), factors=scores, top_factors=tops)


def _factor_correlations(factors: Factors, mu_NZ: np.ndarray) -> np.ndarray:
    correlation_SZ = correlations(factors.values, mu_NZ)
    if ANGLE in factors:
        columns_N2 = without_end(ANGLE, factors[ANGLE])
        correlation_SZ[factors.names.index(ANGLE)] = _circular_correlation(columns_N2, mu_NZ)
    return correlation_SZ


def _circular_correlation(columns_N2: np.ndarray, mu_NZ: np.ndarray) -> np.ndarray:
    """The multiple correlation of each latent with the cosine and sine of an angle: (Z,), from 0 to 1."""
    cosine_Z, sine_Z = correlations(columns_N2, mu_NZ)
    between = float(correlations(columns_N2[:, :1], columns_N2[:, 1:])[0, 0])
    if between**2 > 1.0 - 1e-9:  # an angle of only two values
        return np.maximum(np.abs(cosine_Z), np.abs(sine_Z))
    r2_Z = (cosine_Z**2 + sine_Z**2 - 2 * cosine_Z * sine_Z * between) / (1.0 - between**2)
    return np.sqrt(np.clip(r2_Z, 0.0, 1.0))


def correlations(left_NA: np.ndarray, right_NB: np.ndarray) -> np.ndarray:
    """Pearson's correlation of every column of one with every column of the other: (A, B); 0 if one of them is constant.

    Its square is the R² of the linear regression of one on the other.
    """
    left, right = (_standardised(columns) for columns in (left_NA, right_NB))
    return np.clip(left.T @ right / len(left), -1.0, 1.0)


def _standardised(columns: np.ndarray) -> np.ndarray:
    centred = columns.astype(np.float64) - columns.mean(axis=0, dtype=np.float64)
    scale = centred.std(axis=0)
    return centred / np.where(scale > 1e-12, scale, np.inf)


def _information(factors_NS: np.ndarray, mu_NZ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mutual information of every factor with every latent, (S, Z), and each factor's entropy, (S,), in nats."""
    from sklearn.metrics import mutual_info_score

    latents = [binned(column) for column in mu_NZ.T]
    classes = [binned(column) for column in factors_NS.T]
    information = [[mutual_info_score(factor, latent) for latent in latents] for factor in classes]
    return np.array(information), np.array([mutual_info_score(factor, factor) for factor in classes])


def binned(values_N: np.ndarray) -> np.ndarray:
    """Classes of values: up to 20 distinct values unchanged, more cut into 20 bins of equal width: int (N,)."""
    distinct, classes = np.unique(values_N, return_inverse=True)
    if len(distinct) <= NUM_BINS:
        return classes
    edges = np.linspace(distinct[0], distinct[-1], NUM_BINS + 1)[1:-1]
    return np.digitize(values_N, edges)


def _gap(scores_SZ: np.ndarray) -> np.ndarray:
    """The best minus the second best of each row: (S,)."""
    second, best = np.sort(np.pad(scores_SZ, ((0, 0), (1, 0))), axis=1)[:, -2:].T
    return best - second
