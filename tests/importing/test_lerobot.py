"""LeRobotDatasets v3.0, from video and from pictures in tables: the toy world's rows come back, but for the last action."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from tests.importing.lerobot_writer import LeRobotWriter
from tests.importing.toy import episodes, require_imported, require_refused, require_resumed, run_import
from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.records import Episode
from worldmodel_v.storage import open_dataset

CAMERA = "observation.images.front"
TASKS = ("push the block", "leave it alone")


def feature(dtype: str, *shape: int, names: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [*shape], "names": names}


def features(kind: str, *cameras: str) -> dict[str, dict[str, Any]]:
    pictures = {camera: feature(kind, 64, 64, 3, names=["height", "width", "channels"]) for camera in cameras}
    state = ["step", "action_stamp", "episode_stamp", "return_stamp"]
    return {
        **pictures,
        "observation.state": feature("float32", 4, names={"motors": state}),
        "observation.touch": feature("float64", 2, 3),
        "action": feature("float32", 2, names=["steer", "gas"]),
        "next.reward": feature("float32", 1),
        "next.done": feature("bool", 1),
        "next.success": feature("bool", 1),
        "comment": feature("string", 1),
    }


def columns_of(episode: Episode, *cameras: str) -> dict[str, np.ndarray]:
    """A row for each action: the final observation is not in such a dataset."""
    count = episode.num_steps
    return {
        **{camera: episode.pixels[:-1] if camera == CAMERA else 255 - episode.pixels[:-1] for camera in cameras},
        "observation.state": episode.state[:-1],
        "observation.touch": np.arange(6 * count, dtype=np.float64).reshape(count, 2, 3),
        "action": episode.action[:-1],
        "next.reward": episode.reward[:-1],
        "next.done": episode.terminated[:-1],
        "next.success": episode.terminated[:-1],
        "comment": np.array(["well"] * count),
    }


def write(root: Path, rollouts: Path, kind: str = "video", cameras: tuple[str, ...] = (CAMERA,), **changes: Any) -> Path:
    writer = LeRobotWriter(root, features(kind, *cameras))
    for number, episode in enumerate(episodes(rollouts)):
        writer.save_episode(columns_of(episode, *cameras), TASKS[number % 2])
    return writer.finalize(**changes)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_every_row_but_the_last_action_is_in_its_place(kind: str, stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "lerobot", stamp_rollouts, kind)
    report = run_import("lerobot", source, tmp_path / "out")
    require_imported(tmp_path / "out", stamp_rollouts, without_last=True, has_state=True)
    assert [note.partition(":")[0] for note in report.notes] == ["final observation", "seed", "comment"]
    for number, (ours, theirs) in enumerate(zip(episodes(tmp_path / "out"), episodes(stamp_rollouts), strict=True)):
        np.testing.assert_array_equal(ours.columns["observation.touch"], np.arange(6 * ours.num_rows).reshape(-1, 2, 3))
        np.testing.assert_array_equal(ours.columns["next.reward"], theirs.reward[:-1], strict=True)
        np.testing.assert_array_equal(ours.columns["next.success"], theirs.terminated[:-1], strict=True)
        assert set(ours.task_index) == {number % 2}


def test_where_it_comes_from_is_recorded(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "lerobot", stamp_rollouts)
    run_import("lerobot", source, tmp_path / "out")
    spec = open_dataset(tmp_path / "out").spec
    assert (spec.env, spec.frames, spec.imported["licence"]) == ("toy", CAMERA, "apache-2.0")
    assert spec.imported["options"]["tasks"] == {"0": TASKS[0], "1": TASKS[1]}
    assert sorted(spec.imported["files"]) == [
        "README.md",
        *(f"data/chunk-000/file-00{number}.parquet" for number in range(3)),
        *("meta/episodes/chunk-000/file-000.parquet", "meta/info.json", "meta/tasks.parquet"),
        *(f"videos/{CAMERA}/chunk-000/file-00{number}.mp4" for number in range(3)),
    ]


def test_one_camera_of_two_by_its_short_name(stamp_rollouts: Path, tmp_path: Path) -> None:
    other = "observation.images.back"
    source = write(tmp_path / "lerobot", stamp_rollouts, cameras=(CAMERA, other))
    report = run_import("lerobot", source, tmp_path / "out", camera="front")
    require_imported(tmp_path / "out", stamp_rollouts, without_last=True)
    assert f"{other}: left out, it is video" in report.notes
    words = ["lerobot", "--from", source, "--out", tmp_path / "refused"]
    require_refused(words, f"expected one camera, got 2 ({CAMERA}, {other}); say which with --camera")
    require_refused([*words, "--camera", "top"], "--camera top: has no such camera; expected " + CAMERA)


def test_it_goes_on_where_it_was_stopped(stamp_rollouts: Path, tmp_path: Path) -> None:
    require_resumed("lerobot", write(tmp_path / "lerobot", stamp_rollouts), tmp_path)


def test_a_lossy_video_is_close(stamp_rollouts: Path, tmp_path: Path) -> None:
    writer = LeRobotWriter(tmp_path / "lerobot", features("video", CAMERA), lossy=True)
    for episode in episodes(stamp_rollouts)[:4]:
        writer.save_episode(columns_of(episode, CAMERA), "task")
    run_import("lerobot", writer.finalize(), tmp_path / "out")
    for ours, theirs in zip(episodes(tmp_path / "out"), episodes(stamp_rollouts), strict=False):
        difference = np.abs(ours.pixels.astype(int) - theirs.pixels[:-1])
        assert 0 < difference.mean() < 2


def test_other_versions_are_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "lerobot", stamp_rollouts, "image", codebase_version="v2.1")
    said = "expected codebase_version v3.0, got v2.1; convert it: python -m lerobot.scripts.convert_dataset_v21_to_v30"
    refused(said, source)
    refused("nowhere: is no LeRobotDataset; expected meta/info.json", tmp_path / "nowhere")


def refused(text: str, source: Path) -> None:
    with pytest.raises((ConfigError, DatasetNotUsable), match=text):
        run_import("lerobot", source, source.parent / "out")


def test_a_video_whose_times_are_not_the_episodes_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "lerobot", stamp_rollouts, fps=11)
    refused("the video of episode 0 has another length; expected 23 frames, 2.0909 s, got 2.3000 s", source)
    in_table = write(tmp_path / "table", stamp_rollouts, "image", fps=11)
    refused("timestamp in row 3 of episode 0; expected 0.2727, its frame_index / fps, got 0.3000", in_table)
    shifted = write(tmp_path / "shifted", stamp_rollouts)
    change(shifted / "meta/episodes/chunk-000/file-000.parquet", f"videos/{CAMERA}/from_timestamp", lambda rows: rows + 0.04)
    refused(r"file-000.mp4: episode 0: expected frame 0 at 0.0400 s, got one at 0.1 s", shifted)


def test_a_video_that_lacks_frames_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "lerobot", stamp_rollouts)
    last = source / f"videos/{CAMERA}/chunk-000/file-002.mp4"
    (source / f"videos/{CAMERA}/chunk-000/file-001.mp4").replace(last)
    refused("file-001.mp4: is missing; download or copy all of the dataset", source)
    content = last.read_bytes()
    (last.with_name("file-001.mp4")).write_bytes(content[: len(content) * 2 // 3])
    refused("file-001.mp4: .*damaged", source)


def test_rows_of_another_episode_are_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "lerobot", stamp_rollouts, "image")
    data = source / "data/chunk-000/file-000.parquet"

    def moved(rows: np.ndarray) -> np.ndarray:
        return np.where(rows == 3, 4, rows)

    change(data, "frame_index", moved)
    refused("file-000.parquet: frame_index in row 3 of episode 0; expected 3, got 4", source)


def test_a_missing_column_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "lerobot", stamp_rollouts, "image")
    data = source / "data/chunk-000/file-000.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(data).drop_columns(["next.success"]), data)
    refused("file-000.parquet: has no column next.success; expected the features of meta/info.json", source)


def test_a_path_outside_of_the_dataset_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "lerobot", stamp_rollouts, "image", data_path="../data/file-{file_index:03d}.parquet")
    refused("names a file outside of the dataset", source)


def test_an_info_of_another_kind_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "lerobot", stamp_rollouts, "image")
    info = json.loads((source / "meta/info.json").read_text())
    del info["features"]["action"]["shape"]
    (source / "meta/info.json").write_text(json.dumps(info))
    refused("info.json: does not say dtype and shape of action", source)


def change(path: Path, name: str, changed: Any) -> None:
    table = pyarrow.parquet.read_table(path)
    rows = changed(table[name].to_numpy())
    place = table.schema.get_field_index(name)
    pyarrow.parquet.write_table(table.set_column(place, name, pyarrow.array(rows)), path)


def test_episodes_that_are_not_listed_are_missed(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "lerobot", stamp_rollouts, "image", total_episodes=99)
    refused(r"meta/episodes: expected 99 episodes, as meta/info.json says, got \d+; download or copy all", source)
