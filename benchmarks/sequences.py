"""How many windows a second an MDN-RNN gets, from memory and from disk, how well they are mixed, and in how much memory.

    python benchmarks/sequences.py [--data FOLDER] [--only memory disk mixing rss]

It makes two synthetic latent datasets first (10 million rows at Z = 32 as the paper has them, and a tenth of that), in
FOLDER if it is given, where they stay and are found again. The goals are for windows of 32, shuffled, latents drawn anew,
on 2 cores: 100,000 windows a second from memory and 10,000 from disk. Beside them, what a user would write: random windows
read through h5py one after the other (from files opened once), and an index into arrays in memory. Every contestant runs in
a process of its own, in turns; figures are medians of the rounds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worldmodel_v.records import LatentSequence
from worldmodel_v.spec import LatentSpec
from worldmodel_v.storage import DatasetWriter, build_shard

PACKAGES = ("torch", "numpy", "h5py")
PARTS = ("memory", "disk", "mixing", "rss")
LENGTH = 32
LATENT_DIM = 32
EPISODES_PER_SHARD = 10


# Data


def synthetic(path: Path, num_rows: int) -> Path:
    """Latents of made-up drives of 600 to 1400 actions with values like those of CarRacing's; kept if they are there."""
    spec = LatentSpec(
        **{"vae_sha256": "0" * 64, "source_spec_hash": "0" * 64, "latent_dim": LATENT_DIM, "dtype": "float32"},
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


def synthetic_episode(rng: np.random.Generator, episode_id: int) -> LatentSequence:
    """Latents that swing slowly beside noise, and logvar around -6; the last, z[31], is the episode's number."""
    num_rows = int(rng.integers(601, 1402))
    phase, speed = rng.random((2, LATENT_DIM), np.float32)
    mu = 3 * np.sin(6.28 * phase + 0.1 * speed * np.arange(num_rows, dtype=np.float32)[:, None])
    mu += 0.3 * rng.standard_normal((num_rows, LATENT_DIM), np.float32)
    mu[:, -1] = episode_id
    ends = np.arange(num_rows) == num_rows - 2
    action, reward = rng.uniform(-1, 1, (num_rows, 3)).astype(np.float32), rng.uniform(-0.1, 3, num_rows).astype(np.float32)
    action[-1] = reward[-1] = np.nan
    return LatentSequence(
        episode_id=episode_id,
        seed=episode_id,
        mu=mu.astype(np.float32),
        logvar=rng.normal(-6.2, 0.8, (num_rows, LATENT_DIM)).astype(np.float32),
        action=action,
        reward=reward,
        terminated=np.zeros_like(ends),
        truncated=ends,
    )
