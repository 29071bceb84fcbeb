"""Anomalies: frames that the VAE reconstructs far worse than the rest.

Legend: N frames.

A VAE learns what frames usually look like, so a large reconstruction error says that a frame is unusual (An & Cho 2015).
"""

from dataclasses import dataclass

import numpy as np

THRESHOLD = 3.0
NUM_SHOWN = 10
APART = 10
"""Least distance in rows between two reported frames of an episode, because neighbours are nearly equal."""


@dataclass(frozen=True, kw_only=True)
class Anomaly:
    """A frame with an unusually large error."""

    episode: int
    row: int
    squared_error: float
    z_score: float
    """Standard deviations of the error above its mean over all frames."""

    index: int
    """Its place among the evaluated frames."""


@dataclass(frozen=True, kw_only=True)
class Anomalies:
    """The distribution of errors, and the worst frames."""

    mean_error: float
    std_error: float
    num_above_threshold: int
    """Frames whose z-score is above 3; for a normal distribution, one in 741."""

    standing_out: list[Anomaly]
    """The largest errors first, at least 10 rows apart within an episode."""


def find_anomalies(squared_error_N: np.ndarray, episode_N: np.ndarray, row_N: np.ndarray) -> Anomalies:
    """Score every frame by its reconstruction error; equal errors have a score of 0."""
    mean, std = float(squared_error_N.mean()), float(squared_error_N.std())
    scores_N = (squared_error_N - mean) / std if std > 0 else np.zeros_like(squared_error_N)
    picked: list[int] = []
    for index in map(int, np.argsort(-squared_error_N, kind="stable")):
        near = [i for i in picked if episode_N[i] == episode_N[index] and abs(row_N[i] - row_N[index]) < APART]
        if not near:
            picked.append(index)
        if len(picked) == NUM_SHOWN:
            break
    return Anomalies(
        mean_error=mean,
        std_error=std,
        num_above_threshold=int((scores_N > THRESHOLD).sum()),
        standing_out=[
            Anomaly(
                episode=int(episode_N[i]),
                row=int(row_N[i]),
                squared_error=float(squared_error_N[i]),
                z_score=float(scores_N[i]),
                index=i,
            )
            for i in picked
        ],
    )
