"""LeRobotDataset v3.0 of huggingface/lerobot: a row for each action in Parquet, with the frame that it was chosen on as PNG.

LeRobot has a row for each action, and no place for the observation that the last action led to. So an episode of T actions is T
rows, and its final observation is left out. `next.reward`, `next.done` and `next.truncated` are those of the row's action.
`next.done` says that the episode ends there, in either way.

The files are those of its own writer: `meta/info.json`, `meta/stats.json`, `meta/tasks.parquet`, and numbered files of at most
100 MB for rows (`data/`, a row group for each episode) and episodes (`meta/episodes/`). Rejected: video, its default, which
changes the frames; its own package as the writer, which needs torchvision, torchcodec and one file for each frame.

Legend: E episodes, T actions of an episode.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge

from worldmodel_v.errors import ConfigError
from worldmodel_v.export.config import ExportConfig, Written
from worldmodel_v.export.lerobot_files import FILES_OF_CHUNK, MAX_MB, NumberedFiles, Records, rows_table, write_tasks
from worldmodel_v.export.lerobot_stats import WholeStats, flat, listed, stats_of
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.records import Episode
from worldmodel_v.schema import Column, Schema
from worldmodel_v.spec import RolloutSpec

IMAGE = "observation.image"
NAMES = {
    **{"observation": IMAGE, "state": "observation.state", "action": "action"},
    **{"reward": "next.reward", "terminated": "next.done", "truncated": "next.truncated"},
}
"""A role -> LeRobot's name of its column; other columns keep theirs."""

INDEX = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64"}
"""What LeRobot adds to each row: seconds and rows since the episode's start, its number, the row's number, the task's."""

MAX_AXES = 5
VIDEO_MB = 200
"""Of info.json; there are no videos."""


@dataclass(frozen=True, kw_only=True)
class LerobotConfig(ExportConfig):
    """Frames as a LeRobotDataset (v3.0), lossless, with state and further columns; the final observation is left out.

    Open it with LeRobotDataset("NAME", root="OUT").
    """

    fps: Annotated[int, Ge(1)] = 50
    """Actions a second, from which the timestamps follow; CarRacing has 50."""

    task: str | None = None
    """What is done, in a sentence. Default: the environment's id."""

    name: ClassVar[str] = "lerobot"
    reads: ClassVar[tuple[type[Any], ...]] = (RolloutSpec,)
    modules: ClassVar[tuple[str, ...]] = ("pyarrow",)
    alignment: ClassVar[str] = (
        "row t: the frame o_t, the action a_t chosen on it, and next.reward, next.done and next.truncated that a_t brought; "
        "the final observation has no row"
    )

    def check(self, source: Source[RolloutSpec]) -> None:
        taken = {*NAMES.values(), *INDEX}
        if clash := taken & {column.name for column in source.schema.by_role("extra")}:
            raise ConfigError(
                f"the dataset has a column {min(clash)!r}, which is the name of one of LeRobot's", where=self.name
            )
        if deep := [column.name for column in source.schema.data_columns if len(column.row_shape) > MAX_AXES]:
            raise ConfigError(f"LeRobot holds values of at most {MAX_AXES} axes, {deep[0]} has more", where=self.name)

    def write(self, source: Source[RolloutSpec], folder: Path, progress: Progress) -> Written:
        columns, task, whole, first = _columns(source.schema), self.task or source.dataset.spec.env, WholeStats(), 0
        bar = progress.task("export", source.num_episodes, "episodes")
        with NumberedFiles(folder / "data") as data, Records(folder / "meta" / "episodes") as episodes:
            for number, episode in enumerate(source.episodes()):
                rows = _rows(columns, episode) | _index(episode.num_steps, number, first, self.fps)
                table, stats = rows_table(rows, IMAGE), stats_of(rows, IMAGE)
                chunk, file = data.place(table.nbytes)
                data.write(table)
                whole.add(stats)
                record = {
                    **{"episode_index": number, "tasks": [task], "length": episode.num_steps},
                    **{"data/chunk_index": chunk, "data/file_index": file},
                    **{"dataset_from_index": first, "dataset_to_index": first + episode.num_steps},
                }
                episodes.add(record | flat(stats))
                first += episode.num_steps
                bar.advance()
        bar.close()
        write_tasks(folder / "meta" / "tasks.parquet", task)
        _write_json(folder / "meta" / "stats.json", listed(whole.stats))
        _write_json(folder / "meta" / "info.json", _info(columns, self.fps, source.num_episodes, first))
        said = [
            f"final observation: not held, so the last transition of {source.num_episodes} episodes is missing",
            f"timestamp: {self.fps} actions a second; the dataset records no time",
        ]
        return Written(first, said, source.episode_ids.tolist())


def _columns(schema: Schema) -> dict[str, Column]:
    """The features that are columns of the dataset, by LeRobot's names."""
    return {NAMES.get(column.role, column.name): column for column in schema.data_columns}


def _shape(column: Column) -> tuple[int, ...]:
    """LeRobot has no shape (): a number is of shape (1,), and stored as a number."""
    return column.row_shape or (1,)


def _rows(columns: dict[str, Column], episode: Episode) -> dict[str, np.ndarray]:
    """The T rows of the columns: (T, …), and (T,) for those of one value."""
    rows = {name: episode.columns[column.name][:-1] for name, column in columns.items()}
    rows |= {NAMES["terminated"]: (episode.terminated | episode.truncated)[:-1]}
    return {name: part[:, 0] if part.shape[1:] == (1,) else part for name, part in rows.items()}


def _index(num_steps: int, number: int, first: int, fps: int) -> dict[str, np.ndarray]:
    """The columns that LeRobot adds, (T,) each."""
    steps = np.arange(num_steps)
    values = (steps / fps, steps, np.full(num_steps, number), first + steps, np.zeros(num_steps))
    return {name: value.astype(dtype) for (name, dtype), value in zip(INDEX.items(), values, strict=True)}


def _info(columns: dict[str, Column], fps: int, num_episodes: int, num_rows: int) -> dict[str, Any]:
    """The content of meta/info.json."""
    features = {
        name: {
            "dtype": "image" if name == IMAGE else column.dtype,
            "shape": list(_shape(column)),
            "names": ["height", "width", "channels"] if name == IMAGE else list(column.parts) or None,
        }
        for name, column in columns.items()
    }
    features |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in INDEX.items()}
    path = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    return {
        **{"codebase_version": "v3.0", "fps": fps, "features": features},
        **{"total_episodes": num_episodes, "total_frames": num_rows, "total_tasks": 1},
        **{"chunks_size": FILES_OF_CHUNK, "data_files_size_in_mb": MAX_MB, "video_files_size_in_mb": VIDEO_MB},
        **{"data_path": f"data/{path}.parquet", "video_path": None, "robot_type": None},
        "splits": {"train": f"0:{num_episodes}"},
    }


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=4) + "\n")
