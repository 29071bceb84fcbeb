"""A LeRobotDataset v3.0, written as its own package writes one.

lerobot needs torchvision and torchcodec, so its writer is written anew here, from huggingface/lerobot at commit 7427f31
(2026-08-23): `DatasetWriter.save_episode`, `_save_episode_data`, `_save_episode_video`, `LeRobotDatasetMetadata.save_episode`
and `concatenate_video_files`. A row group is an episode. A file is full at some size; here it is full at a number of episodes.
"""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from tests.importing.toy import write_video

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INDEX = {"frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64"}


@dataclass
class LeRobotWriter:
    """Call `save_episode` for each, then `finalize`."""

    root: Path
    features: dict[str, dict[str, Any]]
    fps: int = 10
    episodes_in_a_file: int = 3
    lossy: bool = False
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _tasks: list[str] = field(default_factory=list)
    _writer: Any = None

    @property
    def _video_keys(self) -> list[str]:
        return [key for key, feature in self.features.items() if feature["dtype"] == "video"]

    def save_episode(self, columns: dict[str, np.ndarray], task: str) -> None:
        """Columns of N rows; frames too, uint8 (N, H, W, 3)."""
        number, length = len(self._rows), len(columns["action"])
        first = self._rows[-1]["dataset_to_index"] if self._rows else 0
        if task not in self._tasks:
            self._tasks.append(task)
        steps = np.arange(length)
        table = {
            **{key: column for key, column in columns.items() if key not in self._video_keys},
            "timestamp": (steps / self.fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(length, number),
            "index": first + steps,
            "task_index": np.full(length, self._tasks.index(task)),
        }
        place = {"chunk_index": 0, "file_index": number // self.episodes_in_a_file}
        self._write_rows(pa.table({key: _arrow(column) for key, column in table.items()}), place, number)
        row = {
            **{"episode_index": number, "tasks": [task], "length": length},
            **{f"data/{name}": value for name, value in place.items()},
            **{"dataset_from_index": first, "dataset_to_index": first + length},
        }
        for key in self._video_keys:
            row |= self._write_video(key, columns[key], place, number)
        self._rows.append(row | {"stats/action/mean": columns["action"].mean(axis=0).tolist()})

    def _write_rows(self, table: pa.Table, place: dict[str, int], number: int) -> None:
        if number % self.episodes_in_a_file == 0:
            self._close()
            path = self.root / DATA_PATH.format(**place)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pyarrow.parquet.ParquetWriter(path, table.schema, compression="snappy", use_dictionary=True)
        self._writer.write_table(table)

    def _write_video(self, key: str, frames: np.ndarray, place: dict[str, int], number: int) -> dict[str, Any]:
        path = self.root / VIDEO_PATH.format(video_key=key, **place)
        path.parent.mkdir(parents=True, exist_ok=True)
        episode = path.with_name("episode.mp4")
        write_video(episode, frames, fps=self.fps, lossy=self.lossy)
        start = 0.0
        if number % self.episodes_in_a_file:
            start = self._rows[-1][f"videos/{key}/to_timestamp"]
            concatenate(path, episode)
        else:
            episode.rename(path)
        values = {**place, "from_timestamp": start, "to_timestamp": start + len(frames) / self.fps}
        return {f"videos/{key}/{name}": value for name, value in values.items()}

    def finalize(self, **changes: Any) -> Path:
        """Write what `meta/` holds, with `changes` of `info.json`."""
        self._close()
        path = self.root / EPISODES_PATH.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pa.Table.from_pylist(self._rows), path)
        tasks = pd.DataFrame({"task_index": range(len(self._tasks))}, index=pd.Index(self._tasks, name="task"))
        tasks.to_parquet(self.root / "meta" / "tasks.parquet")
        index = {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in INDEX.items()}
        info = {
            **{"codebase_version": "v3.0", "fps": self.fps, "robot_type": "toy"},
            "features": {**self.features, "timestamp": {"dtype": "float32", "shape": [1], "names": None}, **index},
            **{"total_episodes": len(self._rows), "total_frames": self._rows[-1]["dataset_to_index"]},
            **{"total_tasks": len(self._tasks), "splits": {"train": f"0:{len(self._rows)}"}},
            **{"data_path": DATA_PATH, "video_path": VIDEO_PATH, "chunks_size": 1000},
        }
        (self.root / "meta" / "info.json").write_text(json.dumps(info | changes, indent=4))
        (self.root / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- LeRobot\n---\n\nThis is a toy.\n")
        return self.root

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


def concatenate(path: Path, episode: Path) -> None:
    """The packets of `episode` behind those of `path`, not encoded again, by FFmpeg's concat."""
    listed, joined = path.with_suffix(".ffconcat"), path.with_name("joined.mp4")
    listed.write_text(f"ffconcat version 1.0\nfile '{path.resolve()}'\nfile '{episode.resolve()}'\n")
    with (
        av.open(str(listed), format="concat", options={"safe": "0"}) as source,
        av.open(str(joined), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.time_base = source.streams.video[0].time_base
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    joined.replace(path)
    episode.unlink()
    listed.unlink()


def _arrow(column: np.ndarray) -> pa.Array:
    if column.dtype == np.uint8 and column.ndim == 4:
        pictures = [{"bytes": _png(frame), "path": f"frame-{number:06d}.png"} for number, frame in enumerate(column)]
        return pa.array(pictures, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    if column.ndim == 1:
        return pa.array(column)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), column.shape[-1])
    return flat if column.ndim == 2 else pa.FixedSizeListArray.from_arrays(flat, column.shape[-2])


def _png(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "PNG")
    return stream.getvalue()
