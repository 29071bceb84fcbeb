"""The cost of a hundred times the episodes: per frame, at the start of a run, and in the one process that commits.

    python benchmarks/scale.py [frames] [index] [committer] [--episodes N] [--shards N] [--rounds N] [--folder DIR]

frames      CPU time and wall time of collecting, encoding and verifying a frame, for 1, 10 and 100 times the episodes (the
            toy world, one process). Equal times mean that the cost per frame does not grow with the dataset.
index       opening and continuing datasets of 100,000 shards. The shards that are not opened are hard links to one file.
committer   bytes per second that one process takes from Ray and commits, and for how many cores of CarRacing this is enough.

Sizes are measured on the disk of --folder (default: the temporary folder).
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from _machine import describe_machine

from worldmodel_v.autoencoders.artifact import from_bytes, read_weights
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.collection.block import Block, block_collector
from worldmodel_v.collection.collector import resolve_spec
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.encoding.encoder import EncoderSettings, EncodeTask, shard_encoder
from worldmodel_v.envs.fast_car_racing import warm_up
from worldmodel_v.execution import RayPool, WorkerSettings, map_tasks
from worldmodel_v.sources import GymSource
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import DatasetWriter, IndexEntry, open_dataset, verify
from worldmodel_v.storage.checksum import sha256_of_file
from worldmodel_v.storage.index import INDEX_NAME, shard_name
from worldmodel_v.storage.publish import publish_new
from worldmodel_v.storage.writer import SHARDS_OPENED
from worldmodel_v.training import TrainConfig, train

TOY = {"env": "worldmodel_v/Stamp-v0", "policy": "random", "workers": 0, "seed": 1}
REPETITIONS = {1: 10, 10: 3, 100: 1}
"""Multiple of the episodes -> number of measurements."""

LINKS_TO_A_FILE = 30_000
STEPS_PER_SECOND_AND_CORE = 4_000
"""The speed of worldmodel_v/CarRacing-v3 (benchmarks/collect.py)."""

PACKAGES = ("numpy", "h5py", "hdf5plugin", "torch", "ray")


@contextmanager
def clock(cpu: list[float], wall: list[float]) -> Iterator[None]:
    """Add the CPU and wall seconds of a block."""
    start = time.process_time(), time.perf_counter()
    yield
    cpu.append(time.process_time() - start[0])
    wall.append(time.perf_counter() - start[1])


# The cost of a frame


def toy_vae(folder: Path) -> Path:
    """A VAE that has seen a little of the toy world."""
    collect(CollectConfig(out=folder / "seen", episodes=8, episodes_per_shard=4, **TOY))
    settings = {"steps": 2, "batch_size": 16, "latent_dim": 8, "architecture": "conv", "holdout_every": 4, "device": "cpu"}
    train(TrainConfig(data=folder / "seen", out=folder / "vae", **settings))
    return folder / "vae"


def compare_frames(folder: Path, episodes: int) -> None:
    """Print the cost of a frame for each multiple of `episodes`."""
    vae = toy_vae(folder)
    costs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for multiple, repetitions in REPETITIONS.items():
        for number in range(repetitions):
            measure_frames(folder / f"{multiple}-{number}", vae, episodes * multiple, multiple, costs)
    print(f"\nMicroseconds a frame, CPU (and wall), {episodes} episodes of 21 to 24 frames, 3 to a shard, times 1, 10, 100")
    print(f"| {'stage':10} | " + " | ".join(f"{f'times {multiple}':>20}" for multiple in REPETITIONS) + " | 100 / 1, CPU |")
    print("|---|" + "---|" * (len(REPETITIONS) + 1))
    for stage in ("collect", "encode", "verify"):
        medians = [tuple(map(statistics.median, zip(*costs[stage, multiple], strict=True))) for multiple in REPETITIONS]
        cells = " | ".join(f"{f'{1e6 * cpu:.1f} ({1e6 * wall:.1f})':>20}" for cpu, wall in medians)
        print(f"| {stage:10} | {cells} | {medians[-1][0] / medians[0][0]:12.2f} |")


def measure_frames(
    folder: Path, vae: Path, episodes: int, multiple: int, costs: dict[tuple[str, int], list[tuple[float, float]]]
) -> None:
    rollouts, latents = folder / "rollouts", folder / "latents"
    stages: dict[str, Callable[[], object]] = {
        "collect": lambda: collect(CollectConfig(out=rollouts, episodes=episodes, episodes_per_shard=3, **TOY)),
        "encode": lambda: encode(EncodeConfig(data=rollouts, vae=vae, out=latents, device="cpu")),
        "verify": lambda: [verify(open_dataset(path)) for path in (rollouts, latents)],
    }
    for stage, work in stages.items():
        cpu, wall = [], []
        with clock(cpu, wall):
            work()
        frames = open_dataset(rollouts).num_rows
        costs.setdefault((stage, multiple), []).append((cpu[0] / frames, wall[0] / frames))
    shutil.rmtree(folder)


# A hundred thousand shards


def pretend(dataset: Path, num_shards: int, make: Callable[[int], bytes], source: Callable[[int], str | None]) -> None:
    """Fill a dataset up to `num_shards` shards of one episode: real ones at the end, links to shard 1 before them."""
    image = make(1)
    lines = []
    for number in range(1, num_shards):
        path = dataset / shard_name(number)
        is_real = number >= num_shards - SHARDS_OPENED
        if is_real or number % LINKS_TO_A_FILE == 1:
            path.write_bytes(make(number) if is_real else image)
        else:
            os.link(dataset / shard_name((number - 1) // LINKS_TO_A_FILE * LINKS_TO_A_FILE + 1), path)
        if is_real or number == 1:
            size, digest = path.stat().st_size, sha256_of_file(path)
        entry = IndexEntry(
            shard=number,
            first_episode=number,
            num_episodes=1,
            num_rows=6,
            bytes=size,
            sha256=digest,
            source_sha256=source(number),
        )
        lines.append(entry.to_line() + "\n")
    with (dataset / INDEX_NAME).open("a") as index:
        index.writelines(lines)


def time_index(folder: Path, num_shards: int, rounds: int) -> None:
    """Print what opening and continuing datasets of `num_shards` shards takes."""
    config = CollectConfig(out=folder / "rollouts", episodes=1, episodes_per_shard=1, max_steps=5, **TOY)
    collect(config)
    settings = {"steps": 1, "batch_size": 4, "latent_dim": 8, "architecture": "conv", "holdout_every": 2, "device": "cpu"}
    collect(CollectConfig(**{**vars(config), "out": folder / "seen", "episodes": 2}))
    train(TrainConfig(data=folder / "seen", out=folder / "vae", **settings))
    make_rollouts = block_collector(GymSource(resolve_spec(config)))
    pretend(config.out, num_shards, lambda number: make_rollouts(Block(number, number, 1)), lambda number: None)

    rollouts = open_dataset(config.out)
    first = CollectConfig(**{**vars(config), "out": folder / "first"})
    collect(first)
    encoding = EncodeConfig(data=config.out, vae=folder / "vae", out=folder / "latents", device="cpu")
    encode(EncodeConfig(**{**vars(encoding), "data": first.out}))
    weights = read_weights(encoding.vae)
    encoder = shard_encoder(
        EncoderSettings(
            weights=weights,
            spec_hash=open_dataset(encoding.out).spec_hash,
            schema=open_dataset(encoding.out).schema,
            source_schema=rollouts.schema,
            vae_sha256=from_bytes(weights, "the VAE").sha256,
            **{name: getattr(encoding, name) for name in ("autoencoder", "device", "precision", "compile", "batch_size")},
        )
    )
    entries = {entry.shard: entry for entry in rollouts.entries}

    def make_latents(number: int) -> bytes:
        path = rollouts.shard_path(entries[number])
        return encoder(EncodeTask(entries[number], path.read_bytes(), str(path)))

    pretend(encoding.out, num_shards, make_latents, lambda number: entries[number].sha256)
    everything = CollectConfig(**{**vars(config), "episodes": num_shards})
    work = {
        "open a dataset": lambda: open_dataset(config.out),
        "wm-collect again: all is there": lambda: collect(everything),
        "wm-encode again: all is there": lambda: encode(encoding),
    }
    print(f"\n{num_shards:,} shards, an index of {(config.out / INDEX_NAME).stat().st_size / 1e6:.1f} MB: median of {rounds}")
    for what, do in work.items():
        cpu, wall = [], []
        for _ in range(rounds):
            with clock(cpu, wall):
                do()
        print(f"  {what:34}{statistics.median(wall):6.2f} s{statistics.median(cpu):8.2f} s of CPU")


# The single committer


def returns(image: bytes, _: int) -> bytes:
    return image


def time_committer(folder: Path, rounds: int) -> None:
    """Print how fast shards of CarRacing are committed, and what that means for a cluster."""
    warm_up()
    rows = [committing(folder / str(episodes), episodes, rounds) for episodes in (1, 10, 30)]
    print("\nThe single committer, shards of CarRacing (1,000 steps an episode)")
    headings = ("episodes", "MB", "write, sync", "open, hash", "index line", "commit, ms", "MB/s", "frames/s", "cores busy")
    print("| " + " | ".join(headings) + " | 10,000 episodes, h |")
    print("|" + "---|" * (len(headings) + 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(f"\n(cores: at {STEPS_PER_SECOND_AND_CORE:,} steps a second each; write, sync and so on in ms)")


def committing(folder: Path, episodes: int, rounds: int) -> tuple[str, ...]:
    """One row of the table: medians over `rounds` commits of the same bytes under different numbers."""
    spec = car_racing(folder / "data", episodes)
    image = block_collector(GymSource(spec))(Block(0, 0, episodes))
    frames = episodes * 1001
    commit, publish = [], []
    ignored: list[float] = []
    with DatasetWriter(folder / "data", spec) as writer:
        for number in range(rounds):
            with clock(ignored, commit):
                entry = writer.commit(number, image)
            with clock(ignored, publish):
                publish_new(folder / "data" / f"alone-{number}", image)
        file = folder / "data" / entry.name
        opened, digested = [], []
        for _ in range(rounds):
            with clock(ignored, opened):
                writer.dataset().open_shard(entry).close()
            with clock(ignored, digested):
                sha256_of_file(file)
    seconds, written = statistics.median(commit), statistics.median(publish)
    read = statistics.median(opened) + statistics.median(digested)
    shutil.rmtree(folder)
    rate = frames / seconds
    return (
        f"{episodes}",
        f"{len(image) / 1e6:.1f}",
        *(f"{1e3 * value:.1f}" for value in (written, read, max(seconds - written - read, 0.0), seconds)),
        f"{len(image) / seconds / 1e6:.0f}",
        f"{rate:,.0f}",
        f"{rate / STEPS_PER_SECOND_AND_CORE:.0f}",
        f"{1e4 * 1001 / rate / 3600:.2f}",
    )


def car_racing(out: Path, episodes: int) -> RolloutSpec:
    return resolve_spec(CollectConfig(out=out, env="worldmodel_v/CarRacing-v3", episodes_per_shard=episodes, seed=3))


def time_transport(rounds: int) -> None:
    """Print how fast the driver takes bytes from a worker on this machine, through Ray's object store."""
    image, seconds = os.urandom(12_000_000), []
    pool = RayPool(WorkerSettings(num_workers=1))
    send = map_tasks(pool, functools.partial(functools.partial, returns, image), range(rounds + 4))
    last = None
    for number, _ in enumerate(send):
        now = time.perf_counter()
        if last is not None and number > 2:
            seconds.append(now - last)
        last = now
    print(f"\nThrough Ray, from one worker on this machine, shards of 12 MB: {12 / statistics.median(seconds):.0f} MB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help="frames, index, committer; all of them by default")
    parser.add_argument("--episodes", type=int, default=60, help="episodes of the smallest dataset of `frames`")
    parser.add_argument("--shards", type=int, default=100_000, help="of `index`")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of `index`, and a quarter of those of `committer`")
    parser.add_argument("--folder", type=Path, help="where to write; it decides which disk is measured")
    arguments = parser.parse_args()
    parts = arguments.parts or ["frames", "index", "committer"]
    print(describe_machine(*PACKAGES))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if "frames" in parts:
            compare_frames(Path(folder) / "frames", arguments.episodes)
        if "index" in parts:
            time_index(Path(folder) / "index", arguments.shards, arguments.rounds)
        if "committer" in parts:
            time_committer(Path(folder) / "committer", 4 * arguments.rounds)
            time_transport(4 * arguments.rounds)


if __name__ == "__main__":
    main()
