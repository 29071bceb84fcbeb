"""Anomalies: frames that the autoencoder reconstructs far worse than the rest, and frames with unlikely latents.

Legend: N frames.

An autoencoder learns what frames usually look like, so a large reconstruction error says that a frame is unusual (An & Cho
2015). A frame may also be drawn well and yet be unlike those of other episodes: then a prior that is fitted to these finds its
latent unlikely.
"""

from dataclasses import dataclass

import numpy as np

THRESHOLD = 3.0
NUM_SHOWN = 10
APART = 10
"""Least distance in rows between two reported frames of an episode, because neighbours are nearly equal."""


@dataclass(frozen=True, kw_only=True)
class Anomaly:
    """A frame that stands out."""

    episode: int
    row: int
    value: float
    """Its sum of squared errors, or its negative log-likelihood."""

    z_score: float
    """Standard deviations of the value above its mean over all frames."""

    index: int
    """Its place among the evaluated frames."""


@dataclass(frozen=True, kw_only=True)
class Anomalies:
    """The distribution of values, and the worst frames."""

    mean: float
    std: float
    num_above_threshold: int
    """Frames whose z-score is above 3; for a normal distribution, one in 741."""

    standing_out: list[Anomaly]
    """The largest values first, at least 10 rows apart within an episode."""


def find_anomalies(value_N: np.ndarray, episode_N: np.ndarray, row_N: np.ndarray) -> Anomalies:
    """Score every frame by a value of which much is unusual; equal values have a score of 0."""
    mean, std = float(value_N.mean()), float(value_N.std())
    scores_N = (value_N - mean) / std if std > 0 else np.zeros_like(value_N)
    picked: list[int] = []
    for index in map(int, np.argsort(-value_N, kind="stable")):
        near = [i for i in picked if episode_N[i] == episode_N[index] and abs(row_N[i] - row_N[index]) < APART]
        if not near:
            picked.append(index)
        if len(picked) == NUM_SHOWN:
            break
    return Anomalies(
        mean=mean,
        std=std,
        num_above_threshold=int((scores_N > THRESHOLD).sum()),
        standing_out=[
            Anomaly(
                episode=int(episode_N[i]),
                row=int(row_N[i]),
                value=float(value_N[i]),
                z_score=float(scores_N[i]),
                index=i,
            )
            for i in picked
        ],
    )
