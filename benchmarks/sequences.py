"""How many windows a second an MDN-RNN gets, from memory and from disk, how well they are mixed, and in how much memory.

    python benchmarks/sequences.py [--data FOLDER] [--only memory disk mixing rss]

It first makes two synthetic latent datasets (10 million rows at Z = 32, as in the paper, and a tenth of that). With --data
they are kept in FOLDER and used again. The goals are for shuffled windows of 32, with new draws of the latents, on 2 cores:
100,000 windows per second from memory and 10,000 from disk. They are compared with plain code of a user: indexing arrays in
memory, and reading random windows one by one through h5py. (Files are closed after each read; if they stayed open, their chunk
caches would hold the dataset in memory.) Contestants take turns in short rounds; figures are medians of the rounds. Memory is
the peak resident set of a fresh process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from _machine import answer, describe_machine, in_process, load, peak_mb
from torch.utils.data import DataLoader, RandomSampler

from worldmodel_v.autoencoders.gaussian import gaussian_latents
from worldmodel_v.data import LatentSequences, LatentStream
from worldmodel_v.data.sequences import BATCHES_AHEAD
from worldmodel_v.records import Episode
from worldmodel_v.schema import latent_schema, rollout_schema
from worldmodel_v.spec import LatentSpec
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset

PACKAGES = ("torch", "numpy", "h5py")
PARTS = ("memory", "disk", "mixing", "rss")
LENGTH = 32
LATENT_DIM = 32
EPISODES_PER_SHARD = 10
ACTIONS = {"type": "Box", "dtype": "float32", "shape": [3], "low": -1, "high": 1}
SCHEMA = latent_schema(
    rollout_schema(frame_shape=(64, 64), action_space=ACTIONS, observation_space={}),
    *gaussian_latents(LATENT_DIM, "float32"),
)


# Data


def synthetic(path: Path, num_rows: int) -> Path:
    """Latents of made-up drives of 600 to 1400 actions with values like those of CarRacing's; kept if they are there."""
    spec = LatentSpec(
        **{"schema": SCHEMA, "vae_sha256": "0" * 64, "source_spec_hash": "0" * 64, "dtype": "float32"},
        **{"precision": "fp32", "source": {"env": "synthetic", "rows": num_rows}},
    )
    with DatasetWriter(path, spec) as writer:
        number, rows = len(writer.entries), sum(entry.num_rows for entry in writer.entries)
        if rows < num_rows:
            print(f"making {num_rows:,} rows in {path} ...", flush=True)
        while rows < num_rows:
            rng = np.random.default_rng(number)
            first = number * EPISODES_PER_SHARD
            episodes = [synthetic_episode(rng, first + i) for i in range(EPISODES_PER_SHARD)]
            attributes = {"vae_sha256": "0" * 64, "source_sha256": "0" * 64}
            entry = writer.commit(number, build_shard(episodes, spec_hash=spec.hash, attributes=attributes))
            number, rows = number + 1, rows + entry.num_rows
    return path


def synthetic_episode(rng: np.random.Generator, episode_id: int) -> Episode:
    """Latents that swing slowly beside noise, and logvar around -6; the last, z[31], is the episode's number."""
    num_rows = int(rng.integers(601, 1402))
    phase, speed = rng.random((2, LATENT_DIM), np.float32)
    mu = 3 * np.sin(6.28 * phase + 0.1 * speed * np.arange(num_rows, dtype=np.float32)[:, None])
    mu += 0.3 * rng.standard_normal((num_rows, LATENT_DIM), np.float32)
    mu[:, -1] = episode_id
    ends = np.arange(num_rows) == num_rows - 2
    action, reward = rng.uniform(-1, 1, (num_rows, 3)).astype(np.float32), rng.uniform(-0.1, 3, num_rows).astype(np.float32)
    action[-1] = reward[-1] = np.nan
    logvar = rng.normal(-6.2, 0.8, (num_rows, LATENT_DIM)).astype(np.float32)
    outcome = {"action": action, "reward": reward, "terminated": np.zeros_like(ends), "truncated": ends}
    columns = {"mu": mu.astype(np.float32), "logvar": logvar, **outcome}
    return Episode(schema=SCHEMA, episode_id=episode_id, seed=episode_id, columns=columns)


