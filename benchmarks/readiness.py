"""Whether latents are ready for an MDN-RNN: the example's, against three baselines, and against itself on shifted actions.

    python benchmarks/readiness.py --latents runs/quickstart/latents [--mean] [--seeds N] [--steps N]

The example's MDN-RNN is trained in four ways: on the rows of the dataset; with the actions shifted by one row in either
direction; and without actions. It is measured on the rows that it was trained on, and if these are shifted, on the rows of the
dataset too. The transitions (z_t, z_t+1, r_t, d_t) and the draw of the held-out latents are the same for all of these and for
the three baselines. The table is Markdown.

If rows follow the dataset's contract, expect this. Paired with z_t, the action a_t-1 that led to it (as some loaders have it)
is worth less than a_t, which the LSTM then lacks. a_t+1 may be worth as much as a_t: the LSTM remembers a_t from the previous
step, and a policy that looks chose a_t+1 on the frame that is to be forecast, so a_t+1 is informative about that frame.
The worth of a_t depends on the environment. It says little about CarRacing's next frame, 20 ms later. The difference is visible
with 300 episodes, 2,000 steps and mu instead of the draw of z (`--mean`), but not with the quickstart's 40 episodes. With
`held_actions`, both shifts are visible in every measurement.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from _machine import describe_machine

from worldmodel_v.data import LatentSequences
from worldmodel_v.progress import Silent

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from train_mdn_rnn import FIT_WINDOWS, MdnRnn, MdnRnnConfig, Scores, Window, baselines, fit, measure

PAIRINGS = {
    "MDN-RNN": 0,
    "MDN-RNN, beside z_t the action a_t-1": -1,
    "MDN-RNN, beside z_t the action a_t+1": 1,
    "MDN-RNN without actions": None,
}
"""By how many rows the actions are shifted against the latents; None: all actions are zero."""
ALIGNED = "MDN-RNN"


@dataclass(frozen=True)
class Paired:
    """The windows of a `LatentSequences`, with actions shifted by `rows_off` rows.

    They are inside windows that are one row longer at both ends, so that every pairing has the same transitions.
    """

    wider: LatentSequences
    rows_off: int | None

    @property
    def length(self) -> int:
        return self.wider.length - 2

    def __len__(self) -> int:
        return len(self.wider)

    def batch(self, indices: np.ndarray, generator: torch.Generator | None = None) -> Window:
        return self._inside(self.wider.batch(indices, generator))

    def sample_batch(self, batch_size: int, generator: torch.Generator | None = None) -> Window:
        return self._inside(self.wider.sample_batch(batch_size, generator))

    def _inside(self, wider: Window) -> Window:
        first = 1 + (self.rows_off or 0)
        action = wider["action"][:, first : first + self.length]
        window = {name: column[:, 1:-1] for name, column in wider.items()}
        return {**window, "action": torch.zeros_like(action) if self.rows_off is None else action}


def scores(latents: Path, steps: int, sample_z: bool, seed: int, pairing: str) -> dict[str, Scores]:
    """The scores of an MDN-RNN that was trained on one pairing, measured on the same pairing, and if it is shifted, on the rows
    of the dataset too. With the aligned pairing, also the scores of the baselines."""
    torch.set_num_threads(1)
    config = MdnRnnConfig(latents=latents, vae=Path(), out=Path(), steps=steps, seed=seed)
    windows = {"length": config.length + 2, "seed": seed, "holdout_every": config.holdout_every}
    wider = partial(LatentSequences, config.latents, sample=sample_z, **windows)
    train, heldout = (Paired(wider(split=split), PAIRINGS[pairing]) for split in ("train", "held-out"))
    sample = train.sample_batch(FIT_WINDOWS)
    torch.manual_seed(seed)
    model = MdnRnn(sample, train.wider.action_space)
    fit(model, train, config, torch.device("cpu"), Silent())
    others = baselines(sample, model.actions) if pairing == ALIGNED else {}
    found = measure({pairing: model.forecast, **others}, heldout, torch.device("cpu"))
    if PAIRINGS[pairing]:
        as_they_stand = Paired(heldout.wider, PAIRINGS[ALIGNED])
        found |= measure({f"{pairing}; measured beside a_t": model.forecast}, as_they_stand, torch.device("cpu"))
    return found


def table(runs: dict[str, list[Scores]]) -> str:
    """Markdown: a row for each forecast; each cell has the mean, the lowest and the highest value over the seeds."""
    headings = ("forecast", "NLL of the next latent, nats a step", "more than aligned", "reward, MSE", "termination, log-loss")
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for name, seeds in runs.items():
        more = [] if name == ALIGNED else [run.nll - aligned.nll for run, aligned in zip(seeds, runs[ALIGNED], strict=True)]
        columns = [([run.nll for run in seeds], 2), (more, 2), ([run.reward_mse for run in seeds], 3)]
        columns.append(([run.termination_log_loss for run in seeds], 5))
        lines.append(f"| {name} | " + " | ".join(cell(values, digits) for values, digits in columns) + " |")
    return "\n".join(lines)


def cell(values: list[float], digits: int) -> str:
    """Mean (lowest to highest), or only the mean if they are equal."""
    if not values:
        return ""
    mean, low, high = (f"{value:.{digits}f}" for value in (statistics.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=Path, required=True, help="latents with continuous actions that wm-encode wrote")
    parser.add_argument("--mean", action="store_true", help="learn and forecast mu instead of z")
    parser.add_argument("--steps", type=int, default=1000, help="steps of training, for each pairing and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="trainings at once, one core each")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    train = partial(scores, arguments.latents, arguments.steps, not arguments.mean)
    runs: dict[str, list[Scores]] = {}
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(train, *zip(*product(range(arguments.seeds), PAIRINGS), strict=True)):
            for name, its_scores in found.items():
                runs.setdefault(name, []).append(its_scores)
                print(name, its_scores, file=sys.stderr, flush=True)
    what = "mu" if arguments.mean else "z"
    print(f"{describe_machine('torch')}\n{what}, {arguments.steps} steps, {arguments.seeds} seeds\n\n{table(runs)}")


if __name__ == "__main__":
    main()
