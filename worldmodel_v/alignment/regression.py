"""Ridge regression on random features, out of fold, and how its inputs are scaled.

Legend: N rows, D values of an observation, F features of a regression, Y its outputs, all float64.
"""

from collections.abc import Sequence

import numpy as np

FOLDS = 5
PENALTIES = 10.0 ** np.arange(-2, 4)
LANDMARKS = 100


def out_of_fold(inputs: np.ndarray, outputs: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(N, Y): ridge regression's forecasts of each fold by the other folds; for each output, the penalty is that which was
    best on the other folds."""
    if not inputs.shape[1]:
        return np.zeros_like(outputs)
    folds = [fold == number for number in range(FOLDS)]
    squares = [inputs[of].T @ inputs[of] for of in folds]
    products = [inputs[of].T @ outputs[of] for of in folds]
    forecasts = np.empty((len(PENALTIES), *outputs.shape))
    for number, of in enumerate(folds):
        kept = ~of
        mean_in, mean_out, count = inputs[kept].mean(axis=0), outputs[kept].mean(axis=0), kept.sum()
        square = sum(each for i, each in enumerate(squares) if i != number) - count * np.outer(mean_in, mean_in)
        product = sum(each for i, each in enumerate(products) if i != number) - count * np.outer(mean_in, mean_out)
        values, vectors = np.linalg.eigh(square)
        turned, at = vectors.T @ product, (inputs[of] - mean_in) @ vectors
        for i, penalty in enumerate(PENALTIES):
            forecasts[i, of] = mean_out + at @ (turned / (np.maximum(values, 0) + penalty)[:, None])
    errors = np.stack([np.square(forecasts[:, of] - outputs[of]).sum(axis=1) for of in folds])
    chosen = np.empty_like(outputs)
    for number, of in enumerate(folds):
        best = (errors.sum(axis=0) - errors[number]).argmin(axis=0)
        chosen[of] = forecasts[best, :, np.arange(outputs.shape[1])].T[of]
    return chosen


def expanded(inputs: np.ndarray) -> np.ndarray:
    """(N, F): the inputs, and a Nyström approximation of a Gaussian kernel whose width is the landmarks' median distance."""
    landmarks = inputs[np.random.default_rng(1).choice(len(inputs), min(LANDMARKS, len(inputs)), replace=False)]
    between = _squared_distances(landmarks, landmarks)
    apart = between[between > 1e-9]
    width = np.median(apart) if len(apart) else 1.0
    values, vectors = np.linalg.eigh(np.exp(-between / width))
    kept = values > 1e-5 * values.max()
    kernel = np.exp(-_squared_distances(inputs, landmarks) / width)
    return np.concatenate([inputs, kernel @ (vectors[:, kept] / np.sqrt(values[kept]))], axis=1)


def _squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    distances = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1) - 2 * left @ right.T
    return np.maximum(distances, 0)


def joined(groups: Sequence[np.ndarray]) -> np.ndarray:
    """(N, F): every value standardized and clipped at five deviations, each group scaled to the same weight."""
    parts = []
    for group in groups:
        deviation = group.std(axis=0)
        kept = deviation > 1e-6 * max(deviation.max(initial=0.0), 1e-6)
        part = np.clip((group[:, kept] - group[:, kept].mean(axis=0)) / deviation[kept], -5, 5)
        parts.append(part / np.sqrt(max(1, part.shape[1])))
    return np.concatenate(parts, axis=1)


def principal(values: np.ndarray, count: int) -> np.ndarray:
    """(D, at most count): the directions in which values (N, D) vary most."""
    centred = values - values.mean(axis=0)
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = np.argsort(variances)[::-1][:count]
    return vectors[:, kept[variances[kept] > 1e-6 * max(variances.max(), 1e-12)]]


def standardized(columns: list[np.ndarray]) -> list[np.ndarray]:
    """Values in standard deviations, without those that are constant."""
    together = np.concatenate(columns)
    mean, deviation = together.mean(axis=0), together.std(axis=0)
    kept = deviation > 1e-9
    return [(each[:, kept] - mean[kept]) / deviation[kept] for each in columns]


def clipped(columns: list[np.ndarray]) -> list[np.ndarray]:
    """Values clipped at their 2nd and 98th percentile, if these differ: what comes once an episode hides the rest."""
    low, high = np.percentile(np.concatenate(columns), [2, 98])
    return [np.clip(each, low, high) for each in columns] if low < high else columns