# Speed

Contestants = dict[str, tuple[int, Iterator[Any]]]
"""Name -> how many windows it gives at once, and an endless stream of them."""


def endless(data: Any, batch_size: int) -> Iterator[Any]:
    """Epoch after epoch."""
    for epoch in count():
        yield from data.batches(batch_size, epoch)


def loaded(data: Any, batch_size: int, **settings: Any) -> Iterator[Any]:
    """Epoch after epoch through a DataLoader of PyTorch, in this process."""
    while True:
        yield from DataLoader(data, batch_size, **settings)


def indexed(columns: dict[str, torch.Tensor], batch_size: int) -> Iterator[Any]:
    """Plain code of a user for columns in memory; windows may cross episodes."""
    last = len(columns["mu"]) - LENGTH
    while True:
        rows = torch.randint(last, (batch_size, 1)) + torch.arange(LENGTH + 1)
        z = columns["mu"][rows] + columns["std"][rows] * torch.randn(*rows.shape, LATENT_DIM)
        yield z, {name: columns[name][rows[:, :-1]] for name in ("action", "reward", "terminated", "truncated")}


def read_one_by_one(path: Path) -> Iterator[Any]:
    """Plain code of a user for files: opens a random shard and reads a random window."""
    dataset = open_dataset(path)
    names = ("mu", "logvar", "action", "reward", "terminated", "truncated")
    rng = np.random.default_rng(0)
    while True:
        with h5py.File(dataset.shard_path(dataset.entries[rng.integers(len(dataset.entries))]), locking=False) as shard:
            start = int(rng.integers(len(shard["mu"]) - LENGTH))
            window = {name: shard[name][start : start + LENGTH + 1] for name in names}
        yield window["mu"] + np.exp(0.5 * window["logvar"]) * rng.standard_normal(window["mu"].shape, np.float32), window


