"""How many frames a second wm-import takes in, beside plain reading of the same files.

    python benchmarks/importing.py [--episodes 40] [--steps 300] [--turns 3]

The files hold CarRacing's frames at 64x64, or at 96x96 where they are resized. Importing hashes each file, reads it, compresses
it into shards, syncs these and verifies their SHA-256. Plain reading is `np.load` of every array, or minari's own iteration.
Both take turns; figures are medians. Seconds are of the processor, in all threads, so that other work on the machine does not
count; nor does waiting for the disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _machine import describe_machine

from worldmodel_v import CollectConfig, collect, import_recordings, open_dataset
from worldmodel_v.export import FORMATS as EXPORTS
from worldmodel_v.export import export
from worldmodel_v.importing import FORMATS

Made = tuple[str, str, Callable[[Path], None], dict[str, object]]
"""A line of the table: what the files are, their format, how they are read plainly, and options of the import."""


def read_npz(folder: Path) -> None:
    for file in folder.rglob("*.npz"):
        with np.load(file) as npz:
            for name in npz.files:
                npz[name]


def read_minari(folder: Path) -> None:
    import minari

    for episode in minari.MinariDataset(folder / "data"):
        assert len(episode.observations)


def resave(folder: Path, save: Callable[..., None], out: Path, names: dict[str, str]) -> None:
    """The episodes of `folder` with arrays of other names, each saved with `save`."""
    out.mkdir()
    for number, file in enumerate(sorted(folder.rglob("*.npz"))):
        with np.load(file) as npz:
            save(out / f"{number}.npz", **{name: npz[array] for name, array in names.items()})


def make(work: Path, episodes: int, steps: int) -> list[Made]:
    """The recordings, each in a folder named as its line."""
    for size in (64, 96):
        out = work / f"rollouts{size}"
        collect(CollectConfig(out=out, episodes=episodes, max_steps=steps, frame_size=size, workers=0))
        export(EXPORTS["npz"](data=out, out=work / f"packed{size}"))
    same = {name: name for name in ("pixels", "action", "reward", "terminated", "truncated")}
    resave(work / "packed64", np.savez, work / "npz", same)
    resave(work / "packed64", np.savez_compressed, work / "npz, compressed", same)
    resave(work / "packed96", np.savez, work / "npz, 96x96 to 64x64", same)
    resave(work / "packed64", np.savez_compressed, work / "hardmaru", {"obs": "pixels", "action": "action"})
    export(EXPORTS["ctallec"](data=work / "rollouts64", out=work / "ctallec"))
    export(EXPORTS["minari"](data=work / "rollouts64", out=work / "minari-v0"))
    (work / "minari-v0").rename(work / "minari, HDF5")
    return [
        ("npz", "npz", read_npz, {}),
        ("npz, compressed", "npz", read_npz, {}),
        ("npz, 96x96 to 64x64", "npz", read_npz, {"frame_size": 64}),
        ("hardmaru", "hardmaru", read_npz, {}),
        ("ctallec", "ctallec", read_npz, {}),
        ("minari, HDF5", "minari", read_minari, {}),
    ]


def seconds(work: Callable[..., object], argument: object) -> float:
    """Of the processor."""
    start = time.process_time()
    work(argument)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(describe_machine("numpy", "h5py", "hdf5plugin", "minari"))
    print(f"{args.episodes} episodes of {args.steps} actions\n")
    print("| files | frames/s imported | frames/s read plainly | reading alone takes |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        work, out = Path(folder), Path(folder) / "out"
        for title, name, read, options in make(work, args.episodes, args.steps):
            config = FORMATS[name](from_=work / title, out=out, alignment=False, **options)  # type: ignore[arg-type]
            times = []
            for _ in range(args.turns + 1):
                shutil.rmtree(out, ignore_errors=True)
                times.append((seconds(import_recordings, config), seconds(read, work / title)))
            frames = open_dataset(out).num_rows
            imported, plain = (statistics.median(column[1:]) for column in zip(*times, strict=True))
            print(f"| {title} | {frames / imported:,.0f} | {frames / plain:,.0f} | {plain / imported:.0%} of the time |")


if __name__ == "__main__":
    main()
