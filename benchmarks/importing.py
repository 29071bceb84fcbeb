"""How many frames a second wm-import takes in, beside plain reading of the same files.

    python benchmarks/importing.py [--episodes 40] [--steps 300] [--turns 3]

The files hold CarRacing's frames at 64x64, or at 96x96 where they are resized. Importing hashes each file, reads it, compresses
it into shards, syncs these and verifies their SHA-256. Plain reading is `np.load` of every array, or minari's own iteration.
Both take turns; figures are medians. Seconds are of the processor, in all threads, so that other work on the machine does not
count; nor does waiting for the disk.
"""

from __future__ import annotations

import argparse
import io
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
from PIL import Image

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
    rollouts = work / "rollouts64"
    write_videos(rollouts, work / "video, H.264", ".mp4", "libx264", "yuv420p", crf="18")
    write_videos(rollouts, work / "video, ffv1", ".mkv", "ffv1", "bgr0", level="3")
    write_videos(work / "rollouts96", work / "video, H.264, 96x96 to 64x64", ".mp4", "libx264", "yuv420p", crf="18")
    write_pictures(rollouts, work / "pictures, PNG")
    write_swm(rollouts, work / "stable-worldmodel, HDF5")
    write_lance(rollouts, work / "stable-worldmodel, Lance.lance")
    return [
        ("npz", "npz", read_npz, {}),
        ("npz, compressed", "npz", read_npz, {}),
        ("npz, 96x96 to 64x64", "npz", read_npz, {"frame_size": 64}),
        ("hardmaru", "hardmaru", read_npz, {}),
        ("ctallec", "ctallec", read_npz, {}),
        ("minari, HDF5", "minari", read_minari, {}),
        ("video, H.264", "video", read_video, {}),
        ("video, ffv1", "video", read_video, {}),
        ("video, H.264, 96x96 to 64x64", "video", read_video, {"frame_size": 64}),
        ("pictures, PNG", "video", read_pictures, {}),
        ("stable-worldmodel, HDF5", "stable-worldmodel", read_hdf5, {}),
        ("stable-worldmodel, Lance.lance", "stable-worldmodel", read_lance, {}),
    ]


def read_video(folder: Path) -> None:
    """As most programs do: PyAV makes a converter for each frame."""
    import av

    for file in folder.glob("*.m*"):
        with av.open(str(file)) as video:
            video.streams.video[0].codec_context.thread_count = 1
            for frame in video.decode(video=0):
                frame.to_ndarray(format="rgb24")


def read_pictures(folder: Path) -> None:
    for file in folder.rglob("*.png"):
        with Image.open(file) as picture:
            np.asarray(picture.convert("RGB"))


def read_lance(folder: Path) -> None:
    import lance

    for batch in lance.dataset(folder).to_batches():
        for content in batch["pixels"]:
            with Image.open(io.BytesIO(content.as_py())) as picture:
                np.asarray(picture.convert("RGB"))


def read_hdf5(folder: Path) -> None:
    import h5py
    import hdf5plugin  # noqa: F401

    for path in folder.glob("*.h5"):
        with h5py.File(path) as file:
            for start, length in zip(file["ep_offset"][:], file["ep_len"][:], strict=True):
                file["pixels"][start : start + length]


def write_videos(rollouts: Path, out: Path, ending: str, codec: str, pixels: str, **options: str) -> None:
    """The episodes as videos, with their actions and rewards in npz."""
    import av

    out.mkdir()
    dataset = open_dataset(rollouts)
    for number in range(dataset.num_episodes):
        episode = dataset.episode(number)
        np.savez(out / f"{number}.npz", action=episode.action[:-1], reward=episode.reward[:-1])
        with av.open(str(out / f"{number}{ending}"), "w") as video:
            stream = video.add_stream(codec, rate=50, options=options)
            stream.height, stream.width, stream.pix_fmt = *episode.pixels.shape[1:3], pixels
            for frame in episode.pixels:
                video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            video.mux(stream.encode())


def write_pictures(rollouts: Path, out: Path) -> None:
    out.mkdir()
    dataset = open_dataset(rollouts)
    for number in range(dataset.num_episodes):
        episode = dataset.episode(number)
        np.savez(out / f"{number}.npz", action=episode.action[:-1], reward=episode.reward[:-1])
        (out / str(number)).mkdir()
        for step, frame in enumerate(episode.pixels):
            Image.fromarray(frame).save(out / str(number) / f"{step}.png")


def write_swm(rollouts: Path, out: Path) -> None:
    """As stable-worldmodel's recorder and HDF5Writer: a chunk for each row, not compressed, outcomes a row later."""
    import h5py

    out.mkdir()
    dataset = open_dataset(rollouts)
    with h5py.File(out / "swm.h5", "w", libver="latest") as file:
        first = 0
        for number in range(dataset.num_episodes):
            episode = dataset.episode(number)
            length = episode.num_rows
            reward = np.concatenate([[np.nan], episode.reward[:-1]])
            rows = {"pixels": episode.pixels, "action": episode.action, "reward": reward}
            for name, column in {**rows, "ep_len": np.int32([length]), "ep_offset": np.int64([first])}.items():
                shape = column.shape[1:]
                stored = (
                    file.require_dataset(name, (0, *shape), column.dtype, maxshape=(None, *shape), chunks=(1, *shape))
                    if (name not in file)
                    else file[name]
                )
                stored.resize(len(stored) + len(column), axis=0)
                stored[-len(column) :] = column
            first += length


def write_lance(rollouts: Path, out: Path) -> None:
    """As its LanceWriter: JPEG of quality 95, numbers as lists of float32."""
    import lance
    import pyarrow as pa

    dataset, parts = open_dataset(rollouts), []
    for number in range(dataset.num_episodes):
        episode = dataset.episode(number)
        reward = np.concatenate([[np.nan], episode.reward[:-1]]).astype(np.float32)
        index = np.full(episode.num_rows, number, np.int32)
        numbers = {"action": episode.action, "reward": reward[:, None]}
        lists = {
            name: pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1]) for name, rows in numbers.items()
        }
        pictures = pa.array([jpeg(frame) for frame in episode.pixels], pa.binary())
        parts.append(pa.table({"episode_idx": index, "pixels": pictures, **lists}))
    lance.write_dataset(pa.concat_tables(parts), out)


def jpeg(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=95)
    return stream.getvalue()


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
    print(describe_machine("numpy", "h5py", "hdf5plugin", "minari", "av", "pillow", "pylance"))
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