def race(contestants: Contestants, rounds: int, seconds: float) -> dict[str, list[float]]:
    """For each the median windows per second, and per second of processor time, over rounds in turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for round_number in range(rounds + 1):
        for name, (size, stream) in contestants.items():
            for _ in range(BATCHES_AHEAD + 2):  # what was made ahead in the last round
                next(stream)
            start, worked, windows = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - start < seconds:
                next(stream)
                windows += size
            if round_number:
                found[name].append((windows / (time.perf_counter() - start), windows / (time.process_time() - worked)))
    return {name: [statistics.median(rates) for rates in zip(*rounds_, strict=True)] for name, rounds_ in found.items()}


def from_memory(path: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """In a separate process: what it takes to load, and the race of those that hold all rows in memory."""
    start, worked = time.perf_counter(), time.process_time()
    data = LatentSequences(path, length=LENGTH)
    loading = [time.perf_counter() - start, time.process_time() - worked, peak_mb()]
    contestants: Contestants = {
        "LatentSequences.batches, 1024 at once": (1024, endless(data, 1024)),
        "LatentSequences.batches, 64 at once": (64, endless(data, 64)),
        "DataLoader(LatentSequences), 64 at once": (64, loaded(data, 64, sampler=RandomSampler(data, num_samples=10**6))),
        "plain: columns[rows] + randn, 1024 at once": (1024, indexed(data._rows._columns, 1024)),
    }
    rates = race(contestants, rounds, seconds)
    data.sample = False
    rates |= race({"LatentSequences.batches, sample=False, 1024": (1024, endless(data, 1024))}, rounds, seconds)
    return {"loading": loading, "rates": rates}


def from_disk(path: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """In a separate process: what it takes to begin, and the race of those that read while they go."""
    start, worked = time.perf_counter(), time.process_time()
    stream = LatentStream(path, length=LENGTH)
    loading = [time.perf_counter() - start, time.process_time() - worked, peak_mb()]
    apart = LatentStream(path, length=LENGTH, stride=LENGTH)
    contestants: Contestants = {
        "LatentStream.batches, 1024 at once": (1024, endless(stream, 1024)),
        "LatentStream.batches, 64 at once": (64, endless(stream, 64)),
        f"LatentStream.batches, stride {LENGTH}, 1024": (1024, endless(apart, 1024)),
        "plain: h5py, window by window": (1, read_one_by_one(path)),
    }
    return {"loading": loading, "rates": race(contestants, rounds, seconds)}


def print_race(title: str, goal: int, found: dict[str, Any]) -> None:
    """A line for each contestant, and its ratio to the plain way."""
    wall, processor, peak = found["loading"]
    print(f"\n{title} (goal {goal:,} windows/s); load {load()}")
    print(f"  to begin: {wall:.1f} s, {processor:.1f} s of processor time, {peak:,.0f} MB at most")
    plain = next(rates for name, rates in found["rates"].items() if name.startswith("plain"))
    for name, (rate, per_processor) in found["rates"].items():
        print(
            f"  {name:45}{rate:10,.0f} windows/s {rate / plain[0]:7.2f} x plain; "
            f"{per_processor:10,.0f} per second of processor time {per_processor / plain[1]:7.2f} x"
        )


# Mixing


def mixing(path: Path) -> None:
    """Print how many episodes batches of a stream hold, against windows drawn uniformly from the whole dataset."""
    stream = LatentStream(path, length=LENGTH, sample=False)
    table = stream._windows
    rng = np.random.default_rng(0)
    print(f"\nEpisodes in a batch from disk, over uniform sampling's ({len(table.num_steps):,} episodes)")
    for batch_size, num_batches in ((64, 400), (1024, 200), (64 * 1024, 8)):
        uniform = statistics.fmean(
            len(np.unique(table.places(rng.integers(len(table), size=batch_size)).episode)) for _ in range(20)
        )
        with closing(stream.batches(batch_size)) as batches:
            found = [len(np.unique(batch["z"][:, 0, -1])) / uniform for batch in islice(batches, num_batches)]
        print(
            f"  {batch_size:6,} windows: {uniform * statistics.fmean(found):8.1f} of {uniform:8.1f}: "
            f"{statistics.fmean(found):.3f} (worst batch {min(found):.3f})"
        )


# Memory


def one_epoch(path: Path) -> dict[str, Any]:
    """In a separate process: peak memory before and after an epoch from disk, and how many windows it was."""
    before = peak_mb()
    stream = LatentStream(path, length=LENGTH, stride=16)
    windows = sum(len(batch["mask"]) for batch in stream.batches(1024))
    return {"before": before, "after": peak_mb(), "windows": windows, "rows": open_dataset(path).num_rows}


def print_memory(small: Path, large: Path) -> None:
    print("\nPeak memory of a process that goes through an epoch from disk (the libraries alone: before)")
    for path in (small, large):
        found = in_process(__file__, "one_epoch", path=path)
        print(
            f"  {found['rows']:12,} rows, {found['windows']:9,} windows: {found['after']:7,.0f} MB, "
            f"before {found['before']:,.0f} MB"
        )


CALLABLE = {"from_memory": from_memory, "from_disk": from_disk, "one_epoch": one_epoch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder where the synthetic latents stay; a temporary one if absent")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a round of one contestant takes")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        answer(arguments.call, CALLABLE)
        return
    cores = len(os.sched_getaffinity(0))
    print(f"{describe_machine(*PACKAGES)}\n{cores} cores to use, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory(prefix="wm-benchmark-") as folder:
        report(arguments, arguments.data or Path(folder))


def report(arguments: argparse.Namespace, folder: Path) -> None:
    """Make the data and run the requested parts."""
    small, large = (synthetic(folder / f"latents-{rows}", rows) for rows in (arguments.rows // 10, arguments.rows))
    timing = {"path": str(large), "rounds": arguments.rounds, "seconds": arguments.seconds}
    title = f"windows of {LENGTH} of {open_dataset(large).num_rows:,} rows, Z = {LATENT_DIM}"
    parts: dict[str, Callable[[], None]] = {
        "memory": lambda: print_race(f"From memory, {title}", 100_000, in_process(__file__, "from_memory", **timing)),
        "disk": lambda: print_race(f"From disk, {title}", 10_000, in_process(__file__, "from_disk", **timing)),
        "mixing": lambda: mixing(large),
        "rss": lambda: print_memory(small, large),
    }
    for name in arguments.only:
        parts[name]()


if __name__ == "__main__":
    main()
