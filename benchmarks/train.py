"""Whether training waits for its data, how well batches are mixed, the gain of each way to compute, and memory.

    python benchmarks/train.py [--data ROLLOUTS] [--only feeder mixing loop compute memory]

Without --data it first collects 40 episodes of CarRacing; with it, only PyTorch, NumPy and h5py are needed. The rollouts are
repeated under new episode numbers until they are larger than the feeder's pool. (Otherwise the pool would hold all of them and
read nothing.) Contestants take turns in short rounds, so that other work on the machine affects all of them equally; figures
are medians of the rounds. Memory is the peak resident set of a fresh process for each figure.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import answer, describe_machine, in_process, load, peak_mb
from _rollouts import collect_rollouts, repeated
from _training import seconds_of, training

from worldmodel_v.autoencoders import frames_to_input
from worldmodel_v.autoencoders.gaussian import elbo
from worldmodel_v.autoencoders.gaussian.recompute import Recomputed
from worldmodel_v.data import FrameStream
from worldmodel_v.data.chunks import ROWS, ChunkTable, find_chunks
from worldmodel_v.data.order import stretches
from worldmodel_v.data.prefetch import prefetch
from worldmodel_v.storage import open_dataset

PACKAGES = ("torch", "numpy", "h5py", "zstandard")
PARTS = ("feeder", "mixing", "loop", "compute", "memory")
SMALL_FRAMES = 60_000  # three times what the pool holds at 64x64
MIXED_CHUNKS = 320  # of the pool at 64x64


# Feeder


def feed(path: Path, batch_size: int, cores: int, rounds: int) -> dict[str, float]:
    """In a separate process on `cores` cores: frames per second, and per second of processor time."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    stream = FrameStream(open_dataset(path), lambda _: True, batch_size=batch_size, seed=0)
    num_batches = 20_000 // batch_size
    wall, processor = [], []
    with closing(prefetch(iter(stream), depth=4)) as batches:
        for _ in range(rounds + 2):
            start, worked = time.perf_counter(), time.process_time()
            for _ in islice(batches, num_batches):
                pass
            wall.append(num_batches * batch_size / (time.perf_counter() - start))
            processor.append(num_batches * batch_size / (time.process_time() - worked))
    return {"wall": statistics.median(wall[2:]), "processor": statistics.median(processor[2:])}  # 2 to fill the pool


def feeder(small: Path, large: Path, batch_size: int, rounds: int) -> None:
    """Print the feeder's speed alone, and the cost of its start."""
    print(f"\nFeeder alone, batches of {batch_size} (goal: 80,000 frames/s a core at 64x64); load {load()}")
    for cores in (1, 2):
        if cores <= len(os.sched_getaffinity(0)):
            found = in_process(__file__, "feed", path=small, batch_size=batch_size, cores=cores, rounds=rounds)
            print(
                f"  pinned to {cores} core{'s' * (cores > 1)}: {found['wall']:9,.0f} frames/s, "
                f"{found['processor']:9,.0f} per second of processor time"
            )
    dataset = open_dataset(large)
    start = time.perf_counter()
    table = find_chunks(dataset, lambda _: True)
    seconds = time.perf_counter() - start
    arrays = (table.shards, table.numbers, table.places, table.masks, table.counts)
    print(
        f"  to begin with {len(dataset.entries):,} shards of {dataset.num_rows:,} frames: {seconds:.2f} s, "
        f"{1e3 * seconds / len(dataset.entries):.2f} ms a shard; its table of chunks takes "
        f"{sum(array.nbytes for array in arrays) / 1e3:,.0f} kB"
    )


# Mixing


def simulated(lengths: np.ndarray, per_shard: int = 10) -> tuple[ChunkTable, np.ndarray]:
    """The table of chunks of a dataset with episodes of these lengths, and the episode at each frame's address."""
    episodes = []
    for first in range(0, len(lengths), per_shard):
        part = lengths[first : first + per_shard]
        rows = np.repeat(np.arange(first, first + len(part)), part)
        episodes.append(np.pad(rows, (0, -len(rows) % ROWS), constant_values=-1))
    episode = np.concatenate(episodes)
    wanted = (episode >= 0).reshape(-1, ROWS)
    nothing = np.zeros(len(wanted), np.int32)
    table = ChunkTable(None, (), nothing, nothing, nothing, np.packbits(wanted, axis=1), wanted.sum(axis=1))  # type: ignore[arg-type]
    return table, episode


