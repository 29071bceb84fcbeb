"""How close wm-encode is to the limit of the hardware, its gain over a plain loop, the error of each precision, and memory.

    python benchmarks/encode.py [--data ROLLOUTS --vae VAE] [--architecture conv] [--only speed feeder precision memory …]

Without --data it first collects 40 episodes of CarRacing and trains a VAE for 300 steps. (Errors in units of σ are then those
of a hardly trained VAE: better give the quickstart's.) Every contestant is a fresh process, because memory handling is part of
the comparison. Contestants take turns in short rounds; figures are medians of the rounds. With --architecture, it encodes with
fresh weights instead, which is as fast as with trained ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the zstd filter with HDF5)
import numpy as np
import torch
from _encoding import (
    eager_encoder,
    end_to_end,
    in_float64,
    model_alone,
    network_that_takes_no_time,
    posteriors,
    resident_frames,
    spread_frames,
    timed,
)
from _machine import answer, describe_machine, in_process, load, peak_mb
from _rollouts import collect_rollouts, repeated

from worldmodel_v.autoencoders import save
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig, load_vae
from worldmodel_v.encoding import EncodeConfig, encode, inference_encoder
from worldmodel_v.records import Episode
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset
from worldmodel_v.storage.dataset import read_spec

PACKAGES = ("torch", "numpy", "h5py", "zstandard")
PARTS = ("speed", "feeder", "precision", "memory", "latency")
WAYS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "fp32-compiled": {"precision": "fp32", "compile": True},
    "bf16-compiled": {"precision": "bf16", "compile": True},
}
CPU = torch.device("cpu")
FEEDER_FRAMES = 400_000


# Contestants, each in a separate process: frames, seconds, seconds of processor time, and of these the calling thread's


def plain_loop(data: Path, vae: Path, contiguous: bool) -> dict[str, float]:
    """A plain loop: reads trajectory after trajectory through h5py, each one as a whole batch, in eager float32."""
    model = load_vae(vae).model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    @torch.no_grad()
    def work(num_frames: int) -> int:
        num_rows = 0
        with tempfile.TemporaryDirectory(prefix="wm-benchmark-") as folder:
            for path in sorted((data / "shards").glob("*.h5")):
                if num_rows >= num_frames:
                    break
                with h5py.File(path) as rollouts, h5py.File(Path(folder) / path.name, "w") as latents:
                    for number, (start, rows) in enumerate(zip(rollouts["ep_offset"], rollouts["ep_len"], strict=True)):
                        pixels = torch.from_numpy(rollouts["pixels"][start : start + rows]).permute(0, 3, 1, 2)
                        x = (pixels.contiguous() if contiguous else pixels).float() / 255
                        mu, logvar = model.posterior(x)
                        latents[f"{number}/mu"], latents[f"{number}/logvar"] = mu.numpy(), logvar.numpy()
                        num_rows += int(rows)
        return num_rows

    return timed(work, open_dataset(data).num_rows)


def int8_encoder(file: Path) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
    """uint8 frames (B, H, W, 3) -> mu, logvar, by the encoder in 8-bit integers of `wm-export model`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda frames: tuple(map(torch.from_numpy, session.run(["mu", "logvar"], {given.name: frames.numpy()})))


