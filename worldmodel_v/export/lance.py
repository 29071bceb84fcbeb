"""galilai-group/stable-worldmodel: the whole dataset as a Lance table, its default format, for its LanceDataset.

Rows and columns are those of the format `stable-worldmodel`. Its reader finds the episodes by `episode_idx`, which counts from
0 and never falls. Its evaluations look for `ep_idx` and `step_idx` as well. All other columns are lists of fixed length, also
for one value, because it takes them for matrices. Lance takes no dots in names, so they become underscores, as in its own
writer. Seed and policy of each episode are in a second table, where it looks for what belongs to an episode.

Frames are PNG. Its own writer makes JPEG, and its reader opens both: what its JPEG decoder refuses, it gives to Pillow.
Rejected: its package as the writer, for the JPEG and for torchvision. Lance names its files at random, so two exports of a
dataset have the same content and not the same bytes.
"""

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.errors import ConfigError
from worldmodel_v.export import notes
from worldmodel_v.export.config import ExportConfig, Written
from worldmodel_v.export.packages import optional
from worldmodel_v.export.parquet import GROUP_BYTES, nested, png
from worldmodel_v.export.source import Source
from worldmodel_v.export.stable_worldmodel import StableWorldmodelConfig, columns_of
from worldmodel_v.interrupts import deferred_interrupts
from worldmodel_v.progress import Progress
from worldmodel_v.records import Episode
from worldmodel_v.spec import LatentSpec, RolloutSpec, Spec

TABLE, EPISODES = "dataset.lance", "dataset_episodes.lance"
FILE_VERSION = "2.1"
"""Of Lance's files; its pylance may be as old as 4.0."""

INDEX = ("ep_idx", "step_idx")
EPISODE = "episode_idx"
OS_ERROR = re.compile(r"\(os error (\d+)\)")


@dataclass(frozen=True, kw_only=True)
class LanceConfig(ExportConfig):
    """Frames or latents as the Lance table dataset.lance, with lossless frames, for stable-worldmodel's LanceDataset.

    Open it with LanceDataset(path="OUT/dataset.lance").
    """

    name: ClassVar[str] = "lance"
    reads: ClassVar[tuple[type[Any], ...]] = (RolloutSpec, LatentSpec)
    modules: ClassVar[tuple[str, ...]] = ("lance", "pyarrow")
    alignment: ClassVar[str] = StableWorldmodelConfig.alignment

    def check(self, source: Source[Spec]) -> None:
        names = [EPISODE, *(_named(column.name) for column in source.schema.columns)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"would have two columns {min(twice)!r}: Lance takes no dots in names", where=self.name)

    def write(self, source: Source[Spec], folder: Path, progress: Progress) -> Written:
        task = progress.task("export", source.num_episodes, "episodes")

        def batches() -> Iterator[Any]:
            for number, episode in enumerate(source.episodes()):
                yield from _batches(source, episode, number)
                task.advance()

        _write_table(folder / TABLE, batches())
        task.close()
        arrow = optional("pyarrow")
        number, seeds = arrow.array(np.arange(source.num_episodes, dtype=np.int32)), arrow.array(source.seeds, arrow.int64())
        known = {EPISODE: number, "seed": seeds, "policy": arrow.array(source.policies, arrow.string())}
        _write_table(folder / EPISODES, iter([arrow.record_batch(known)]))
        flat = [
            column.name for column in source.schema.data_columns if column.role != "observation" and len(column.row_shape) > 1
        ]
        said = [*notes.action_vectors(source), *(f"{name}: its values are in one list, without their shape" for name in flat)]
        return Written(source.num_rows, said, source.episode_ids.tolist())


def _named(name: str) -> str:
    return name.replace(".", "_")


def _batches(source: Source[Spec], episode: Episode, number: int) -> Iterator[Any]:
    """The rows of an episode in batches of some megabytes."""
    arrow = optional("pyarrow")
    columns = columns_of(source, episode)
    rows = max(1, GROUP_BYTES // sum(column.row_bytes for column in source.schema.columns))
    for start in range(0, episode.num_rows, rows):
        part = {name: column[start : start + rows] for name, column in columns.items()}
        index = {EPISODE: arrow.array(np.full(len(part["step_idx"]), number, np.int32))}
        yield arrow.record_batch(index | {_named(name): _array(arrow, source, name, values) for name, values in part.items()})


def _array(arrow: Any, source: Source[Spec], name: str, rows: np.ndarray) -> Any:
    frames = source.schema.frames
    if frames is not None and name == frames.name:
        return arrow.array([png(frame) for frame in rows], arrow.binary())
    return nested(arrow, rows if name in INDEX else rows.reshape(len(rows), -1))


def _write_table(path: Path, batches: Iterator[Any]) -> None:
    """Write a Lance table; raises OSError if the disk fails, KeyboardInterrupt after Ctrl-C, and what `batches` raises.

    Lance takes the batches in a thread of its own, which must have ended when Python does. So Ctrl-C waits for the next batch.
    """
    raised: list[BaseException] = []

    def told() -> Iterator[Any]:
        try:
            for batch in itertools.chain([first], batches):
                if interrupted():
                    raise KeyboardInterrupt
                yield batch
        except BaseException as error:  # Lance wraps it into one of its own
            raised.append(error)
            raise

    first = next(batches)
    reader = optional("pyarrow").RecordBatchReader.from_batches(first.schema, told())
    try:
        with deferred_interrupts() as interrupted:
            optional("lance").write_dataset(reader, str(path), data_storage_version=FILE_VERSION)
    except OSError as error:
        if raised:
            raise raised[0] from None
        number = OS_ERROR.search(str(error))
        raise (OSError(int(number[1]), os.strerror(int(number[1]))) if number else error) from error
