"""Rows of a dataset for the verdict: some thousands, spread evenly over its episodes.

A dataset of any size is judged on as many rows, in less than a minute. Which ones is a function of the dataset alone.
"""

import math

import numpy as np

from worldmodel_v.alignment.gains import Rows
from worldmodel_v.alignment.regression import standardized
from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.evenly import evenly_spaced
from worldmodel_v.notebook import shown
from worldmodel_v.progress import Progress
from worldmodel_v.schema import MAX_CHOICES, Column, Schema
from worldmodel_v.spec import Spec
from worldmodel_v.storage import Dataset, Shard

MOST_ROWS, LONGEST = 6000, 400
"""How many rows are read, and how many of an episode, from its middle, if there are enough episodes."""

SIDE, MOST_VALUES, MOST_ACTION_VALUES = 16, 768, 32
"""Frames are averaged to so many pixels a side; latents and actions of more values are projected onto random directions.
Numbers beside the frames are left out if a row of them has more values."""

LARGEST = 1e100
"""Squares of larger numbers are infinite."""

TOKEN_VALUES = 8
"""How many random numbers stand for a token."""


def read_rows(dataset: Dataset[Spec], progress: Progress | None = None) -> list[Rows]:
    """Episodes, or their middles, evenly spaced over the dataset; raises DatasetNotUsable if it is empty."""
    if not dataset.num_episodes:
        raise DatasetNotUsable("the dataset is empty", where=dataset.path, remedy="let the command that writes it finish")
    longest = max(LONGEST, MOST_ROWS // dataset.num_episodes)
    per_episode = min(longest, dataset.num_rows / dataset.num_episodes)
    picked = evenly_spaced(dataset.num_episodes, -int(-MOST_ROWS // per_episode))
    task = shown(progress).task(f"read {dataset.path.name}", len(picked), "episodes")
    episodes, begin = [], 0
    chosen = []
    for entry in dataset.entries:
        positions = picked[(begin <= picked) & (picked < begin + entry.num_episodes)] - begin
        begin += entry.num_episodes
        if len(positions):
            chosen.append((entry, positions.tolist()))
    opened = dataset.shards([entry for entry, _ in chosen])
    for (_, positions), (_, shard) in zip(chosen, opened, strict=True):
        for position in positions:
            episodes.append(_read(shard, dataset.schema, position, longest))
            task.advance()
    task.close()
    return with_scaled_numbers(episodes) if _numbers(dataset.schema) else episodes


def _numbers(schema: Schema) -> list[Column]:
    """The state, and parts of the observation that were recorded beside the frames. Other columns do not say when they were
    measured, and some hold the action itself."""
    seen = [column for column in schema.by_role("extra") if column.name.split(".")[0] == "observation"]
    return [column for column in (*schema.by_role("state"), *seen) if math.prod(column.row_shape) <= MOST_VALUES]


def _read(shard: Shard, schema: Schema, position: int, longest: int) -> Rows:
    """The middle rows of an episode, at most `longest` and the one after them."""
    length = int(shard.ep_len[position]) - 1
    start = int(shard.ep_offset[position]) + max(0, length - longest) // 2
    stop = start + min(length, longest)
    spread = {name for draw in schema.draws for name in draw.columns[1:]}
    seen = [column for column in schema.by_role("observation", "latent") if column.name not in spread]
    numbers = [shard.rows(column.name, start, stop + 1).reshape(stop + 1 - start, -1) for column in _numbers(schema)]
    action, reward = (schema.by_role(role)[0] for role in ("action", "reward"))
    taken, is_few = shard.rows(action.name, start, stop), schema.actions.vector_size <= MAX_CHOICES
    vectors = schema.actions.vectors(taken) if is_few else taken.reshape(len(taken), -1)  # a verdict needs no one-hot vectors
    return Rows(
        observation=(
            *(_values(shard.rows(column.name, start, stop + 1), column) for column in seen),
            *([np.concatenate(numbers, axis=1, dtype=np.float64)] if numbers else []),
        ),
        action=_projected(vectors.astype(np.float64), MOST_ACTION_VALUES),
        reward=np.zeros(stop - start) if reward.absent else shard.rows(reward.name, start, stop).astype(np.float64),
    )


def _values(rows: np.ndarray, column: Column) -> np.ndarray:
    """float64 (N, D), D at most MOST_VALUES: frames averaged, tokens as random numbers, all else as it is."""
    if column.role == "observation":
        return averaged(rows)
    if column.num_values is not None:
        rows = np.random.default_rng(0).standard_normal((column.num_values, TOKEN_VALUES))[rows]
    return _projected(rows.reshape(len(rows), -1).astype(np.float64), MOST_VALUES)


def _projected(values: np.ndarray, most: int) -> np.ndarray:
    """(N, at most `most`): values (N, D) as they are, or in random directions."""
    if values.shape[1] <= most:
        return values
    return values @ np.random.default_rng(0).standard_normal((values.shape[1], most)) / np.sqrt(values.shape[1])


def averaged(frames: np.ndarray) -> np.ndarray:
    """float64 (N, at most SIDE * SIDE * 3), in [0, 1]: means of frames (N, H, W, 3) over areas."""
    sums = frames.astype(np.float64) / 255
    for axis in (1, 2):
        edges = np.linspace(0, frames.shape[axis], min(SIDE, frames.shape[axis]), endpoint=False).astype(int)
        sizes = np.diff(edges, append=frames.shape[axis])
        sums = np.add.reduceat(sums, edges, axis=axis) / np.expand_dims(sizes, tuple(i for i in range(4) if i != axis))
    return sums.reshape(len(frames), -1)


def with_scaled_numbers(episodes: list[Rows]) -> list[Rows]:
    """The last observation in standard deviations, as units differ; without values that are constant, or that are somewhere
    not finite or beyond LARGEST. It is left out if none remain."""
    numbers = [rows.observation[-1] for rows in episodes]
    usable = np.all([(np.abs(each) < LARGEST).all(axis=0) for each in numbers], axis=0)
    scaled = standardized([each[:, usable] for each in numbers])
    remain = [(each,) if each.shape[1] else () for each in scaled]
    return [Rows((*rows.observation[:-1], *own), rows.action, rows.reward) for rows, own in zip(episodes, remain, strict=True)]
