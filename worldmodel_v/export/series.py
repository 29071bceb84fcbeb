"""`series.npz` and `initial_z.json`, which the formats of hardmaru and zacwellmer share.

Legend: S sequences, L rows of each, T actions of an episode, Z latent, A action.

The file has one array for each column, with all sequences; their trainers load it whole. It is written column by column, and
the dataset is read once for each. So memory holds only one episode, for any number of episodes.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.errors import ConfigError
from worldmodel_v.export.lengths import Plan, filled, observed
from worldmodel_v.export.npz_file import create_npz
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.records import Episode

SERIES_NAME = "series.npz"
INITIAL_Z_NAME = "initial_z.json"
MAX_INITIAL_Z = 1000
"""The trainers keep the first latents of this many sequences, as starting points of dreams."""

SCALE = 10_000
"""`initial_z.json` holds whole numbers: the values times this, rounded toward zero."""

Column = tuple[Any, tuple[int, ...], Callable[[Episode], np.ndarray]]
"""(dtype, shape of one row, sequence -> its L rows)"""


class Rounding:
    """Casts to float16, and records the errors."""

    def __init__(self) -> None:
        self.largest = 0.0
        """The largest change of a value."""

        self.largest_in_sigma = 0.0
        """The largest change of a mu, in units of its σ."""

    def __call__(self, sequence: Episode, name: str, factor: float = 1.0) -> np.ndarray:
        """A column times `factor`, a power of two."""
        exact = sequence.columns[name] * np.float32(factor)
        rounded = _held(exact, np.float16, sequence, name)
        change = np.abs(exact - rounded.astype(np.float32))
        self.largest = max(self.largest, float(change.max()))
        if name == "mu":
            sigma = np.exp(0.5 * sequence.logvar.astype(np.float32))
            self.largest_in_sigma = max(self.largest_in_sigma, float((change / sigma).max()))
        return rounded

    def notes(self) -> list[str]:
        if not self.largest:
            return []
        return [
            f"mu and logvar: rounded to float16, by at most {self.largest:.2g}; a mu moves by at most "
            f"{self.largest_in_sigma:.2g} of its σ"
        ]


def _held(rows: np.ndarray, dtype: Any, sequence: Episode, name: str) -> np.ndarray:
    """The rows in another dtype; raises ConfigError if a number becomes infinite in it."""
    with np.errstate(over="ignore"):
        cast: np.ndarray = rows.astype(dtype)
    if (np.isfinite(rows) & ~np.isfinite(cast)).any():
        raise ConfigError(f"episode {sequence.episode_id}: {name} has values beyond 65504, which float16 cannot hold")
    return cast


def latent_columns(
    source: Source, length: int, rounding: Rounding, action_dtype: Any, logvar_factor: float = 1.0
) -> dict[str, Column]:
    """mu, logvar (times its factor) and action: row t holds the latent of o_t and the action chosen on o_t."""
    z = (source.latent_dim,)
    return {
        "mu": (np.float16, z, lambda sequence: observed(rounding(sequence, "mu"), length)),
        "logvar": (np.float16, z, lambda sequence: observed(rounding(sequence, "logvar", logvar_factor), length)),
        "action": (action_dtype, (source.action_size,), lambda sequence: filled(source.actions(sequence), length, 0.0)),
    }


def write_series(source: Source, plan: Plan, columns: dict[str, Column], folder: Path, progress: Progress) -> list[str]:
    """Write both files; returns the notes on `initial_z.json`. Raises ConfigError if float16 cannot hold a number."""
    num_sequences = int(plan.keep.sum())
    task = progress.task("export", num_sequences * len(columns), "columns of episodes")
    initial: dict[str, list[np.ndarray]] = {"mu": [], "logvar": []}

    def parts(name: str, dtype: Any, rows_of: Callable[[Episode], np.ndarray]) -> Iterator[np.ndarray]:
        for sequence in source.episodes(plan.keep):
            if name in initial and len(initial[name]) < MAX_INITIAL_Z:
                initial[name].append(sequence.columns[name][0].astype(np.float64))
            yield _held(rows_of(sequence), dtype, sequence, name)
            task.advance()

    with create_npz(folder / SERIES_NAME) as npz:
        for name, (dtype, row_shape, rows_of) in columns.items():
            npz.add(name, dtype, (num_sequences, plan.length, *row_shape), parts(name, dtype, rows_of))
    task.close()
    numbers = [(np.array(initial[name]) * SCALE).astype(np.int64).tolist() for name in ("mu", "logvar")]
    (folder / INITIAL_Z_NAME).write_text(json.dumps(numbers, separators=(",", ":")))
    if num_sequences <= MAX_INITIAL_Z:
        return []
    return [f"{INITIAL_Z_NAME}: holds the first {MAX_INITIAL_Z} sequences, as the trainer's own does"]