def mixing(batch_size: int) -> None:
    """Print how many episodes a batch holds, against frames drawn uniformly from the whole dataset."""
    print(
        f"\nEpisodes in a batch of {batch_size}, over uniform sampling's (one epoch, {MIXED_CHUNKS} chunks of the pool mixed)"
    )
    rng = np.random.default_rng(0)
    for num_episodes in (40, 1000, 10_000):
        table, episode = simulated(rng.integers(250, 1001, num_episodes))
        frames = np.flatnonzero(episode >= 0)
        uniform = statistics.fmean(len(np.unique(episode[rng.choice(frames, batch_size)])) for _ in range(200))
        stream = stretches(table, 0, 0, MIXED_CHUNKS)
        order = np.concatenate(list(addresses_of_epoch(stream, table.num_frames)))
        batches = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
        found = [len(np.unique(row)) / uniform for row in episode[batches]]
        print(
            f"  {num_episodes:6,} episodes of 250 to 1000 frames: {uniform * statistics.fmean(found):6.1f} of {uniform:6.1f}: "
            f"{statistics.fmean(found):.3f} (worst batch {min(found):.3f})"
        )


def addresses_of_epoch(stream: Iterator[Any], num_frames: int) -> Iterator[np.ndarray]:
    """The addresses of the first `num_frames` frames, stretch by stretch."""
    for stretch in stream:
        yield stretch.addresses
        num_frames -= len(stretch.addresses)
        if num_frames <= 0:
            return


# Training


def loop(path: Path, batch_size: int, rounds: int, device: str, budget: float) -> None:
    """Print steps per second on shards over those on one resident batch.

    Rounds are many steps long, because the few batches that are prefetched in one round are used in the next.
    """
    run = training(path, batch_size=batch_size, device=device)
    with closing(run.batches()) as batches:
        resident = next(batches)
        contestants = {"shards": lambda: run.take_step(next(batches)), "resident": lambda: run.take_step(resident)}
        for work in contestants.values():
            seconds_of(work, 3, device)
        steps = int(np.clip(budget / seconds_of(contestants["resident"], 3, device), 8, 400))
        wall: dict[str, list[float]] = {name: [] for name in contestants}
        processor: dict[str, list[float]] = {name: [] for name in contestants}
        for round_number in range(rounds):
            for name in list(contestants)[:: 1 if round_number % 2 else -1]:
                worked = time.process_time()
                wall[name].append(seconds_of(contestants[name], steps, device))
                processor[name].append((time.process_time() - worked) / steps)
    rates = {name: 1 / statistics.median(values) for name, values in wall.items()}
    ratios = sorted(resident / shards for resident, shards in zip(wall["resident"], wall["shards"], strict=True))
    work = statistics.median(processor["resident"]) / statistics.median(processor["shards"])
    print(
        f"\nTraining on {device}, batches of {batch_size}, {torch.get_num_threads()} threads, {rounds} rounds of {steps} steps"
    )
    print(
        f"  {rates['shards']:.3f} steps/s on shards, {rates['resident']:.3f} on a resident batch; load {load()}\n"
        f"  ratio {statistics.median(ratios):.3f} (goal {0.9 if device == 'cuda' else 0.97}; "
        f"rounds {ratios[0]:.3f} to {ratios[-1]:.3f}); by processor time {work:.3f}"
    )


def compute(path: Path, batch_size: int, rounds: int, device: str, with_compile: bool) -> None:
    """Print the gain of each way to compute a step over plain eager fp32."""
    ways: dict[str, dict[str, Any]] = {
        "eager fp32": {"precision": "fp32"},
        "channels_last, fused": {"precision": "fp32"},
        "+ bf16": {"precision": "bf16"},
        "+ recomputed activations": {"precision": "fp32", "checkpoint_activations": True},
    }
    if with_compile:
        ways |= {"+ compile": {"precision": "fp32", "compile": True}}
        ways |= {"+ bf16 + compile": {"precision": "bf16", "compile": True}}
    runs = {name: training(path, batch_size=batch_size, device=device, **settings) for name, settings in ways.items()}
    with closing(runs["eager fp32"].batches()) as batches:
        batch = next(batches)
    plain = runs["eager fp32"]
    plain.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain.optimizer = torch.optim.AdamW(plain.model.parameters(), lr=1e-3)
    inputs = dict.fromkeys(runs, batch) | {"eager fp32": contiguous(batch)}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        seconds_of(lambda run=run, name=name: run.take_step(inputs[name]), 3, device)
    for _ in range(rounds):
        for name, run in runs.items():
            spent[name].append(seconds_of(lambda run=run, name=name: run.take_step(inputs[name]), 2, device))
    print(f"\nOne step, batches of {batch_size} on {device}, {torch.get_num_threads()} threads; load {load()}")
    for name, values in spent.items():
        ratio = statistics.median(first / other for first, other in zip(spent["eager fp32"], values, strict=True))
        print(f"  {name:26}{batch_size / statistics.median(values):12,.0f} frames/s{ratio:8.2f} x")


