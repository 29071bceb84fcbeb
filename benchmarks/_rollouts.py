"""Makes rollouts for benchmarks that get none, and repeats rollouts to get more."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from worldmodel_v.storage import Dataset, DatasetWriter
from worldmodel_v.storage.dataset import read_spec


def collect_rollouts(out: Path) -> Path:
    """40 episodes of CarRacing, 250 actions each."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    from _quickstart import quickstart_policy

    from worldmodel_v.collection import CollectConfig, collect

    print("collecting 40 episodes of CarRacing ...", flush=True)
    policy = quickstart_policy()
    collect(CollectConfig(out=out, episodes=40, max_steps=250, workers=0, policy=policy, episodes_per_shard=2))
    return out


def repeated(source: Dataset, out: Path, num_frames: int) -> Path:
    """The shards of `source`, repeated under new episode numbers until there are `num_frames`."""
    images = [source.shard_path(entry).read_bytes() for entry in source.entries]
    with DatasetWriter(out, read_spec(source.path)) as writer:
        rows = episodes = number = 0
        while rows < num_frames:
            entry = writer.commit(number, renumbered(images[number % len(images)], episodes))
            rows, episodes, number = rows + entry.num_rows, episodes + entry.num_episodes, number + 1
    return out


def renumbered(image: bytes, first_episode: int) -> bytes:
    """A shard's bytes, with its episodes counted from `first_episode`."""
    with h5py.File.in_memory(image, libver=("v110", "v110")) as file:
        table, episodes = file["ep_len"], file["ep_idx"]
        episodes[:] += first_episode - episodes[0]
        table.attrs["episode_id"] = np.arange(first_episode, first_episode + len(table), dtype=np.int64)
        file.flush()
        return bytes(file.id.get_file_image())
