"""Checks that actions are in the right rows in real CarRacing, from the environment through collection and encoding.

    python benchmarks/alignment.py --vae runs/quickstart/vae [--episodes N]

Episodes of uniformly random actions are collected and encoded. A shift of one row is visible only if actions are independent:
a driver's action resembles its neighbours, and its effect builds up over several rows of 20 ms. A linear map then forecasts
mu_t+1 from the last four mu and the last two actions, first in the rows of the file, then with the actions shifted by one row
in either direction. The map is fitted in closed form, so only the pairing varies. The means of held-out episodes are compared,
episode by episode.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
from _machine import describe_machine

from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.records import Episode
from worldmodel_v.storage import open_dataset

LATENTS, ACTIONS = 4, 2
"""How many of the last latents and actions the forecast uses."""
ZOOM_IN_ROWS = 60
HOLDOUT_EVERY = 5
PAIRINGS = {"as they stand": 0, "one row late: beside z_t stands a_t-1": -1, "one row early: beside z_t stands a_t+1": 1}


def examples(episode: Episode, rows_off: int) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of the forecast, (n, inputs), and its targets, (n, Z), for every row after the zoom-in."""
    mu, action = episode.mu.astype(np.float64), episode.action.astype(np.float64)
    t = np.arange(ZOOM_IN_ROWS, episode.num_steps - 1)
    latents = [mu[t - back] for back in range(LATENTS)]
    actions = [action[t + rows_off - back] for back in range(ACTIONS)]
    return np.concatenate([*latents, *actions, np.ones((len(t), 1))], axis=1), mu[t + 1]


def heldout_nll(episodes: list[Episode], rows_off: int) -> np.ndarray:
    """The NLL a step, in nats, of each held-out episode under a linear map with Gaussian residuals."""
    pairs = [examples(episode, rows_off) for episode in episodes]
    inputs, targets = (
        np.concatenate(parts) for parts in zip(*(p for i, p in enumerate(pairs) if i % HOLDOUT_EVERY), strict=True)
    )
    weights, *_ = np.linalg.lstsq(inputs, targets, rcond=None)
    sigma_Z = (targets - inputs @ weights).std(axis=0)
    return np.array([gaussian_nll(y - x @ weights, sigma_Z) for i, (x, y) in enumerate(pairs) if i % HOLDOUT_EVERY == 0])


def gaussian_nll(residual_NZ: np.ndarray, sigma_Z: np.ndarray) -> float:
    nll_NZ = 0.5 * np.square(residual_NZ / sigma_Z) + np.log(sigma_Z) + 0.5 * math.log(2 * math.pi)
    return float(nll_NZ.sum(axis=1).mean())


def table(nll: dict[str, np.ndarray]) -> str:
    """Markdown: for each pairing the mean, and by how much it exceeds the first, with the standard error over episodes."""
    lines = ["| actions | NLL of the next mu, nats a step | more than as they stand | standard error |", "|" + "---|" * 4]
    aligned = next(iter(nll.values()))
    for name, of_episodes in nll.items():
        more = of_episodes - aligned
        error = more.std(ddof=1) / math.sqrt(len(more))
        excess = f"{more.mean():+.3f} | {error:.3f}" if more.any() else "|"
        lines.append(f"| {name} | {of_episodes.mean():.3f} | {excess} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vae", type=Path, required=True, help="a VAE of CarRacing that wm-train wrote")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--max-steps", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rollouts, latents = Path(folder, "rollouts"), Path(folder, "latents")
        size = {"episodes": arguments.episodes, "max_steps": arguments.max_steps}
        collect(CollectConfig(out=rollouts, policy="random", workers=0, seed=5, **size))
        encode(EncodeConfig(data=rollouts, vae=arguments.vae, out=latents))
        dataset = open_dataset(latents)
        episodes = [dataset.episode(number) for number in range(dataset.num_episodes)]
    print(f"{describe_machine('torch')}\n{arguments.episodes} episodes of {arguments.max_steps} steps\n")
    print(table({name: heldout_nll(episodes, rows_off) for name, rows_off in PAIRINGS.items()}))


if __name__ == "__main__":
    main()
