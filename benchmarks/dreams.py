"""Which autoencoder to dream with: what each recipe's latents hold of CarRacing, and how far a dynamics model follows them.

    python benchmarks/dreams.py --out runs/dreams [--recipes NAME ...] [--seeds N] [--frames N] [--steps N] [--dynamics-steps N]
    python benchmarks/dreams.py --out runs/dreams --report

The defaults are the full study, which takes many hours on two cores. Every recipe and seed adds a line to OUT/results.jsonl
when it is done. Stopped at any time, the same command continues: it skips what has its line, and a training goes on from its
checkpoint. The tables are made from that file alone, at the end, or at any time with --report. A directory has one budget.

All recipes have the same frames, order, steps and batches, and every fifth episode is held out. Vectors have 32 numbers a
frame, except the controls of size, which are named for theirs. Tokens are compared by the bits of a frame. Figures:

- PSNR, SSIM, and small things (`_small_things.py`), on held-out frames after the zoom-in, decoded from mu or tokens.
- Rate: the KL in nats; for tokens, the entropy of the codes at each place, also in nats.
- Probe: R² of ridge regression from mu, or from what the decoder gets for the tokens, to the car's place on the road
  (`_road.py`): fitted on the training episodes, measured on the others, on rows near the road. "probe R²" is the mean over the
  road's three variables. Steering is apart: a frame shows it in two pixels. "R² of draws" is the same from draws of z, as a
  dynamics model learns from them: it may be far lower, as noise hides what lies in numbers of small spread.
- Dreams (`_dreaming.py`): from 16 real latents on, with the recorded actions. A probe that was fitted to draws reads the road
  off each expected latent, averaged over four dreams. The error is relative to the true state, in standard deviations of each
  variable, root mean square over starts and variables. The horizon is the number of steps before it exceeds --threshold.
  "known steps" is the share of variance that dreams know, 1 - error² / error² of the mean, summed over their steps: it needs no
  threshold.
  Rejected: the distance from the reading of the real latents, by which latents that know nothing would never drift. "error of
  real latents" is that of this reading. "latent stays" is the horizon if the last real latent is read at every step.
- NLL: nats a frame that the dynamics model gains over a fitted density that knows nothing of the past, and over one in which
  nothing moves. Recipes differ in what is forecast (draws of z, tokens), so they compare within a kind.
- Cost: processor time of encoding a frame, in one thread; bytes as wm-encode stores them.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import torch
from _machine import describe_machine
from _quickstart import quickstart_policy
from _study_measures import (
    ENV,
    HOLDOUT_EVERY,
    HORIZON,
    dream_figures,
    held_out_sample,
    microseconds_a_frame,
    picture_figures,
    storage,
)
from _study_results import (
    THRESHOLD,
    append_result,
    by_recipe,
    contents_table,
    dreams_table,
    is_done,
    read_results,
    together_table,
)
from recipes import RECIPES as PUBLISHED

from worldmodel_v.autoencoders import load
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.errors import WorldModelError
from worldmodel_v.training import train, train_config

EPISODE_STEPS = 300

RECIPES: dict[str, dict[str, Any]] = {
    "ha2018": PUBLISHED["ha2018"],
    "ha2018, calibrated": PUBLISHED["ha2018-calibrated"],
    "conv": {"architecture": "conv"},
    "mlp": {"architecture": "mlp"},
    "resnet (default)": {},
    "resnet, beta 0.25": {"beta": 0.25},
    "resnet, squared errors": {"likelihood": "gaussian"},
    "resnet, sigma 0.1": {"likelihood": "gaussian", "sigma": 0.1},
    "resnet, free bits 0.5": {"likelihood": "gaussian", "free_bits": 0.5},
    "resnet, bernoulli": {"likelihood": "bernoulli"},
    "resnet, weight by error": {"error_weight": "error"},
    "resnet, weight by gradient": {"error_weight": "gradient"},
    "resnet, adversarial 0.5": {"adversarial": 0.5},
    "size control: Z 16": {"latent_dim": 16},
    "size control: Z 64": {"latent_dim": 64},
    "fsq": {"autoencoder": "fsq"},
    "vq": {"autoencoder": "vq"},
    "vq, weight by error": {"autoencoder": "vq", "error_weight": "error"},
    "categorical": {"autoencoder": "categorical"},
}
"""Settings of `wm-train` by recipe; all others have their defaults, but for the annealing of the KL, which takes a fifth of the
steps where the recipe says nothing of it."""


def rollouts(out: Path, frames: int) -> Path:
    """CarRacing under the mixture of the quickstart's policies."""
    config = {"env": ENV, "policy": quickstart_policy(), "max_steps": EPISODE_STEPS, "workers": 0, "episodes_per_shard": 5}
    collect(CollectConfig(out=out, episodes=-(-frames // EPISODE_STEPS), **config))
    return out


def trained(data: Path, out: Path, settings: dict[str, Any], seed: int, budget: dict[str, int]) -> Path:
    """The autoencoder of a recipe."""
    kind = settings.get("autoencoder", "gaussian")
    annealing = {"beta_warmup_steps": budget["steps"] // 5} if kind == "gaussian" else {}
    common = {"steps": budget["steps"], "batch_size": budget["batch size"], "holdout_every": HOLDOUT_EVERY}
    train(train_config(kind)(data=data, out=out, seed=seed, device="cpu", **{**common, **annealing, **settings}))
    return out


def require_budget(out: Path, budget: dict[str, int]) -> None:
    """Raise SystemExit if what lies in the directory was made with another budget."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "budget.json"
    there = json.loads(file.read_text()) if file.exists() else budget
    if there != budget:
        raise SystemExit(f"{out} has the budget {there}, asked is {budget}: give another --out")
    file.write_text(json.dumps(budget))


def study(name: str, seed: int, data: Path, out: Path, budget: dict[str, int]) -> dict[str, Any]:
    """The line of one recipe and seed."""
    start = time.perf_counter()
    vae = trained(data, out / "vae", RECIPES[name], seed, budget)
    encode(EncodeConfig(data=data, vae=vae, out=out / "latents", device="cpu"))
    model = load(vae).model
    sample = held_out_sample(data, model)
    words, size = storage(out / "latents")
    figures = {"latent": words, "bytes a frame": size, "encoding, µs": microseconds_a_frame(model, sample)}
    figures |= picture_figures(model, sample) | {"frames scored": len(sample)}
    figures |= dream_figures(out / "latents", model, budget["dynamics steps"], seed)
    head = {"recipe": name, "seed": seed, "settings": RECIPES[name], "budget": budget, "figures": figures}
    machine = f"{describe_machine('torch', 'scikit-learn')}, {torch.get_num_threads()} threads"
    return {**head, "seconds": round(time.perf_counter() - start), "machine": machine}


def report(out: Path, threshold: float) -> str:
    """The tables of what is in the results file."""
    results = read_results(out / "results.jsonl")
    if not results:
        raise SystemExit(f"{out} has no results yet")
    recipes = by_recipe(results, threshold)
    recipes = {name: recipes[name] for name in [*RECIPES, *recipes] if name in recipes}
    budget, first = results[-1]["budget"], next(iter(recipes.values()))[0]
    seeds = {len(each) for each in recipes.values()}
    words = ", ".join(f"{name} {value}" for name, value in budget.items())
    about = (
        f"{results[-1]['machine']}\n{words}; {len(recipes)} recipes, {' or '.join(map(str, sorted(seeds)))} seeds; "
        f"{first['frames scored']} held-out frames, dreams of {HORIZON} steps from {first['dreams']} starts; "
        f"the state itself, if it stays, is off by more than {threshold} standard deviations after {first['state stays']} steps"
    )
    if is_small(budget, recipes):
        about += "\n\nThis is a small budget: it shows how the study reads, not which recipe is best."
    tables = [contents_table(recipes), dreams_table(recipes, HORIZON), together_table(recipes)]
    return "\n\n".join([about, *tables])


def is_small(budget: dict[str, int], recipes: dict[str, list[Any]]) -> bool:
    """Whether it is less than the full study."""
    full = budget_of(parser().parse_args(["--out", "."]))
    return any(budget[name] < full[name] for name in full) or min(map(len, recipes.values())) < 3 or len(recipes) < 10


def budget_of(arguments: argparse.Namespace) -> dict[str, int]:
    return {
        "frames": arguments.frames,
        "steps": arguments.steps,
        "batch size": arguments.batch_size,
        "dynamics steps": arguments.dynamics_steps,
    }


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="where the results and all that leads to them go")
    options.add_argument("--report", action="store_true", help="only print the tables of the results that are there")
    options.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES), metavar="NAME")
    options.add_argument("--seeds", type=int, default=3, help="seeds of each recipe")
    options.add_argument("--frames", type=int, default=100_000, help="to collect, in episodes of at most 300 steps")
    options.add_argument("--steps", type=int, default=5000, help="of each autoencoder's training")
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--dynamics-steps", type=int, default=3000, help="of each dynamics model's training")
    options.add_argument("--threshold", type=float, default=THRESHOLD, help="error that ends a horizon, in standard deviations")
    options.add_argument("--threads", type=int, default=2, help="of PyTorch")
    return options


def main() -> None:
    arguments = parser().parse_args()
    if not arguments.report:
        torch.set_num_threads(arguments.threads)
        try:
            continue_study(arguments)
        except WorldModelError as error:
            raise SystemExit(str(error)) from None
    print(report(arguments.out, arguments.threshold))


def continue_study(arguments: argparse.Namespace) -> None:
    """Measure every recipe and seed that has no line yet, seed after seed."""
    out, budget, file = arguments.out, budget_of(arguments), arguments.out / "results.jsonl"
    require_budget(out, budget)
    done = read_results(file)
    wanted = [(name, seed) for seed in range(arguments.seeds) for name in arguments.recipes]
    todo = [(name, seed) for name, seed in wanted if not is_done(done, name, seed, json_of(RECIPES[name]))]
    data = rollouts(out / "rollouts", arguments.frames)
    for name, seed in todo:
        folder = out / f"{''.join(letter if letter.isalnum() else '_' for letter in name)}-{seed}"
        append_result(file, study(name, seed, data, folder, budget))
        print(f"{name}, seed {seed}: done", flush=True)


def json_of(settings: dict[str, Any]) -> dict[str, Any]:
    """As they come back from a file."""
    return json.loads(json.dumps(settings))


if __name__ == "__main__":
    main()
