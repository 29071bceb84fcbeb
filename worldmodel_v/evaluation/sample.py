"""Frames of the held-out episodes, with their recorded columns.

Legend: N frames, S state factors, K size of the condition, H, W, C.

Memory depends only on the picked frames, not on the dataset's size: shards are opened one after the other, and only chunks
that hold a picked frame are decompressed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder, frames_to_input
from worldmodel_v.autoencoders.artifact import Training
from worldmodel_v.data import Split
from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.evaluation.conditions import condition_rows
from worldmodel_v.evaluation.config import MIN_FRAMES
from worldmodel_v.evaluation.grids import to_frames
from worldmodel_v.evenly import evenly_spaced
from worldmodel_v.origins import collections_of
from worldmodel_v.progress import Progress
from worldmodel_v.storage import Rollouts, Shard
from worldmodel_v.storage.layout import PIXEL_CHUNK_ROWS
from worldmodel_v.words import counted, ordinal


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Held-out frames, in the dataset's order."""

    frames: np.ndarray
    """uint8 (N, H, W, 3): as recorded, which is what is encoded."""

    seen: np.ndarray
    """uint8 (N, H, W, 3): as pictures show them; see `as_seen`."""

    episode: np.ndarray
    """int64 (N,): the episode of each frame."""

    row: np.ndarray
    """int64 (N,): the frame's row in its episode."""

    action: np.ndarray
    """float32 (N, A), or int64 (N,) for discrete actions; NaN or -1 in an episode's final row."""

    state: np.ndarray
    """float32 (N, S): the recorded ground truth; S = 0 if there is none."""

    state_names: tuple[str, ...]

    condition: np.ndarray
    """float32 (N, K): the condition of a conditional VAE; K = 0 for the others."""

    def __len__(self) -> int:
        return len(self.frames)


def choose_holdout(asked: int | None, training: Training, dataset: Rollouts) -> int:
    """The k of "every k-th episode is held out"; raises ConfigError if it would evaluate on training frames."""
    if asked is None or asked == training.holdout_every:
        return training.holdout_every
    if has_trained_on(training, dataset):
        raise ConfigError(
            f"the VAE was trained on these rollouts with every {ordinal(training.holdout_every)} episode held out, so others "
            "are no test of it",
            field="holdout_every",
            got=asked,
            remedy="leave it out",
        )
    return asked


def has_trained_on(training: Training, dataset: Rollouts) -> bool:
    """Whether a training saw episodes of a collection that the dataset has episodes of."""
    return not {*(training.selected_from or (training.data_spec_hash,))}.isdisjoint(collections_of(dataset.spec))


def read_sample(dataset: Rollouts, model: Autoencoder, *, holdout_every: int, limit: int, progress: Progress) -> Sample:
    """At most `limit` frames, evenly spaced over the held-out episodes; raises DatasetNotUsable or ShardDamaged."""
    split = Split(dataset, holdout_every)
    split.require_both()
    total = sum(len(rows) for _, rows in _heldout_rows(dataset, split))
    if total < MIN_FRAMES:
        raise DatasetNotUsable(
            f"its held-out episodes (every {ordinal(holdout_every)}) have {counted(total, 'frame')}, {MIN_FRAMES} are needed",
            where=dataset.name,
            remedy="collect more episodes",
        )
    picked = evenly_spaced(total, limit)
    task = progress.task("read", len(picked), "frames")
    parts: list[dict[str, Any]] = []
    first = 0
    for shard, rows in _heldout_rows(dataset, split):
        inside = picked[(picked >= first) & (picked < first + len(rows))] - first
        if inside.size:
            parts.append(_columns(shard, rows[inside], model))
            task.advance(len(inside))
        first += len(rows)
    task.close()
    names = {part.pop("state_names") for part in parts}
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Sample(state_names=names.pop(), seen=columns.pop("seen", columns["frames"]), **columns)


def _heldout_rows(dataset: Rollouts, split: Split) -> Iterator[tuple[Shard, np.ndarray]]:
    """Each shard with held-out episodes, open, and their rows in it: int64 (n,)."""
    entries = [
        entry
        for entry in dataset.entries
        if any(split.is_held_out(episode) for episode in range(entry.first_episode, entry.end_episode))
    ]
    for _, shard in dataset.shards(entries):
        keep = [split.is_held_out(int(episode)) for episode in shard.episode_ids]
        yield shard, np.flatnonzero(np.repeat(keep, shard.ep_len))


def _columns(shard: Shard, rows: np.ndarray, model: Autoencoder) -> dict[str, Any]:
    """The columns of some rows of a shard."""
    position = np.searchsorted(shard.ep_offset, rows, side="right") - 1
    state = shard.rows("state") if shard.state_names else np.zeros((shard.num_rows, 0), np.float32)
    frames = _frames(shard, rows)
    return {
        "frames": frames,
        **({} if model.config.channels == 3 else {"seen": as_seen(frames, model)}),
        "episode": shard.episode_ids[position].astype(np.int64),
        "row": rows - shard.ep_offset[position],
        "action": shard.rows("action")[rows],
        "state": state[rows],
        "state_names": shard.state_names,
        "condition": condition_rows(shard, model, 0, shard.num_rows)[rows],
    }


def as_seen(frames_NHWC: np.ndarray, model: Autoencoder) -> np.ndarray:
    """The frames as the VAE sees them: for a VAE with a single channel they are grey, so missing colours are no error. The
    brightness is rounded, so they are to be looked at, and the recorded ones to be encoded."""
    if model.config.channels == 3:
        return frames_NHWC
    return to_frames(frames_to_input(torch.from_numpy(frames_NHWC), model.config.channels))


def _frames(shard: Shard, rows: np.ndarray) -> np.ndarray:
    """The frames of some ascending rows; it reads only those blocks of 64 rows that contain one of them."""
    parts = []
    for window in np.unique(rows // PIXEL_CHUNK_ROWS):
        start = int(window) * PIXEL_CHUNK_ROWS
        stop = min(start + PIXEL_CHUNK_ROWS, shard.num_rows)
        wanted = rows[(rows >= start) & (rows < stop)] - start
        parts.append(shard.rows("pixels", start, stop)[wanted])
    return np.concatenate(parts)
