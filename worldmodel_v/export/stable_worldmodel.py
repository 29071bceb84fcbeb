"""galilai-group/stable-worldmodel: the whole dataset as one `.h5` for its HDF5Dataset.

Its layout is that of our shards (columns in the root, `ep_len`, `ep_offset`), merged. Its training code pairs action t and
reward t with observations t and t + 1, and treats a NaN action as missing: these are our rows, unchanged. (Its own recorder
writes reward and terminated one row later than its training code reads them.) Discrete actions become vectors, because it
normalises actions by column. Its reader imports hdf5plugin, so frames are compressed with zstd.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.export import notes
from worldmodel_v.export.config import ExportConfig, Written
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.records import Episode, index_rows
from worldmodel_v.spec import LatentSpec, RolloutSpec, Spec
from worldmodel_v.storage.hdf5_file import add_column, create_hdf5, with_plugin

FILE_NAME = "dataset.h5"


@dataclass(frozen=True, kw_only=True)
class StableWorldmodelConfig(ExportConfig):
    """Frames or latents as one dataset.h5 with ep_len and ep_offset, for stable-worldmodel's HDF5Dataset.

    Open it with HDF5Dataset(path="OUT/dataset.h5").
    """

    name: ClassVar[str] = "stable-worldmodel"
    reads: ClassVar[tuple[type[Any], ...]] = (RolloutSpec, LatentSpec)
    alignment: ClassVar[str] = (
        "row t: o_t, the action a_t chosen on it, and what a_t brought; an episode's last row holds the final observation, "
        "with NaN for action and reward"
    )

    def write(self, source: Source[Spec], folder: Path, progress: Progress) -> Written:
        rows = source.num_steps + 1
        first_rows = np.cumsum(rows) - rows
        task = progress.task("export", source.num_episodes, "episodes")
        filters = with_plugin()
        with create_hdf5(folder / FILE_NAME) as (file, check):
            columns: dict[str, Any] = {}
            for episode, first in zip(source.episodes(), first_rows, strict=True):
                for name, data in columns_of(source, episode).items():
                    if name not in columns:
                        columns[name] = add_column(file, name, (source.num_rows, *data.shape[1:]), data.dtype, filters)
                    columns[name][first : first + len(data)] = data
                check()
                task.advance()
            if source.state_names:
                columns["state"].attrs["names"] = np.array([name.encode() for name in source.state_names])
            file["ep_len"], file["ep_offset"] = rows.astype(np.int32), first_rows
        task.close()
        return Written(source.num_rows, notes.action_vectors(source), source.episode_ids.tolist())


def columns_of(source: Source[Spec], episode: Episode) -> dict[str, np.ndarray]:
    """The episode's columns, with actions as vectors and NaN in their last row."""
    vectors = source.actions(episode)
    none = np.full((1, source.action_size), np.nan, np.float32)
    index = index_rows(episode.episode_id, episode.num_rows)
    return {**episode.columns, **index, "action": np.concatenate([vectors, none])}
