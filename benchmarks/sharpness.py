"""Each loss against blur beside the plain one, after the same steps on the same frames, as a Markdown table.

    python benchmarks/sharpness.py --data ROLLOUTS --out runs/sharpness [--steps N] [--batch-size B] [--losses NAME ...]

Each row is a training by `wm-train`'s own loop into OUT/NAME: frames, order, seed, steps and network are the same, the losses
are not. The discriminator starts after a quarter of the steps. If it runs again, it continues what was interrupted. All are
measured on the same held-out frames, decoded from mu, as in wm-eval:

- PSNR and SSIM: how near the values are;
- edges kept: the mean gradient of the reconstructions over that of the frames. 100 % is as sharp as the frames, less is blur;
- edge error: the mean difference of both gradients, over the mean gradient of the frames. It also counts edges in the wrong
  place, so inventing some does not lower it;
- PSNR at edges: the PSNR of the tenth of the pixels with the largest gradients in the frame;
- a step: its time over that of the plain loss, with a discriminator at work. On a CPU it is the time of one thread on the
  processor, which other programs change little.
"""

import argparse
import contextlib
import time
from pathlib import Path
from typing import Any

import torch
from _training import describe_trainings, training

from worldmodel_v.autoencoders.base import CodedBatch
from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.evaluation.metrics import score_frames, ssim
from worldmodel_v.evaluation.sample import read_sample
from worldmodel_v.progress import Silent
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import Rollouts, require_dataset
from worldmodel_v.training import TrainConfig, train
from worldmodel_v.training.sharpness.error_weights import gradient

HOLDOUT_EVERY = 8

LOSSES: dict[str, dict[str, Any]] = {
    "plain": {},
    "error_weight gradient": {"error_weight": "gradient"},
    "error_weight error": {"error_weight": "error"},
    "adversarial 0.5": {"adversarial": 0.5},
    "perceptual 1": {"perceptual": 1.0},
    "gradient, adversarial 0.2": {"error_weight": "gradient", "adversarial": 0.2},
}
"""Options of `wm-train` by row; all others are the same."""


def edge_error(batch: CodedBatch) -> torch.Tensor:
    """Σ |∇x - ∇x̂| of each frame: (B,)."""
    return (gradient(batch.x) - gradient(batch.reconstruction)).abs().flatten(start_dim=1).sum(dim=1)


def edges(batch: CodedBatch) -> torch.Tensor:
    """Σ ∇x of each frame: (B,)."""
    return gradient(batch.x).flatten(start_dim=1).sum(dim=1)


def made_edges(batch: CodedBatch) -> torch.Tensor:
    """Σ ∇x̂ of each frame: (B,)."""
    return gradient(batch.reconstruction).flatten(start_dim=1).sum(dim=1)


def error_at_edges(batch: CodedBatch) -> torch.Tensor:
    """The mean squared error of each frame, (B,), at the tenth of its pixels with the largest gradients."""
    found = gradient(batch.x).flatten(start_dim=1)
    is_edge = found >= found.quantile(0.9, dim=1, keepdim=True)
    error = (batch.x - batch.reconstruction).square().mean(dim=1).flatten(start_dim=1)
    return (error * is_edge).sum(dim=1) / is_edge.sum(dim=1)


MEASURES = {
    **{"ssim": ssim, "edge_error": edge_error, "edges": edges, "made_edges": made_edges},
    "error_at_edges": error_at_edges,
}


def settings(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All that a training of this row is told, but where it reads and writes."""
    own = LOSSES[name]
    start = {"adversarial_start": arguments.steps // 4} if {"adversarial", "perceptual"} & own.keys() else {}
    common = {"steps": arguments.steps, "batch_size": arguments.batch_size, "seed": arguments.seed, "device": arguments.device}
    return {**common, "beta_warmup_steps": arguments.steps // 4, "holdout_every": HOLDOUT_EVERY, **own, **start}


def measure(path: Path, dataset: Rollouts, limit: int, device: torch.device) -> dict[str, float]:
    """The figures of one row, on at most `limit` frames of the held-out episodes, evenly spaced."""
    model = load_vae(path).model.to(device)
    sample = read_sample(dataset, model, holdout_every=HOLDOUT_EVERY, limit=limit, progress=Silent())
    scores = score_frames(model, sample.frames, device, measures=MEASURES)
    total = {name: float(scores.measures[name].sum()) for name in MEASURES}
    return {
        "psnr": float(scores.psnr.mean()),
        "ssim": float(scores.measures["ssim"].mean()),
        "psnr_at_edges": float(-10 * scores.measures["error_at_edges"].clamp_min(1e-12).log10().mean()),
        "kept": total["made_edges"] / total["edges"],
        "edge_error": total["edge_error"] / total["edges"],
        "frames": len(sample),
    }


def step_seconds(arguments: argparse.Namespace, rounds: int = 8) -> dict[str, float]:
    """The fastest step of each row, with its discriminator at work; the rows take turns."""
    is_cpu, num_threads = arguments.device == "cpu", torch.get_num_threads()
    clock = time.thread_time if is_cpu else time.perf_counter
    torch.set_num_threads(1 if is_cpu else num_threads)
    runs = {}
    for name in arguments.losses:
        told = settings(name, arguments)
        runs[name] = training(arguments.data, **(told | ({"adversarial_start": 0} if "adversarial_start" in told else {})))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with contextlib.ExitStack() as stack:
        batches = {name: stack.enter_context(contextlib.closing(run.batches())) for name, run in runs.items()}
        for _ in range(rounds):
            for name, run in runs.items():
                batch = next(batches[name])
                start = clock()
                float(run.take_step(batch)["loss"])
                seconds[name].append(clock() - start)
    torch.set_num_threads(num_threads)
    return {name: min(times[1:]) for name, times in seconds.items()}


def table(rows: dict[str, dict[str, float]]) -> str:
    """The figures as Markdown."""
    heads = ["losses", "PSNR", "PSNR at edges", "SSIM", "edges kept", "edge error", "a step"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    fastest = next(iter(rows.values()))["seconds"]
    for name, row in rows.items():
        cells = [name, f"{row['psnr']:.2f} dB", f"{row['psnr_at_edges']:.2f} dB", f"{row['ssim']:.3f}"]
        cells += [f"{row['kept']:.0%}", f"{row['edge_error']:.0%}"]
        lines.append("| " + " | ".join([*cells, f"{row['seconds'] / fastest:.2f}x"]) + " |")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CarRacing rollouts that wm-collect wrote")
    parser.add_argument("--out", type=Path, required=True, help="each row trains into a directory of its name here")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--frames", type=int, default=1000, help="held-out frames to measure on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    dataset = require_dataset(arguments.data, RolloutSpec)
    seconds = step_seconds(arguments)
    rows: dict[str, dict[str, float]] = {}
    for name in arguments.losses:
        out = arguments.out / name.replace(" ", "_").replace(",", "")
        train(TrainConfig(data=arguments.data, out=out, **settings(name, arguments)))
        rows[name] = measure(out, dataset, arguments.frames, torch.device(arguments.device)) | {"seconds": seconds[name]}
        print(f"{name}: {rows[name]}", flush=True)
    about = f"seed {arguments.seed}; {rows[name]['frames']:.0f} held-out frames"
    report = f"{describe_trainings(arguments, dataset, about)}\n{table(rows)}\n"
    (arguments.out / "table.md").write_text(report)
    print(f"\n{report}", end="")


if __name__ == "__main__":
    main()
