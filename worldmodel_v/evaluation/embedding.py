"""A map of the latents: t-SNE (van der Maaten & Hinton 2008), which places neighbours in latent space near each other.

Legend: N frames, n points of the map, Z latent.
"""

import numpy as np

from worldmodel_v.evaluation.disentangle import correlations
from worldmodel_v.evenly import evenly_spaced

MAX_POINTS = 2000
PERPLEXITY = 30.0
NEIGHBOURS = 5


def choose_points(count: int) -> np.ndarray:
    """Which frames are on the map, evenly spaced: int (n,), at most 2,000."""
    return evenly_spaced(count, MAX_POINTS)


def embed(mu_nZ: np.ndarray, seed: int) -> np.ndarray:
    """Positions on the map: float32 (n, 2), a function of mu and the seed. Needs 10 frames that are not all identical."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(mu_nZ) - 1) / 3)
    initial = np.random.default_rng(seed).normal(scale=1e-4, size=(len(mu_nZ), 2)).astype(np.float32)
    leading = _principal_components(mu_nZ)
    initial[:, : leading.shape[1]] += leading
    return TSNE(perplexity=perplexity, init=initial, random_state=seed).fit_transform(mu_nZ.astype(np.float32))


def _principal_components(mu_nZ: np.ndarray) -> np.ndarray:
    """The first two, with the small scale that t-SNE starts from: float32 (n, min(2, Z)).

    This start keeps distant points apart (Kobak & Berens 2019). The signs of the axes are fixed, so maps are equal everywhere.
    """
    centred = mu_nZ - mu_nZ.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2].sum(axis=1, keepdims=True) + 1e-12)
    found = centred @ axes.T
    return (found / max(found.std(), 1e-12) * 1e-4).astype(np.float32)


def neighbour_agreement(places_n2: np.ndarray, values: np.ndarray) -> float:
    """Pearson's correlation of a value with its mean over the 5 nearest neighbours on the map: 1 ordered, 0 mixed.

    The values are (n,), or (n, K), of which all columns count together: an angle has two, its cosine and sine.
    """
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(places_n2).kneighbors(places_n2, return_distance=False)
    means = values[neighbours[:, 1:]].mean(axis=1)
    here, around = (np.ravel(columns - columns.mean(axis=0))[:, None] for columns in (values, means))
    return float(correlations(here, around)[0, 0])
