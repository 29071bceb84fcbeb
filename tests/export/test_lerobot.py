"""LeRobot datasets, read as LeRobotDataset of huggingface/lerobot reads them (commit 7427f31, codebase version v3.0).

Its package needs torchvision, so the reader is written again: files through `datasets.Dataset.from_parquet` with the features
of info.json, tasks through pandas, windows by `delta_timestamps` that stay inside of an episode.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow.parquet
import pytest

from tests.builders import make_episode, rollout_spec
from tests.export.test_parquet import EXTRAS, episode_with_extras
from worldmodel_v.envs.stamp import action_stamp, read_stamps
from worldmodel_v.errors import ConfigError, PackageMissing
from worldmodel_v.export import ExportReport, export, lerobot_files
from worldmodel_v.export.lerobot import LerobotConfig
from worldmodel_v.export.lerobot_stats import of_frames, of_rows, together
from worldmodel_v.records import Episode
from worldmodel_v.schema import Column, Schema
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset

KINDS = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")


def run(data: Path, out: Path, **options: Any) -> ExportReport:
    return export(LerobotConfig(data=data, out=out, **options))


def write(episodes: list[Episode], data: Path) -> Path:
    height, width = episodes[0].pixels.shape[1:3]
    spec = rollout_spec(episodes[0].schema, frame_height=height, frame_width=width)
    with DatasetWriter(data, spec) as writer:
        writer.commit(0, build_shard(episodes, spec_hash=spec.hash))
    return data


def features_as_it_makes_them(features: dict[str, dict[str, Any]]) -> datasets.Features:
    """From info.json: shape (1,) is a value, one axis a sequence, more an array."""
    made = {}
    for name, feature in features.items():
        shape, dtype = tuple(feature["shape"]), feature["dtype"]
        if dtype == "image":
            made[name] = datasets.Image()
        elif shape == (1,):
            made[name] = datasets.Value(dtype)
        elif len(shape) == 1:
            made[name] = datasets.Sequence(length=shape[0], feature=datasets.Value(dtype))
        else:
            made[name] = {2: datasets.Array2D, 3: datasets.Array3D}[len(shape)](shape=shape, dtype=dtype)
    return datasets.Features(made)


class ItsDataset:
    """What LeRobotDataset gives, with images as uint8 (H, W, 3)."""

    def __init__(self, root: Path, cache: Path, deltas: dict[str, list[float]] | None = None) -> None:
        self.info = json.loads((root / "meta" / "info.json").read_text())
        self.stats = json.loads((root / "meta" / "stats.json").read_text())
        self.tasks = pandas.read_parquet(root / "meta" / "tasks.parquet")
        self.episodes = self._load(root / "meta" / "episodes", cache)
        self.rows = self._load(root / "data", cache, features_as_it_makes_them(self.info["features"]))
        self.deltas = {name: [round(delta * self.info["fps"]) for delta in each] for name, each in (deltas or {}).items()}
        for episode in self.episodes:
            path = self.info["data_path"].format(chunk_index=episode["data/chunk_index"], file_index=episode["data/file_index"])
            assert episode["episode_index"] in pyarrow.parquet.read_table(root / path)["episode_index"].to_pylist()

    def _load(self, folder: Path, cache: Path, features: datasets.Features | None = None) -> datasets.Dataset:
        files = sorted(folder.glob("*/*.parquet"))
        return datasets.Dataset.from_parquet([str(file) for file in files], features=features, cache_dir=str(cache))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        item = self.rows[place]
        episode = self.episodes[item["episode_index"]]
        first, end = episode["dataset_from_index"], episode["dataset_to_index"]
        for name, deltas in self.deltas.items():
            inside = [max(first, min(end - 1, item["index"] + delta)) for delta in deltas]
            item[f"{name}_is_pad"] = [not first <= item["index"] + delta < end for delta in deltas]
            item[name] = [self.rows[row][name] for row in inside]
        return {**item, "task": self.tasks.iloc[item["task_index"]].name}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[place] for place in range(len(self)))


def test_its_windows_have_each_frame_with_its_action_reward_and_ending(stamp_rollouts: Path, tmp_path: Path) -> None:
    report = run(stamp_rollouts, tmp_path / "out", task="Show the stamp.", fps=10)
    loaded = ItsDataset(tmp_path / "out", tmp_path / "cache", {"observation.image": [0.0, 0.1]})
    source = open_dataset(stamp_rollouts)
    assert len(loaded) == report.rows == source.num_rows - 8
    ends, place = 0, 0
    for number in range(8):
        episode = source.episode(number)
        for step in range(episode.num_steps):
            item = loaded[place]
            frames = [np.array(frame) for frame in item["observation.image"]]
            np.testing.assert_array_equal(frames[0], episode.pixels[step], strict=True)
            assert (item["episode_index"], item["frame_index"], item["index"]) == (number, step, place)
            assert item["timestamp"] == np.float32(step / 10)
            assert item["task"] == "Show the stamp."
            assert item["observation.state"] == list(map(float, read_stamps(frames[0])))
            last = step == episode.num_steps - 1
            assert item["observation.image_is_pad"] == [False, last]
            assert (item["next.done"], item["next.truncated"]) == (last, False)
            stamp = action_stamp(item["action"])
            assert item["next.reward"] == stamp + read_stamps(frames[0])[0]
            assert last or read_stamps(frames[1])[:2] == (step + 1, stamp)
            ends += item["next.done"]
            place += 1
    assert ends == 8
    assert "final observation: not held, so the last transition of 8 episodes is missing" in report.notes
    assert "timestamp: 10 actions a second; the dataset records no time" in report.notes


def test_a_cut_episode_is_done_and_truncated(equal_rollouts: Path, tmp_path: Path) -> None:
    run(equal_rollouts, tmp_path / "out")
    rows = ItsDataset(tmp_path / "out", tmp_path / "cache").rows.with_format("numpy")[:]
    episodes = [open_dataset(equal_rollouts).episode(i) for i in range(8)]
    truncated = np.concatenate([episode.truncated[:-1] for episode in episodes])
    terminated = np.concatenate([episode.terminated[:-1] for episode in episodes])
    np.testing.assert_array_equal(rows["next.truncated"], truncated)
    np.testing.assert_array_equal(rows["next.done"] & ~rows["next.truncated"], terminated)
    assert 0 < truncated.sum() < rows["next.done"].sum() == 8


def test_info_says_what_its_metadata_class_requires(discrete_rollouts: Path, tmp_path: Path) -> None:
    run(discrete_rollouts, tmp_path / "out")
    info = json.loads((tmp_path / "out" / "meta" / "info.json").read_text())
    assert set(info) == {
        *("codebase_version", "fps", "features", "total_episodes", "total_frames", "total_tasks", "chunks_size", "splits"),
        *("data_files_size_in_mb", "video_files_size_in_mb", "data_path", "video_path", "robot_type"),
    }
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 50, 8, 160)
    assert info["splits"] == {"train": "0:8"}
    assert info["features"]["observation.image"] == {
        **{"dtype": "image", "shape": [64, 64, 3], "names": ["height", "width", "channels"]}
    }
    assert info["features"]["action"] == {"dtype": "int64", "shape": [1], "names": None}
    assert info["features"]["observation.state"]["names"] == ["step", "action_stamp", "episode_stamp", "return_stamp"]
    assert [*info["features"]][-5:] == ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    loaded = ItsDataset(tmp_path / "out", tmp_path / "cache")
    assert loaded.tasks.index.tolist() == ["worldmodel_v/Stamp-v0"]
    assert loaded.tasks.index.name == "task"
    assert loaded.tasks["task_index"].tolist() == [0]
    expected = np.concatenate([open_dataset(discrete_rollouts).episode(i).action[:-1] for i in range(8)])
    assert [item["action"] for item in loaded] == expected.tolist()


def test_an_episode_is_a_row_group_and_has_its_statistics(stamp_rollouts: Path, tmp_path: Path) -> None:
    run(stamp_rollouts, tmp_path / "out")
    source = open_dataset(stamp_rollouts)
    file = pyarrow.parquet.ParquetFile(tmp_path / "out" / "data" / "chunk-000" / "file-000.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [source.episode(i).num_steps for i in range(8)]
    episodes = pandas.read_parquet(tmp_path / "out" / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    assert episodes["length"].tolist() == groups
    assert episodes["dataset_to_index"].tolist() == np.cumsum(groups).tolist()
    assert episodes["tasks"].iloc[0].tolist() == ["worldmodel_v/Stamp-v0"]
    stats = json.loads((tmp_path / "out" / "meta" / "stats.json").read_text())
    frames = np.concatenate([source.episode(i).pixels[:-1] for i in range(8)])
    action = np.concatenate([source.episode(i).action[:-1] for i in range(8)]).astype(np.float64)
    assert set(stats) == set(json.loads((tmp_path / "out" / "meta" / "info.json").read_text())["features"])
    assert all(set(part) == {*KINDS} for part in stats.values())
    for kind in KINDS:
        assert np.shape(stats["observation.image"][kind]) == ((1,) if kind == "count" else (3, 1, 1))
        assert np.shape(stats["next.reward"][kind]) == (1,)
    for kind in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(stats["action"][kind], getattr(action, kind)(axis=0))
        expected = getattr(frames / 255, kind)(axis=(0, 1, 2))
        np.testing.assert_allclose(np.ravel(stats["observation.image"][kind]), expected)
    assert stats["action"]["count"] == stats["observation.image"]["count"] == [len(action)]
    of_first = episodes["stats/observation.image/max"].iloc[0]
    assert float(of_first[0][0][0]) == source.episode(0).pixels[:-1, ..., 0].max() / 255
    np.testing.assert_array_equal(episodes["stats/action/q50"].iloc[0], np.median(source.episode(0).action[:-1], axis=0))


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(5, 3)), rng.normal(3, 2, size=(20, 3))
    found, expected = together(of_rows(one), of_rows(other)), of_rows(np.concatenate([one, other]))
    for kind in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(found[kind], expected[kind])
    assert (found["q10"] <= expected["q10"]).all()
    assert (found["q90"] >= expected["q90"]).all()
    frames = rng.integers(0, 256, (4, 6, 6, 3), np.uint8)
    values = frames.reshape(-1, 3)
    levels = np.quantile(values, [0.01, 0.5, 0.99], axis=0, method="inverted_cdf") / 255
    for kind, level in zip(("q01", "q50", "q99"), levels, strict=True):
        np.testing.assert_allclose(of_frames(frames)[kind][:, 0, 0], level)


def test_further_columns_of_any_shape_come_back(tmp_path: Path) -> None:
    episodes = [episode_with_extras(number) for number in range(2)]
    run(write(episodes, tmp_path / "data"), tmp_path / "out")
    rows = ItsDataset(tmp_path / "out", tmp_path / "cache").rows
    for column in EXTRAS:
        expected = np.concatenate([episode.columns[column.name][:-1] for episode in episodes])
        found = np.array([row[column.name] for row in rows])
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_a_file_that_would_be_too_large_gives_place_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_files, "MAX_MB", 1)
    monkeypatch.setattr(lerobot_files, "FILES_OF_CHUNK", 2)
    monkeypatch.setattr(lerobot_files, "RECORDS_AT_ONCE", 2)
    episodes = [make_episode(number, 100, size=64) for number in range(4)]  # noise: 1.2 MB each
    run(write(episodes, tmp_path / "data"), tmp_path / "out")
    files = sorted(file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out" / "data").rglob("*.parquet"))
    assert files == [f"data/chunk-{number // 2:03d}/file-{number % 2:03d}.parquet" for number in range(4)]
    loaded = ItsDataset(tmp_path / "out", tmp_path / "cache")
    assert [episode["episode_index"] for episode in loaded.episodes] == [0, 1, 2, 3]
    assert [item["episode_index"] for item in loaded] == [number for number in range(4) for _ in range(100)]


def test_a_column_with_one_of_its_names_is_refused(tmp_path: Path) -> None:
    plain = make_episode(0, 5, size=8)
    for name, message in (
        ("timestamp", "lerobot: the dataset has a column 'timestamp', which is the name of one of LeRobot's"),
        ("deep", "lerobot: LeRobot holds values of at most 5 axes, deep has more"),
    ):
        taken = Column(name=name, dtype="float32", row_shape=(1,) * 6 if name == "deep" else (), role="extra")
        schema = Schema(
            columns=(*plain.schema.columns[:-2], taken, *plain.schema.columns[-2:]),
            **{"observation_space": plain.schema.observation_space, "action_space": plain.schema.action_space},
        )
        columns = dict(plain.columns) | {name: np.zeros((6, *taken.row_shape), np.float32)}
        episode = Episode(schema=schema, episode_id=0, seed=plain.seed, columns=columns)
        with pytest.raises(ConfigError, match=message):
            run(write([episode], tmp_path / name), tmp_path / "out")


def test_without_pyarrow_its_extra_is_named_before_the_dataset_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PackageMissing, match=r"needs pyarrow, which is not installed; pip install 'worldmodel_v\[export\]'"):
        run(tmp_path / "none", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
