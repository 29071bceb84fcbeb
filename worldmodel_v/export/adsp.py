"""AppliedDataSciencePartners/WorldModels: one `.npz` for each episode in series/, and `initial_z.npz`.

Its recorder stores, before each action, the reward and done of the previous step. So a row's reward is the one that led to its
observation. Its trainer takes it as an input: (z_t, a_t, r_t-1) -> (z_t+1, r_t). It needs a row after the last action, so
the file has all T + 1 rows and no transition is lost. Batches stack episodes, so all must have the same length. Its reward is
binary, because its loss is a cross-entropy: 1 if the reward is positive and the episode goes on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.export import notes
from worldmodel_v.export.config import Written
from worldmodel_v.export.lengths import EqualLengthConfig, filled, led_here, observed
from worldmodel_v.export.npz_file import write_npz
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.records import Episode
from worldmodel_v.spec import LatentSpec


@dataclass(frozen=True, kw_only=True)
class AdspConfig(EqualLengthConfig):
    """Latents as series/EPISODE.npz (mu, log_var, action, reward, done) and initial_z.npz, for AppliedDataSciencePartners'.

    Give data/ of an AppliedDataSciencePartners/WorldModels checkout as --out; its .gitignore stays.
    """

    name: ClassVar[str] = "adsp"
    reads: ClassVar[tuple[type[Any], ...]] = (LatentSpec,)
    needs: ClassVar[tuple[str, ...]] = ("mu", "logvar")
    keeps: ClassVar[tuple[str, ...]] = (".gitignore",)
    final_row: ClassVar[bool] = True
    alignment: ClassVar[str] = (
        "row t: the latent of o_t, the action a_t chosen on it, and reward and done of the action a_t-1 that led to o_t"
    )

    def check(self, source: Source) -> None:
        super().check(source)
        if source.schema["reward"].absent:
            raise DatasetNotUsable(
                "nobody recorded its rewards, which this format makes 0 or 1", where=self.data, remedy="export another format"
            )

    def write(self, source: Source[LatentSpec], folder: Path, progress: Progress) -> Written:
        plan = self.plan(source)
        (folder / "series").mkdir()
        initial: dict[str, list[np.ndarray]] = {"initial_mu": [], "initial_log_var": []}
        task = progress.task("export", int(plan.keep.sum()), "episodes")
        for sequence in source.episodes(plan.keep):
            initial["initial_mu"].append(sequence.mu[0].copy())  # a view would keep the whole sequence
            initial["initial_log_var"].append(sequence.logvar[0].copy())
            write_npz(folder / "series" / f"{sequence.episode_id:06d}.npz", _arrays(source, sequence, plan.length))
            task.advance()
        task.close()
        write_npz(folder / "initial_z.npz", {name: np.array(rows) for name, rows in initial.items()})
        said = [
            "reward: made 0 or 1, as the format's own: 1 where it is positive and the episode goes on",
            *notes.no_truncation(source, "done"),
            *notes.not_held(source),
            *notes.action_vectors(source),
        ]
        if (sizes := (source.latent_dim, source.action_size)) != notes.PAPER_SIZES:
            said.append(f"rnn/arch.py: set Z_DIM to {sizes[0]} and ACTION_DIM to {sizes[1]}; they are 32 and 3 there")
        kept = source.episode_ids[plan.keep].tolist()
        return Written(len(kept) * plan.length, [*plan.notes, *said], kept)


def _arrays(source: Source[LatentSpec], sequence: Episode, length: int) -> dict[str, np.ndarray]:
    goes_on = ~sequence.terminated[:-1]
    positive = (sequence.reward[:-1] > 0) & goes_on
    return {
        "mu": observed(sequence.mu, length),
        "log_var": observed(sequence.logvar, length),
        "action": filled(source.actions(sequence), length, 0.0),
        "reward": filled(led_here(positive.astype(np.int64)), length, 0),
        "done": filled(led_here(sequence.terminated[:-1].astype(np.int64)), length, 1),
    }
