"""What LeRobot records about each feature: smallest, largest, mean, standard deviation, count and five quantiles.

An episode has those of its own rows, exactly. For the whole dataset they are put together as LeRobot does it: all exactly but
the quantiles, which become bounds: the smallest of the episodes' up to the median, and the largest above it.

Legend: N rows, D values of a row, C channels.
"""

from typing import Any

import numpy as np

Stats = dict[str, np.ndarray]

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def of_rows(rows: np.ndarray) -> Stats:
    """(N,) or (N, …, D) -> float64 (1,) or (D,) each; `count` is int64 (1,), N."""
    values = rows.reshape(-1, rows.shape[-1] if rows.ndim > 1 else 1).astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        **{"min": values.min(axis=0), "max": values.max(axis=0), "mean": values.mean(axis=0), "std": values.std(axis=0)},
        "count": np.array([len(rows)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def of_frames(frames: np.ndarray) -> Stats:
    """uint8 (N, H, W, C) -> float64 (C, 1, 1) each, of values from 0 to 1; `count` is int64 (1,), N."""
    levels = np.stack([np.bincount(frames[..., channel].ravel(), minlength=256) for channel in range(frames.shape[-1])])
    stats = [_of_levels(counts) for counts in levels]
    found = {name: np.array([each[name] for each in stats]).reshape(-1, 1, 1) for name in stats[0]}
    return found | {"count": np.array([len(frames)])}


def _of_levels(counts: np.ndarray) -> dict[str, float]:
    """How often each of the levels 0 to 255 occurs -> the statistics of the values, as shares of 255."""
    present, values, up_to = np.flatnonzero(counts), np.arange(256) / 255, np.cumsum(counts)
    mean = float(values @ counts / up_to[-1])
    return {
        **{"min": values[present[0]], "max": values[present[-1]], "mean": mean},
        "std": float(np.sqrt((values - mean) ** 2 @ counts / up_to[-1])),
        **{name: values[np.searchsorted(up_to, share * up_to[-1])] for name, share in QUANTILES.items()},
    }


def together(one: Stats, other: Stats) -> Stats:
    """The statistics of the rows of both."""
    count = one["count"] + other["count"]
    share = other["count"][0] / count[0]
    step = other["mean"] - one["mean"]
    variance = one["std"] ** 2 * (1 - share) + other["std"] ** 2 * share + step**2 * share * (1 - share)
    bounds = {name: np.minimum(one[name], other[name]) for name in ("min", "q01", "q10", "q50")}
    bounds |= {name: np.maximum(one[name], other[name]) for name in ("max", "q90", "q99")}
    return {**bounds, "mean": one["mean"] + step * share, "std": np.sqrt(variance), "count": count}


def stats_of(rows: dict[str, np.ndarray], image: str) -> dict[str, Stats]:
    """The statistics of each feature of an episode; `image` names the frames."""
    return {name: of_frames(part) if name == image else of_rows(part) for name, part in rows.items()}


class WholeStats:
    """The statistics of all episodes so far."""

    def __init__(self) -> None:
        self.stats: dict[str, Stats] = {}

    def add(self, episode: dict[str, Stats]) -> None:
        """Add those of an episode."""
        self.stats = {name: together(self.stats[name], part) for name, part in episode.items()} if self.stats else episode


def listed(stats: dict[str, Stats]) -> dict[str, dict[str, list[Any]]]:
    """The statistics as JSON has them."""
    return {name: {kind: value.tolist() for kind, value in part.items()} for name, part in stats.items()}


def flat(stats: dict[str, Stats]) -> dict[str, list[Any]]:
    """The statistics as columns of an episode: stats/FEATURE/KIND."""
    return {f"stats/{name}/{kind}": value for name, part in listed(stats).items() for kind, value in part.items()}
