"""zacwellmer/WorldModels: its `series.npz` holds reward, done and N in addition to mu, logvar and action.

Its trainer predicts reward and done of the same row, r(o_t, a_t) and d(o_t, a_t), and masks with done: rows after a done row
do not count, and a done row's z has no successor. So padding is marked as done. N (CarRacing's number of tiles) is read but not
used; its recorder writes 0 for environments without tiles.

Its `sample_vae`, which draws the z that it trains on, takes exp(logvar) for σ. So `series.npz` holds log σ, half of our
logvar, and the z have the right spread. Its env.py, which begins dreams from `initial_z.json`, takes exp(logvar / 2) for σ. So
this file holds log σ². Nothing else reads a logvar from these files. rnn_train.py makes an `initial_z.json` of its own from
`series.npz`, which ours must replace.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.export import notes
from worldmodel_v.export.config import Written
from worldmodel_v.export.lengths import EqualLengthConfig, filled
from worldmodel_v.export.series import MAX_INITIAL_Z, Column, Rounding, latent_columns, write_series
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.spec import LatentSpec

LOGVAR_FACTOR = 0.5
CONFIG = {"rnn_max_seq_len": 1000, "a_width": 3, "z_size": 32, "rnn_input_seq_width": 35}
"""The settings of its configs/carracing.config that depend on the data."""


@dataclass(frozen=True, kw_only=True)
class ZacwellmerConfig(EqualLengthConfig):
    """Latents as series.npz (mu, logvar, action, reward, done, N) and initial_z.json, for zacwellmer/WorldModels.

    Give results/EXPERIMENT/ENVIRONMENT/series as --out. Its trainer masks what --pad adds. After rnn_train.py, copy
    initial_z.json to tf_initial_z.
    """

    name: ClassVar[str] = "zacwellmer"
    reads: ClassVar[tuple[type[Any], ...]] = (LatentSpec,)
    needs: ClassVar[tuple[str, ...]] = ("mu", "logvar")
    final_row: ClassVar[bool] = False
    alignment: ClassVar[str] = "row t: the latent of o_t, the action a_t chosen on it, and reward and done that a_t brought"

    def write(self, source: Source[LatentSpec], folder: Path, progress: Progress) -> Written:
        plan, rounding = self.plan(source), Rounding()
        columns = latent_columns(source, plan.length, rounding, np.float32, LOGVAR_FACTOR) | _outcome_columns(plan.length)
        of_initial_z = write_series(source, plan, columns, folder, progress)
        num_sequences = int(plan.keep.sum())
        said = [
            *notes.no_truncation(source, "done"),
            *notes.not_held(source),
            *notes.action_vectors(source),
            *rounding.notes(),
            "reward: rounded to float16",
            "logvar: series.npz holds log σ (half of logvar), because sample_vae of rnn/rnn.py takes exp(logvar) for σ",
            "initial_z.json: holds log σ², because env.py takes exp(logvar / 2) for σ; copy it to tf_initial_z after "
            "rnn_train.py, which writes one there with log σ",
            "N (number of tiles): not recorded, written as 0; the trainer reads it and does not use it",
            *of_initial_z,
        ]
        if self.pad and (source.num_steps < plan.length).any():
            said.append("done: True in padding, by which the trainer masks it")
        said += _notes_on_config(plan.length, source.action_size, source.latent_dim)
        if num_sequences < MAX_INITIAL_Z:
            said.append(
                f"rnn_train.py: looks at {MAX_INITIAL_Z} sequences for initial_z.json; set range({num_sequences}) there, and "
                f"rnn_batch_size to at most {num_sequences}"
            )
        return Written(num_sequences * plan.length, [*plan.notes, *said], source.episode_ids[plan.keep].tolist())


def _notes_on_config(length: int, action_size: int, latent_dim: int) -> list[str]:
    values = (length, action_size, latent_dim, latent_dim + action_size)
    if values == tuple(CONFIG.values()):
        return []
    asked = ", ".join(f"{name}={value}" for name, value in zip(CONFIG, values, strict=True))
    return [f"configs/carracing.config: set {asked}; they are {', '.join(map(str, CONFIG.values()))} there"]


def _outcome_columns(length: int) -> dict[str, Column]:
    return {
        "reward": (np.float16, (1,), lambda sequence: filled(sequence.reward[:-1, None], length, 0.0)),
        "done": (np.bool_, (1,), lambda sequence: filled(sequence.terminated[:-1, None], length, True)),
        "N": (np.uint16, (1,), lambda sequence: np.zeros((length, 1), np.uint16)),
    }