def contiguous(batch: Any) -> Any:
    """A batch whose frames lie channel by channel in memory."""
    if isinstance(batch, torch.Tensor):
        return batch.contiguous()
    return type(batch)(batch[0].contiguous(), *batch[1:])


# Memory


def train_and_feed(path: Path, batch_size: int, steps: int, fed: int) -> dict[str, float]:
    """In a separate process: its peak memory after some steps and many more batches."""
    run = training(path, batch_size=batch_size, device="cpu")
    with closing(run.batches()) as batches:
        for batch in islice(batches, steps):
            run.take_step(batch)
        for _ in islice(batches, fed):
            pass
    return {"peak": peak_mb()}


def one_large_step(path: Path, frame_size: int, batch_size: int, recomputed: bool) -> dict[str, float]:
    """In a separate process: peak memory of an objective and its gradients, beyond what is there before."""
    model = training(path, device="cpu").model
    model = type(model)(replace(model.config, frame_height=frame_size, frame_width=frame_size)).to(
        memory_format=torch.channels_last
    )
    x = frames_to_input(torch.randint(0, 256, (batch_size, frame_size, frame_size, 3), dtype=torch.uint8))
    before = peak_mb()
    start = time.perf_counter()
    terms = elbo(Recomputed(model) if recomputed else model, x)  # type: ignore[arg-type]
    terms.loss(1.0).backward()
    return {"peak": peak_mb() - before, "seconds": time.perf_counter() - start}


def memory(small: Path, large: Path, batch_size: int) -> None:
    """Print the peak memory of training on a dataset and on one ten times larger, and of large frames."""
    peaks = {}
    print("\nPeak resident memory (goal: a ten times larger dataset within 10 %)")
    for path in (small, large):
        peaks[path] = in_process(__file__, "train_and_feed", path=path, batch_size=batch_size, steps=2, fed=300)["peak"]
        print(f"  {open_dataset(path).num_rows:10,} frames: {peaks[path]:7,.0f} MB")
    print(f"  ratio {peaks[large] / peaks[small]:.3f}")
    for recomputed in (False, True):
        found = in_process(__file__, "one_large_step", path=small, frame_size=256, batch_size=32, recomputed=recomputed)
        name = "with --checkpoint-activations" if recomputed else "activations kept"
        print(f"  32 frames of 256x256 and their gradients, {name}: {found['peak']:,.0f} MB, {found['seconds']:.1f} s")


CALLABLE = {"feed": feed, "train_and_feed": train_and_feed, "one_large_step": one_large_step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="rollouts of wm-collect; collected if absent")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--round-seconds", type=float, default=6.0, help="how long a round of training takes")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        answer(arguments.call, CALLABLE)
        return
    print(describe_machine(*PACKAGES))
    with tempfile.TemporaryDirectory(prefix="wm-benchmark-") as folder:
        source = open_dataset(arguments.data or collect_rollouts(Path(folder) / "rollouts"))
        small = repeated(source, Path(folder) / "small", SMALL_FRAMES)
        large = repeated(source, Path(folder) / "large", 10 * SMALL_FRAMES)
        report(arguments, small, large)


def report(arguments: argparse.Namespace, small: Path, large: Path) -> None:
    """Run the requested parts."""
    for path in (small, large):
        dataset = open_dataset(path)
        print(f"{dataset.num_rows:,} frames in {len(dataset.entries)} shards, {dataset.num_episodes} episodes")
    size, rounds = arguments.batch_size, arguments.rounds
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts: dict[str, Callable[[], None]] = {
        "feeder": lambda: feeder(small, large, size, rounds),
        "mixing": lambda: mixing(size),
        "loop": lambda: loop(large, size, rounds, device, arguments.round_seconds),
        "compute": lambda: compute(small, size, rounds, device, not arguments.no_compile),
        "memory": lambda: memory(small, large, size),
    }
    for name in arguments.only:
        parts[name]()


if __name__ == "__main__":
    main()
