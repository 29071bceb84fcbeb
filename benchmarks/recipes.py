"""The quality of each recipe on held-out frames after the same steps on the same frames, as a Markdown table.

    python benchmarks/recipes.py --data ROLLOUTS --out runs/recipes [--steps N] [--batch-size B] [--recipes NAME ...]

Each recipe is a set of `wm-train`'s options, trained by `wm-train`'s own loop into OUT/NAME: the frames, their order, the seed,
the number of steps, the batch size and Z = 32 are the same for all. If it runs again, it continues interrupted recipes and
skips complete ones. Every recipe is measured on the same frames of the held-out episodes, decoded from mu, as in wm-eval, once
with and once without the camera's zoom-in. (These are the first 50 steps of each CarRacing episode. They are easier because
they are alike, or harder because they are rare, but a VAE is not made for them.) KL is the rate: the nats of information that a
latent holds about a frame. It is in the table because a recipe may reach better pictures at a higher KL.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from _training import describe_trainings

from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.evaluation.metrics import score_frames, ssim
from worldmodel_v.evaluation.sample import read_sample
from worldmodel_v.profiles import CAR_RACING
from worldmodel_v.progress import Silent
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import Rollouts, require_dataset
from worldmodel_v.training import TrainConfig, train

HOLDOUT_EVERY = 10

_HA2018 = {
    **{"architecture": "ha2018", "likelihood": "gaussian", "kl_tolerance": 0.5, "beta_warmup_steps": 0},
    **{"learning_rate": 1e-4, "weight_decay": 0.0, "max_grad_norm": 1e9},
}
_CALIBRATED = {"likelihood": "calibrated"}

RECIPES: dict[str, dict[str, Any]] = {
    "ha2018": _HA2018,
    "ha2018-calibrated": {**_HA2018, **_CALIBRATED, "kl_tolerance": 0.0},
    "conv-gaussian": {"architecture": "conv", "likelihood": "gaussian"},
    "conv-bernoulli": {"architecture": "conv", "likelihood": "bernoulli"},
    "conv-calibrated": {"architecture": "conv", **_CALIBRATED},
    "resnet-gaussian": {"architecture": "resnet", "likelihood": "gaussian"},
    "resnet-calibrated": {"architecture": "resnet", **_CALIBRATED},
    "default": {},
}
"""Options of `wm-train` by recipe; all others have their defaults. "ha2018" is the paper's recipe, as published."""


def measure(path: Path, dataset: Rollouts, limit: int, device: torch.device) -> dict[str, float]:
    """The figures of one row of the table, on at most `limit` frames of the held-out episodes, evenly spaced."""
    model = load_vae(path).model.to(device)
    sample = read_sample(dataset, model, holdout_every=HOLDOUT_EVERY, limit=limit, progress=Silent())
    scores = score_frames(model, sample.frames, device, condition_NK=sample.condition, measures={"ssim": ssim})
    heldout = model.figures(scores)
    after_zoom_in = torch.from_numpy(sample.row >= CAR_RACING.zoom_rows)
    similarity = scores.measures["ssim"]
    return {
        "psnr": float(scores.psnr.mean()),
        "psnr_after": float(scores.psnr[after_zoom_in].mean()),
        "ssim": float(similarity.mean()),
        "ssim_after": float(similarity[after_zoom_in].mean()),
        "kl": heldout["kl_nats"],
        "active": int(heldout["active_units"]),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "frames": len(sample),
        "frames_after": int(after_zoom_in.sum()),
    }


def run(name: str, arguments: argparse.Namespace) -> float:
    """Train one recipe, or the missing steps; returns the seconds of its training (over all completed runs)."""
    out = arguments.out / name
    settings = {"steps": arguments.steps, "batch_size": arguments.batch_size, "seed": arguments.seed, **RECIPES[name]}
    config = TrainConfig(
        data=arguments.data, out=out, latent_dim=32, holdout_every=HOLDOUT_EVERY, device=arguments.device, **settings
    )
    clock = arguments.out / f"{name}.seconds.json"
    before = json.loads(clock.read_text()) if clock.exists() else 0.0
    start = time.perf_counter()
    trained = train(config).new_steps > 0
    seconds = before + (time.perf_counter() - start if trained else 0.0)
    clock.write_text(json.dumps(seconds))
    return seconds


def table(rows: dict[str, dict[str, float]]) -> str:
    """The figures as Markdown, with the gain over the paper's recipe if that was run."""
    heads = ["recipe", "PSNR dB", "over ha2018", "PSNR after zoom-in", "SSIM", "SSIM after zoom-in", "KL nats"]
    heads += ["active", "parameters", "seconds"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    paper = rows.get("ha2018")
    for name, row in rows.items():
        gain = "" if paper is None else f"{row['psnr'] - paper['psnr']:+.2f}"
        cells = [name, f"{row['psnr']:.2f}", gain, f"{row['psnr_after']:.2f}", f"{row['ssim']:.4f}"]
        cells += [f"{row['ssim_after']:.4f}", f"{row['kl']:.1f}", f"{row['active']}"]
        cells += [f"{row['parameters'] / 1e6:.2f} M", f"{row['seconds']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CarRacing rollouts that wm-collect wrote")
    parser.add_argument("--out", type=Path, required=True, help="each recipe trains into a directory of its name here")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=100, help="for all recipes; the paper's is 100")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--frames", type=int, default=4000, help="held-out frames to measure on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    dataset = require_dataset(arguments.data, RolloutSpec)
    rows: dict[str, dict[str, float]] = {}
    for name in arguments.recipes:
        seconds = run(name, arguments)
        figures = measure(arguments.out / name, dataset, arguments.frames, torch.device(arguments.device))
        rows[name] = {**figures, "seconds": seconds}
        print(f"{name}: {rows[name]['psnr']:.2f} dB, {rows[name]['kl']:.1f} nats, {seconds:.0f} s", flush=True)
    row = rows[name]
    about = f"Z = 32, seed {arguments.seed}; {row['frames']} held-out frames, {row['frames_after']} of them after the zoom-in"
    report = f"{describe_trainings(arguments, dataset, about)}\n{table(rows)}\n"
    (arguments.out / "table.md").write_text(report)
    print(f"\n{report}", end="")


if __name__ == "__main__":
    main()
