"""hardmaru/WorldModelsExperiments, the paper's code: `series.npz` for carracing/rnn_train.py.

Its trainer feeds (z_t, a_t) for rows 0 to L - 2 and predicts z_t+1 for rows 1 to L - 1. So a row holds an observation and the
action chosen on it, as here. Its recorder ends an episode at the last frame with an action, and 999 transitions
(`max_seq_len`) are hard-coded in the trainer. So a CarRacing episode of 1,000 actions must be 1,000 rows, and the final
observation is left out, as in its own recorder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.export import notes
from worldmodel_v.export.config import Written
from worldmodel_v.export.lengths import EqualLengthConfig
from worldmodel_v.export.series import Rounding, latent_columns, write_series
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.spec import LatentSpec

TRAINED_ROWS = 1000
BATCH_SIZE = 100


@dataclass(frozen=True, kw_only=True)
class HardmaruConfig(EqualLengthConfig):
    """Latents as series.npz (mu, logvar, action in float16) and initial_z.json, for hardmaru/WorldModelsExperiments.

    Give carracing/series as --out, and copy initial_z.json to carracing/initial_z. Its rnn_train.py needs sequences of 1,000
    rows.
    """

    name: ClassVar[str] = "hardmaru"
    reads: ClassVar[tuple[type[Any], ...]] = (LatentSpec,)
    needs: ClassVar[tuple[str, ...]] = ("mu", "logvar")
    final_row: ClassVar[bool] = False
    alignment: ClassVar[str] = "row t: the latent of o_t, and the action a_t chosen on it"

    def write(self, source: Source[LatentSpec], folder: Path, progress: Progress) -> Written:
        plan, rounding = self.plan(source), Rounding()
        columns = latent_columns(source, plan.length, rounding, np.float16)
        of_initial_z = write_series(source, plan, columns, folder, progress)
        num_sequences = int(plan.keep.sum())
        said = [
            "reward, terminated, truncated: not held",
            *notes.not_held(source),
            *notes.action_vectors(source, np.float16),
            *rounding.notes(),
            *(["action: rounded to float16"] if source.actions_space.kind == "continuous" else []),
            *of_initial_z,
        ]
        if plan.length != TRAINED_ROWS:
            said.append(f"rnn_train.py: set max_seq_len to {plan.length - 1}; it is {TRAINED_ROWS - 1} there")
        if num_sequences < BATCH_SIZE:
            said.append(f"rnn_train.py: set batch_size to at most {num_sequences}; it is {BATCH_SIZE} there")
        if (sizes := (source.latent_dim, source.action_size)) != notes.PAPER_SIZES:
            said.append(
                f"rnn_train.py: set input_seq_width to {sum(sizes)} and output_seq_width to {sizes[0]}; "
                "they are 35 and 32 there"
            )
        return Written(num_sequences * plan.length, [*plan.notes, *said], source.episode_ids[plan.keep].tolist())
