"""The simplest format, for any use: each episode's columns unchanged, in one `.npz`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.export.config import ExportConfig, Written
from worldmodel_v.export.npz_file import write_npz
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.spec import LatentSpec, RolloutSpec, Spec
from worldmodel_v.storage.layout import ALIGNMENT


@dataclass(frozen=True, kw_only=True)
class NpzConfig(ExportConfig):
    """Frames or latents as EPISODE.npz, one for each episode, with the dataset's own columns and rows; nothing is lost.

    Columns: pixels, or the latents (for a VAE mu and logvar); action, reward, terminated, truncated; state and state_names if
    recorded, and all further columns.
    """

    name: ClassVar[str] = "npz"
    reads: ClassVar[tuple[type[Any], ...]] = (RolloutSpec, LatentSpec)
    alignment: ClassVar[str] = ALIGNMENT

    def write(self, source: Source[Spec], folder: Path, progress: Progress) -> Written:
        names = {"state_names": np.array(source.state_names)} if source.state_names else {}
        task = progress.task("export", source.num_episodes, "episodes")
        for episode in source.episodes():
            write_npz(folder / f"{episode.episode_id:06d}.npz", dict(episode.columns) | names)
            task.advance()
        task.close()
        return Written(source.num_rows, [], source.episode_ids.tolist())