def in_turns(contestants: dict[str, tuple[str, dict[str, Any]]], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Each contestant's figures, round by round."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: 1 if number % 2 else -1]:
            function, arguments = contestants[name]
            found[name].append(in_process(__file__, function, **arguments))
    return found


def rate(figures: dict[str, float], clock: str = "wall") -> float:
    return figures["frames"] / figures[clock]


def ratio(found: list[dict[str, float]], reference: list[dict[str, float]], clock: str = "wall") -> float:
    """The median over the rounds of one contestant's rate over another's."""
    return statistics.median(rate(one, clock) / rate(other, clock) for one, other in zip(found, reference, strict=True))


# Parts


def speed(data: Path, vae: Path, rounds: int, device: str, names: Sequence[str]) -> None:
    """Print the speed of wm-encode over the model alone in each precision of `WAYS`, and over a plain loop."""
    paths = {"data": str(data), "vae": str(vae)}
    ways = {name: WAYS[name] for name in names}
    contestants: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, way in ways.items():
        contestants[f"model alone, {name}"] = ("model_alone", {**paths, **way, "device": device})
        contestants[f"wm-encode, {name}"] = ("end_to_end", {**paths, **way, "device": device})
    eager = "model alone, PyTorch's"
    contestants[eager] = ("model_alone", {**paths, "precision": "fp32", "device": device, "eager": True})
    loops = {"plain loop": False, "plain loop, NCHW": True}
    contestants |= {name: ("plain_loop", {**paths, "contiguous": contiguous}) for name, contiguous in loops.items()}
    found = in_turns(contestants, rounds)
    print(f"\nFrames a second on {device}, {torch.get_num_threads()} threads, {rounds} rounds; load {load()}")
    headings = ("a second of processor time", "over the model alone", "over PyTorch's", "over the plain loops")
    print(f"  {'':28}{'wall':>9}" + "".join(f"{heading:>{len(heading) + 3}}" for heading in headings))
    for name, figures in found.items():
        wall, processor = (statistics.median(rate(one, clock) for one in figures) for clock in ("wall", "processor"))
        line = f"  {name:28}{wall:9,.0f}{processor:29,.0f}"
        if name.startswith("wm-encode"):
            alone = found[name.replace("wm-encode", "model alone")]
            line += f"{ratio(figures, alone):15.3f} ({ratio(figures, alone, 'processor'):.3f})"
            line += f"{ratio(figures, found[eager]):17.2f}"
            line += "".join(f"{ratio(figures, found[loop]):11.2f}" for loop in loops)
        print(line)
    print("  (in parentheses by processor time; the goals are 0.95 over the model alone and 3 over the plain loop, in fp32)")


def precision(data: Path, vae: Path, names: Sequence[str], int8: Path | None) -> None:
    """Print the error of each precision against float64, on frames from the whole dataset."""
    model, exact = load_vae(vae).model, load_vae(vae).model.double()
    if model.config.condition:
        print("\nPrecision: left out for a conditional VAE")
        return
    frames = spread_frames(data, 1000)

    mu, logvar = posteriors(in_float64(exact), frames)
    sigma = torch.exp(0.5 * logvar)
    ways: dict[str, Callable] = {name: inference_encoder(model, CPU, **WAYS[name]) for name in names}
    ways["PyTorch's"] = lambda frames: eager_encoder(model)(frames, None)
    if int8 is not None:
        ways["INT8"] = int8_encoder(int8)
    print(f"\nError against float64 over {len(frames)} frames, in σ of the posterior (mean σ: {sigma.mean():.3f})")
    for name, way in ways.items():
        found_mu, found_logvar = posteriors(way, frames)
        error = (found_mu - mu).abs() / sigma
        spread = (found_logvar - logvar).abs() / 2
        print(
            f"  {name:14} |Δmu| / σ: mean {100 * error.mean():8.4f} %, largest {100 * error.max():9.3f} %;   "
            f"|Δlogvar| / 2: mean {100 * spread.mean():8.4f} %"
        )


def memory(data: Path, vae: Path, folder: Path) -> None:
    """Print peak memory on a dataset and on one ten times larger, and on trajectories that are ten times longer."""
    small = repeated(open_dataset(data), folder / "small", 6_000)
    large = repeated(open_dataset(data), folder / "large", 60_000)
    contestants = {
        "a dataset": small,
        "ten times the shards": large,
        "an episode a shard": long_episodes(data, folder / "short", num_rows=2_000, num_episodes=3),
        "ten times the episode": long_episodes(data, folder / "long", num_rows=20_000, num_episodes=3),
    }
    print("\nPeak resident memory of wm-encode (goal: both ratios near 1)")
    peaks = {}
    for name, path in contestants.items():
        peaks[name] = in_process(__file__, "peak_of_encoding", data=path, vae=vae)["peak"]
        dataset = open_dataset(path)
        print(
            f"  {name:24}{dataset.num_rows:8,} frames, {dataset.num_rows // dataset.num_episodes:6,} an episode: "
            f"{peaks[name]:6,.0f} MB"
        )
    print(
        f"  ratio {peaks['ten times the shards'] / peaks['a dataset']:.3f} for the dataset, "
        f"{peaks['ten times the episode'] / peaks['an episode a shard']:.3f} for the episode"
    )


def peak_of_encoding(data: Path, vae: Path) -> dict[str, float]:
    """In a separate process: the peak resident memory of wm-encode, in MB."""
    with tempfile.TemporaryDirectory(prefix="wm-benchmark-") as folder:
        encode(EncodeConfig(data=data, vae=vae, out=Path(folder) / "latents", device="cpu"))
    return {"peak": peak_mb()}


def long_episodes(data: Path, out: Path, num_rows: int, num_episodes: int) -> Path:
    """Shards of one long episode each, its frames those of the dataset's first episode again and again."""
    source = open_dataset(data)
    first: Episode = source.episode(0)
    order = np.resize(np.arange(first.num_steps), num_rows)
    order[-1] = first.num_steps
    ended = np.arange(num_rows) == num_rows - 2
    flags = {"terminated": np.zeros(num_rows, np.bool_), "truncated": ended}
    columns = {name: rows[order] for name, rows in first.columns.items()} | flags
    with DatasetWriter(out, read_spec(data)) as writer:
        for number in range(num_episodes):
            episode = Episode(schema=first.schema, episode_id=number, seed=number, columns=columns)
            writer.commit(number, build_shard([episode], spec_hash=writer.spec.hash))
    return out


def latency(data: Path, vae: Path) -> None:
    """Print how long one frame takes, from uint8 to mu and logvar, on one core."""
    found = in_process(__file__, "latencies", data=data, vae=vae)
    if "missing" in found:
        print(f"\nLatency is left out: {found['missing']}")
        return
    print(
        f"\nOne frame on one core, from uint8 to mu and logvar: median {1e3 * found['median']:.2f} ms, "
        f"99 of 100 within {1e3 * found['p99']:.2f} ms ({found['calls']:.0f} calls)"
    )


def latencies(data: Path, vae: Path, calls: int = 500) -> dict[str, Any]:
    """In a separate process on one core: quantiles of the seconds of a call of `Encoder`."""
    try:
        from worldmodel_v.encoding import Encoder  # type: ignore[attr-defined]
    except ImportError as error:
        return {"missing": str(error)}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    torch.set_num_threads(1)
    encoder, frames = Encoder.load(vae, device="cpu"), resident_frames(data, 64).numpy()
    seconds = []
    for number in range(calls + 20):
        start = time.perf_counter()
        encoder(frames[number % len(frames)])
        seconds.append(time.perf_counter() - start)
    return {"median": statistics.median(seconds[20:]), "p99": float(np.quantile(seconds[20:], 0.99)), "calls": calls}


def all_but_the_model(data: Path, vae: Path, device: str) -> dict[str, float]:
    """wm-encode with a network that takes no time, in a separate process."""
    with network_that_takes_no_time(load_vae(vae).model.config.latent_dim):
        return end_to_end(data, vae, device)


def feeder(data: Path, vae: Path, rounds: int, device: str) -> float:
    """Print and return the frames per second of everything but the model; also print those of the committing thread."""
    arguments = {"data": str(data), "vae": str(vae), "device": device}
    found = in_turns({"feeder": ("all_but_the_model", arguments)}, rounds)["feeder"]
    wall, processor, caller = (
        statistics.median(rate(one, clock) for one in found) for clock in ("wall", "processor", "caller")
    )
    cores = len(os.sched_getaffinity(0))
    print(f"\nEverything but the model, batches for {device}, {cores} cores, {rounds} rounds; load {load()}")
    print(f"  {wall:,.0f} frames/s; {processor:,.0f} per second of processor time, {caller:,.0f} of the committing thread's")
    return wall


# Running


CALLABLE = {
    function.__name__: function
    for function in (end_to_end, all_but_the_model, model_alone, plain_loop, peak_of_encoding, latencies)
}


def fresh_vae(architecture: str, out: Path) -> Path:
    """The directory of a VAE that was never trained."""
    torch.manual_seed(0)
    out.mkdir()
    (out / "vae.safetensors").write_bytes(save(VAE(VAEConfig(architecture=architecture))))  # type: ignore[arg-type]
    return out


def briefly_trained(data: Path, out: Path) -> Path:
    """The directory of a VAE after 300 steps."""
    from worldmodel_v.training import TrainConfig, train

    print("training a VAE for 300 steps ...", flush=True)
    train(TrainConfig(data=data, out=out, steps=300, batch_size=32, holdout_every=8))
    return out


def kernels_of_blas() -> str:
    """The kernels that the BLAS of Winograd's products has chosen for this processor."""
    try:
        import scipy.linalg  # noqa: F401  (loads it)
        from threadpoolctl import threadpool_info
    except ImportError as error:
        return f"PyTorch alone ({error})"
    blas = [module for module in threadpool_info() if "scipy" in Path(module["filepath"]).parent.name]
    return ", ".join(f"{module['internal_api']} {module['version']}, {module['architecture']}" for module in blas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="rollouts of wm-collect; collected if absent")
    parser.add_argument("--vae", type=Path, help="a VAE of wm-train; briefly trained if absent")
    parser.add_argument("--architecture", help="encode with fresh weights of this architecture instead")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--int8", type=Path, help="encoder.int8.onnx of `wm-export model`: print its error too")
    parser.add_argument("--frames", type=int, default=12_000, help="frames that each contestant of `speed` encodes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="precisions for `speed` and `precision`")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        answer(arguments.call, CALLABLE)
        return
    print(describe_machine(*PACKAGES))
    with tempfile.TemporaryDirectory(prefix="wm-benchmark-") as name:
        folder = Path(name)
        data = arguments.data or collect_rollouts(folder / "rollouts")
        vae = arguments.vae
        if arguments.architecture:
            vae = fresh_vae(arguments.architecture, folder / "vae")
        report(arguments, data, vae or briefly_trained(data, folder / "vae"), folder)


def report(arguments: argparse.Namespace, data: Path, vae: Path, folder: Path) -> None:
    """Run the requested parts."""
    model, dataset = load_vae(vae).model, open_dataset(data)
    print(f"{model.config.architecture} VAE, Z = {model.config.latent_dim}; {dataset.num_rows:,} frames in {data}")
    print(f"matrix products by {kernels_of_blas()}")
    rounds = arguments.rounds
    parts: dict[str, Callable[[], None]] = {
        "speed": lambda: speed(repeated(dataset, folder / "speed", arguments.frames), vae, rounds, "cpu", arguments.ways),
        "feeder": lambda: feeder(repeated(dataset, folder / "feeder", FEEDER_FRAMES), vae, min(rounds, 3), "cpu"),
        "precision": lambda: precision(data, vae, arguments.ways, arguments.int8),
        "memory": lambda: memory(data, vae, folder),
        "latency": lambda: latency(data, vae),
    }
    for name in arguments.only:
        parts[name]()


if __name__ == "__main__":
    main()
