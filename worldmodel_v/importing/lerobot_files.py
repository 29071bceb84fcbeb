"""Where the episodes of a LeRobotDataset v3.0 are, and their rows.

    meta/info.json                              fps, features (dtype, shape, names), path templates
    meta/tasks.parquet                          the tasks' texts
    meta/episodes/chunk-000/file-000.parquet    a row for each episode: where its rows and its frames are
    data/chunk-000/file-000.parquet             a row for each frame, several episodes in a file
    videos/KEY/chunk-000/file-000.mp4           frames of several episodes, one after the other

Read from huggingface/lerobot at commit 7427f31 of 2026-08-23 (`dataset_writer.py`, `dataset_metadata.py`, `utils.py`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.importing.lerobot_info import CARD, INFO, TASKS, Info, open_parquet
from worldmodel_v.importing.recording import reading
from worldmodel_v.importing.tables import arrow_column

EPISODES = "meta/episodes"
WHOLE = "download or copy all of the dataset"
PLACES = ("episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index")
IN_VIDEO = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
HALF = 0.5
"""How far the length of an episode's video may be from its rows, in frames."""


@dataclass(frozen=True)
class Place:
    """Where an episode is."""

    number: int
    length: int
    data: Path
    first_row: int
    """In its file of rows."""

    first_index: int
    """`index` of its first row, which counts all rows of the dataset."""

    video: Path | None
    start: float
    """Seconds, in its video."""


def read_places(info: Info, camera: str) -> list[Place]:
    """All episodes in order; raises DatasetNotUsable if one is missing, or the places contradict each other."""
    video = f"videos/{camera}" if info.features[camera]["dtype"] == "video" else None
    table = _episode_table(info.root, [*PLACES, *(f"{video}/{part}" for part in IN_VIDEO if video)])
    _require_whole(info, table, video)
    data = _paths(info, info.data_path, table, "data")
    videos = _paths(info, info.video_path, table, video, video_key=camera) if video else [None] * len(data)
    starts = table[f"{video}/from_timestamp"] if video else np.zeros(len(data))
    first_of_file: dict[Path, int] = {}
    places = []
    for number, (path, first) in enumerate(zip(data, table["dataset_from_index"].tolist(), strict=True)):
        in_file = first - first_of_file.setdefault(path, first)
        length, start = int(table["length"][number]), float(starts[number])
        places.append(Place(number, length, path, in_file, first, videos[number], start))
    return places


def read_rows(place: Place, columns: tuple[str, ...]) -> Any:
    """An episode's rows of some columns, as a table of pyarrow; raises DatasetNotUsable if its file has too few."""
    file = open_parquet(place.data)
    if missing := [name for name in columns if name not in file.schema_arrow.names]:
        raise DatasetNotUsable(f"has no column {missing[0]}", where=place.data, expected="the features of meta/info.json")
    starts = np.cumsum([0, *(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))])
    stop = place.first_row + place.length
    if stop > starts[-1]:
        raise DatasetNotUsable("has too few rows", where=place.data, expected=f"{stop} or more", got=int(starts[-1]))
    groups = np.flatnonzero((starts[:-1] < stop) & (starts[1:] > place.first_row))
    table = file.read_row_groups(groups.tolist(), columns=[*columns])
    return table.slice(place.first_row - int(starts[groups[0]]), place.length)


def files(root: Path, places: list[Place]) -> tuple[Path, ...]:
    """Every file that is read for these episodes."""
    meta = [path for name in (INFO, TASKS, CARD) if (path := root / name).is_file()]
    data = dict.fromkeys([*(place.data for place in places), *(place.video for place in places if place.video)])
    return (*meta, *_episode_files(root), *data)


def _episode_files(root: Path) -> list[Path]:
    return sorted((root / EPISODES).glob("*/*.parquet"))


def _episode_table(root: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Columns of the table of episodes, in the order of the episodes."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for path in _episode_files(root):
        with reading(path):
            file = open_parquet(path)
            if missing := [name for name in names if name not in file.schema_arrow.names]:
                raise DatasetNotUsable(f"has no column {missing[0]}", where=path)
            table = file.read(columns=names)
        for name in names:
            found[name].append(arrow_column(table[name], (), name=name, where=path))
    if not any(len(part) for part in found["episode_index"]):
        raise DatasetNotUsable("holds no episode", where=root / EPISODES)
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    order = np.argsort(joined["episode_index"], kind="stable")
    return {name: rows[order] for name, rows in joined.items()}


def _require_whole(info: Info, table: dict[str, np.ndarray], video: str | None) -> None:
    """Raise DatasetNotUsable unless the episodes are 0, 1, 2, …, each as long as its rows and its part of a video."""
    where, number, length = info.root / EPISODES, table["episode_index"], table["length"]
    if not np.array_equal(number, np.arange(len(number))):
        raise DatasetNotUsable(where=where, expected="the episodes 0, 1, 2, …", got=number[:10].tolist())
    if info.num_episodes not in (None, len(number)):
        expected = f"{info.num_episodes} episodes, as meta/info.json says"
        raise DatasetNotUsable(where=where, expected=expected, got=len(number), remedy=WHOLE)
    if not np.array_equal(table["dataset_to_index"] - table["dataset_from_index"], length) or (length < 1).any():
        raise DatasetNotUsable("dataset_to_index - dataset_from_index is not the length", where=where)
    if video is None:
        return
    seconds = table[f"{video}/to_timestamp"] - table[f"{video}/from_timestamp"]
    wrong = np.flatnonzero(~(np.abs(seconds * info.fps - length) < HALF))
    if len(wrong):
        i = int(wrong[0])
        expected = f"{length[i]} frames, {length[i] / info.fps:.4f} s"
        raise DatasetNotUsable(
            f"the video of episode {i} has another length", where=where, expected=expected, got=f"{seconds[i]:.4f} s"
        )


def _paths(info: Info, template: str, table: dict[str, np.ndarray], prefix: str, **parts: str) -> list[Path]:
    """The file of each episode; raises DatasetNotUsable if one is missing."""
    indices = zip(table[f"{prefix}/chunk_index"].tolist(), table[f"{prefix}/file_index"].tolist(), strict=True)
    paths = [info.path(template, chunk_index=int(chunk), file_index=int(file), **parts) for chunk, file in indices]
    for path in dict.fromkeys(paths):
        if not path.is_file():
            raise DatasetNotUsable("is missing", where=path, remedy=WHOLE)
    return paths
