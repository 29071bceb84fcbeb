"""The cost of one frame in a controller's loop, on one core: `Encoder`, and every file that `wm-export model` writes.

python benchmarks/controller.py [--vae runs/quickstart/vae] [--data runs/quickstart/rollouts] [--rounds N]

Times are CPU time of the process: the minimum over the rounds, in which all encoders take turns. A batch of 256 is timed too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from _machine import describe_machine

from worldmodel_v import Encoder
from worldmodel_v.export.formats import run_onnx, run_torch_export, run_torchscript
from worldmodel_v.export.model import ModelExportConfig, export_model
from worldmodel_v.storage import open_dataset

BATCH, ONE_FRAME_REPEATS = 256, 20


def milliseconds(ways: dict[str, tuple[Callable, np.ndarray]], rounds: int, repeats: int) -> dict[str, float]:
    """The least CPU time of one call of each way, side by side."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds + 2):  # two to warm up: TorchScript compiles on the second call
        for name, (run, frames) in ways.items():
            start = time.process_time()
            for _ in range(repeats):
                run(frames)
            best[name] = min(best[name], 1e3 * (time.process_time() - start) / repeats)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, default=Path("runs/quickstart/vae"))
    parser.add_argument("--data", type=Path, default=Path("runs/quickstart/rollouts"))
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's

    frames = open_dataset(options.data).episode(0).pixels[:BATCH]
    raw = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    encoder = Encoder.load(options.vae)
    with tempfile.TemporaryDirectory() as folder:
        report = export_model(ModelExportConfig(vae=options.vae, data=options.data, out=Path(folder) / "model"))
        files = {
            "TorchScript": run_torchscript(report.out / "encoder.pt"),
            "torch.export": run_torch_export(report.out / "encoder.pt2"),
            "onnxruntime": run_onnx(report.out / "encoder.onnx"),
            "onnxruntime, int8": run_onnx(report.out / "encoder.int8.onnx"),
        }
        first = frames[:1]
        ways = {"Encoder, recorded frame": (encoder, first[0]), **{name: (run, first) for name, run in files.items()}}
        ones = milliseconds({"Encoder, raw 96x96 frame": (encoder, raw), **ways}, options.rounds, ONE_FRAME_REPEATS)
        batches = {"Encoder, recorded frame": (encoder, frames), **{name: (run, frames) for name, run in files.items()}}
        many = milliseconds(batches, max(2, options.rounds // 4), 1)

    print(describe_machine("torch", "onnxruntime", "numpy"))
    print(f"{options.vae}, one thread\n")
    print("| encoder | one frame | is faster by | frames/s in batches of 256 | mean error of mu |")
    print("|---|---|---|---|---|")
    errors = {file.format: f"{file.difference['mean_mu_in_sigma']:.2g} σ" for file in report.files if file.part == "encoder"}
    errors_by_way = dict(zip(files, (errors[name] for name in ("torchscript", "torch.export", "onnx", "int8")), strict=True))
    for name, one in ones.items():
        rate = f"{1e3 * len(frames) / many[name]:,.0f}" if name in many else ""
        ratio = ones["Encoder, recorded frame"] / one
        print(f"| {name} | {one:.2f} ms | {ratio:.2f} | {rate} | {errors_by_way.get(name, '')} |")


if __name__ == "__main__":
    main()
