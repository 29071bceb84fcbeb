"""What each recipe makes of held-out frames after equal steps on equal frames, as a Markdown table.

    python benchmarks/recipes.py --data ROLLOUTS --out runs/recipes [--steps N] [--batch-size B] [--recipes NAME ...]

Each recipe is a set of `wm-train`'s options, trained by `wm-train`'s own loop into OUT/NAME: the frames, their order, the seed,
the number of steps, the batch size and Z = 32 are the same for all. Run again, it continues what was interrupted and skips
what is complete. Every recipe is measured on the same frames of the held-out episodes, decoded from mu, PSNR and SSIM by
torchmetrics, once with and once without the camera's zoom-in (CarRacing's first 50 steps of each episode, which are easier
for their sameness or harder for their rarity, but not what a VAE is for). KL is the rate: nats that a latent says about a
frame; a recipe may pay for its pictures with it, so it stands beside them.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from worldmodel_v.data import FrameBatch, condition_rows, is_held_out
from worldmodel_v.models import VAE, Posterior, frames_to_input, gaussian_kl, load_vae
from worldmodel_v.storage import Dataset, require_format
from worldmodel_v.storage.schema import ROLLOUTS
from worldmodel_v.train import TrainConfig, train

ZOOM_IN_STEPS = 50
HOLDOUT_EVERY = 10
ACTIVE_VARIANCE = 0.01
BATCH_SIZE = 250

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
"""Options of `wm-train` by recipe; what one does not say is the default. "ha2018" is the paper's, as published."""


@dataclass(frozen=True)
class HeldOut:
    """The frames that every recipe is measured on."""

    rows: list[tuple[Any, np.ndarray]]
    """(index entry, rows of that shard)"""

    after_zoom_in: np.ndarray
    """bool (N,): whether the camera's zoom-in is over at each frame"""


def choose_frames(dataset: Dataset, limit: int) -> HeldOut:
    """At most `limit` frames of the held-out episodes, evenly spaced."""
    found: list[tuple[Any, int, int]] = []
    for entry in dataset.entries:
        with dataset.open_shard(entry) as shard:
            for episode, start, length in zip(shard.episode_ids, shard.ep_offset, shard.ep_len, strict=True):
                if is_held_out(int(episode), HOLDOUT_EVERY):
                    found += [(entry, int(start) + step, step) for step in range(length)]
    picked = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(limit, len(found))).astype(int))]
    entries = {entry.shard: entry for entry, _, _ in picked}
    rows = [(entry, np.array([row for at, row, _ in picked if at.shard == number])) for number, entry in entries.items()]
    return HeldOut(rows, np.array([step >= ZOOM_IN_STEPS for _, _, step in picked]))


def batches(dataset: Dataset, heldout: HeldOut, model: VAE) -> Iterator[FrameBatch]:
    """The held-out frames with the model's condition, in order."""
    names, dim = model.config.condition, model.config.condition_dim
    for entry, rows in heldout.rows:
        with dataset.open_shard(entry) as shard:
            frames = shard.rows("pixels")[rows]
            condition = condition_rows(shard, names, 0, shard.num_rows, dim)[rows] if names else None
        for start in range(0, len(frames), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            yield FrameBatch(frames[part], None if condition is None else condition[part])


@torch.no_grad()
def measure(model: VAE, dataset: Dataset, heldout: HeldOut, device: torch.device) -> dict[str, float]:
    """The figures of one row of the table."""
    model = model.to(device).eval()
    psnr, ssim, posteriors = [], [], []
    for frames, condition in batches(dataset, heldout, model):
        x = frames_to_input(torch.from_numpy(frames).to(device), model.config.channels)
        beside = None if condition is None else torch.from_numpy(condition).to(device)
        posterior = model.encode(x, beside)
        mean = model.decode(posterior.mu, beside)
        settings: dict[str, Any] = {"data_range": 1.0, "reduction": "none"}
        psnr.append(peak_signal_noise_ratio(mean, x, **settings, dim=(1, 2, 3)).cpu())
        ssim.append(structural_similarity_index_measure(mean, x, **settings).cpu())
        posteriors.append(Posterior(*(part.double().cpu() for part in posterior)))
    posterior = Posterior(*(torch.cat(parts) for parts in zip(*posteriors, strict=True)))
    after_zoom_in = torch.from_numpy(heldout.after_zoom_in)
    decibels, similarity = torch.cat(psnr), torch.cat(ssim)
    return {
        "psnr": float(decibels.mean()),
        "psnr_after": float(decibels[after_zoom_in].mean()),
        "ssim": float(similarity.mean()),
        "ssim_after": float(similarity[after_zoom_in].mean()),
        "kl": float(gaussian_kl(posterior).sum(dim=1).mean()),
        "active": int((posterior.mu.var(dim=0, unbiased=False) > ACTIVE_VARIANCE).sum()),
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }


def run(name: str, arguments: argparse.Namespace) -> float:
    """Train one recipe, or what is missing of it; the seconds that its training took (over all runs that ended)."""
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
    """The figures as Markdown, the gain over the paper's recipe beside them where it is there."""
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


def describe(arguments: argparse.Namespace, dataset: Dataset, heldout: HeldOut) -> str:
    """Hardware, versions, data, settings and date."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchmetrics", "numpy"))
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    on_gpu = arguments.device.startswith("cuda")
    where = torch.cuda.get_device_name() if on_gpu else f"{processor}, {torch.get_num_threads()} threads"
    after_zoom_in = int(heldout.after_zoom_in.sum())
    return (
        f"{datetime.date.today()}, {where} of {os.cpu_count()} cores; Python {platform.python_version()}, {versions}\n"
        f"{dataset.num_episodes} episodes, {dataset.num_rows} frames of {dataset.spec['env']}, {dataset.spec['policy']}\n"
        f"{arguments.steps} steps of {arguments.batch_size} frames, Z = 32, seed {arguments.seed}; "
        f"{len(heldout.after_zoom_in)} held-out frames, {after_zoom_in} of them after the zoom-in\n"
    )


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
    dataset = require_format(arguments.data, ROLLOUTS)
    heldout = choose_frames(dataset, arguments.frames)
    rows: dict[str, dict[str, float]] = {}
    for name in arguments.recipes:
        seconds = run(name, arguments)
        model = load_vae(arguments.out / name).model
        rows[name] = {**measure(model, dataset, heldout, torch.device(arguments.device)), "seconds": seconds}
        print(f"{name}: {rows[name]['psnr']:.2f} dB, {rows[name]['kl']:.1f} nats, {seconds:.0f} s", flush=True)
    report = f"{describe(arguments, dataset, heldout)}\n{table(rows)}\n"
    (arguments.out / "table.md").write_text(report)
    print(f"\n{report}", end="")


if __name__ == "__main__":
    main()
