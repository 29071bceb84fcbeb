"""stable-worldmodel's HDF5 files and Lance tables, laid out as its own writers and its recorder lay them out.

Its package needs torchvision, so its writers are written anew here, from `data/formats/hdf5.py` and `data/formats/lance.py` at
commit addbab4 (2026-08-18). `collected` gives the rows that `World.collect` gave for the toy world when it was run at commits
b72edab and b72edab~1: which action, reward and end is in which row.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.importing.toy import episodes, require_imported, require_refused, require_resumed, run_import
from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.export import export
from worldmodel_v.export.stable_worldmodel import StableWorldmodelConfig
from worldmodel_v.records import Episode
from worldmodel_v.storage import open_dataset

Rows = dict[str, np.ndarray]


def collected(episode: Episode, number: int) -> Rows:
    """An episode of `World.collect` since July 2026: the action in its own row, its outcome in the next."""
    led_to = lambda rows, first: np.concatenate([[first], rows[:-1]])  # noqa: E731
    return {
        "pixels": episode.pixels,
        "reward": led_to(episode.reward.astype(np.float64), np.nan),
        "terminated": led_to(episode.terminated, False),
        "truncated": led_to(episode.truncated, False),
        "action": episode.action,
        "step_idx": np.arange(episode.num_rows),
        "id": np.full(episode.num_rows, 10**12 + number),
        "state": episode.state[:, :2].astype(np.float64),
        "goal": episode.pixels[::-1],
    }


def collected_before(episode: Episode, number: int) -> Rows:
    """And before: without the first frame, and with the first action in the last row."""
    rows = {name: column[1:] for name, column in collected(episode, number).items()}
    return rows | {"action": np.concatenate([episode.action[1:-1], episode.action[:1]])}


def write_hdf5(path: Path, recorded: Iterable[Rows]) -> Path:
    """As its HDF5Writer: a chunk for each row, no compression, columns that may grow."""
    with h5py.File(path, "w", libver="latest") as file:
        for number, rows in enumerate(recorded):
            for name, column in rows.items() if number == 0 else ():
                shape = column.shape[1:]
                file.create_dataset(name, (0, *shape), maxshape=(None, *shape), dtype=column.dtype, chunks=(1, *shape))
            for name, dtype in {"ep_len": np.int32, "ep_offset": np.int64}.items() if number == 0 else ():
                file.create_dataset(name, (0,), maxshape=(None,), dtype=dtype)
            first, length = len(file["action"]), len(rows["action"])
            for name, column in {**rows, "ep_len": np.array([length]), "ep_offset": np.array([first])}.items():
                file[name].resize(len(file[name]) + len(column), axis=0)
                file[name][-len(column) :] = column
    return path


def write_lance(path: Path, recorded: Iterable[Rows], kind: str = "PNG") -> Path:
    """As its LanceWriter: pictures as bytes (its own are JPEG), all else as lists of float32; `step_idx` is its own."""
    parts = []
    for number, rows in enumerate(recorded):
        length = len(rows["action"])
        index = {"episode_idx": np.full(length, number), "step_idx": np.arange(length)}
        columns: dict[str, Any] = {name: pa.array(column, pa.int32()) for name, column in index.items()}
        for name, column in rows.items():
            if column.ndim == 4:
                columns[name] = pa.array([_encoded(frame, kind) for frame in column], pa.binary())
            elif name != "step_idx":
                flat = column.reshape(length, -1).astype(np.float32)
                columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
        parts.append(pa.table(columns))
    lance.write_dataset(pa.concat_tables(parts), path)
    return path


def _encoded(frame: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, kind, quality=95)
    return stream.getvalue()


def toy(rollouts: Path, recorder: Any = collected) -> list[Rows]:
    return [recorder(episode, number) for number, episode in enumerate(episodes(rollouts))]


@pytest.mark.parametrize(("write", "name"), [(write_hdf5, "toy.h5"), (write_lance, "toy.lance")], ids=["hdf5", "lance"])
def test_every_row_of_its_recorder_is_in_its_place(write: Any, name: str, stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write(tmp_path / name, toy(stamp_rollouts))
    report = run_import("stable-worldmodel", source, tmp_path / "out")
    require_imported(tmp_path / "out", stamp_rollouts)
    assert report.notes == [
        "seed: no seed of some or all episodes, so it is -1 there",
        "goal: left out, it is a picture or has no number for each row",
        "reward, terminated, truncated: taken from the row after the action, where World.collect writes them",
    ]
    for ours, theirs in zip(episodes(tmp_path / "out"), episodes(stamp_rollouts), strict=True):
        np.testing.assert_array_equal(ours.columns["state"], theirs.state[:, :2])


def test_what_it_recorded_before_july_2026_is_right_too(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_hdf5(tmp_path / "old.h5", toy(stamp_rollouts, collected_before))
    report = run_import("stable-worldmodel", source, tmp_path / "out")
    require_imported(tmp_path / "out", stamp_rollouts, first=1)
    assert report.notes[-1] == "step_idx begins at 1: the first frame of each episode was not recorded"


def test_jpeg_is_close(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_lance(tmp_path / "toy.lance", toy(stamp_rollouts), kind="JPEG")
    run_import("stable-worldmodel", source, tmp_path / "out")
    ours, theirs = (episodes(folder)[0].pixels.astype(int) for folder in (tmp_path / "out", stamp_rollouts))
    assert np.abs(ours - theirs).mean() < 1


def test_a_shard_of_this_package_gives_its_rows_back(stamp_rollouts: Path, tmp_path: Path) -> None:
    report = run_import("stable-worldmodel", stamp_rollouts / "shards" / "000000.h5", tmp_path / "out")
    assert report.notes == []
    ours, theirs = open_dataset(tmp_path / "out"), open_dataset(stamp_rollouts)
    assert ours.num_episodes == 3
    for number in range(3):
        found, expected = ours.episode(number), theirs.episode(number)
        assert (found.seed, found.policy, found.state_names) == (expected.seed, expected.policy, expected.state_names)
        assert [*found.columns] == [*expected.columns]
        for name, rows in expected.columns.items():
            np.testing.assert_array_equal(found.columns[name], rows, strict=True)


def test_what_this_package_exports_comes_back(stamp_rollouts: Path, tmp_path: Path) -> None:
    export(StableWorldmodelConfig(data=stamp_rollouts, out=tmp_path / "exported"))
    report = run_import("stable-worldmodel", tmp_path / "exported", tmp_path / "out")
    require_imported(tmp_path / "out", stamp_rollouts, has_state=True)
    assert report.notes == ["seed: no seed of some or all episodes, so it is -1 there"]


def test_rows_of_other_origin_without_a_final_observation(stamp_rollouts: Path, tmp_path: Path) -> None:
    recorded = [
        {name: episode.columns[name][:-1] for name in ("pixels", "action", "reward", "terminated")}
        for episode in episodes(stamp_rollouts)
    ]
    source = write_hdf5(tmp_path / "other.h5", recorded)
    with pytest.raises(ConfigError, match=r"its rows do not say; say outcome='frame' if World.collect recorded them"):
        run_import("stable-worldmodel", source, tmp_path / "out")
    report = run_import("stable-worldmodel", source, tmp_path / "out", outcome="action")
    require_imported(tmp_path / "out", stamp_rollouts, without_last=True)
    assert [note.partition(":")[0] for note in report.notes] == ["final observation", "seed"]


def test_a_later_episode_without_a_final_observation_is_said(stamp_rollouts: Path, tmp_path: Path) -> None:
    whole, *others = (
        {name: episode.columns[name] for name in ("pixels", "action", "reward", "terminated")}
        for episode in episodes(stamp_rollouts)[:2]
    )
    source = write_hdf5(tmp_path / "other.h5", [whole, *({name: rows[:-1] for name, rows in each.items()} for each in others)])
    report = run_import("stable-worldmodel", source, tmp_path / "out")
    assert [note.partition(":")[0] for note in report.notes] == ["final observation", "seed"]
    assert [episode.num_steps for episode in episodes(tmp_path / "out")] == [
        len(whole["action"]) - 1,
        len(others[0]["action"]) - 2,
    ]


def test_texts_and_groups_of_hdf5_are_named(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_hdf5(tmp_path / "toy.h5", toy(stamp_rollouts))
    with h5py.File(source, "r+") as file:
        file["note"] = np.full(len(file["action"]), b"left")
        file.create_group("more")["x"] = np.ones(3)
        file["score"] = np.ones(len(file["ep_len"]))  # one for each episode
    notes = run_import("stable-worldmodel", source, tmp_path / "out").notes
    assert {f"{name}: left out, it is a picture or has no number for each row" for name in ("note", "more", "score")} < {*notes}


def test_a_file_without_episodes_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["ep_len"], file["ep_offset"] = np.zeros(0, np.int32), np.zeros(0, np.int64)
    refused("empty.h5: expected episodes .* within the columns, got no rows", tmp_path / "empty.h5")


@pytest.mark.parametrize(("write", "name"), [(write_hdf5, "toy.h5"), (write_lance, "toy.lance")], ids=["hdf5", "lance"])
def test_it_goes_on_where_it_was_stopped(write: Any, name: str, stamp_rollouts: Path, tmp_path: Path) -> None:
    require_resumed("stable-worldmodel", write(tmp_path / name, toy(stamp_rollouts)), tmp_path)


def test_the_command_refuses_in_a_line(stamp_rollouts: Path, tmp_path: Path) -> None:
    recorded = [{"front": rows["pixels"], "top": rows["pixels"], "action": rows["action"]} for rows in toy(stamp_rollouts)]
    source = write_hdf5(tmp_path / "two.h5", recorded)
    words = ["stable-worldmodel", "--from", source, "--out", tmp_path / "out"]
    require_refused(words, "two.h5: has 2 columns of pictures (front, top)", "say which with --camera")
    require_refused([*words, "--camera", "left"], "--camera left: is no column of pictures; expected front, top")


def refused(text: str, source: Path) -> None:
    with pytest.raises((ConfigError, DatasetNotUsable), match=text):
        run_import("stable-worldmodel", source, source.parent / "out")


def test_what_is_missing_or_damaged_is_named(stamp_rollouts: Path, tmp_path: Path) -> None:
    rows = toy(stamp_rollouts)
    refused("no.h5: has no action; expected action", write_hdf5_without(tmp_path / "no.h5", rows, "action"))
    refused("lens.h5: has no ep_len", write_hdf5_without(tmp_path / "lens.h5", rows, "ep_len"))
    refused(r"0.h5: has 0 columns of pictures \(none\)", write_hdf5_without(tmp_path / "0.h5", rows, "pixels", "goal"))
    long = write_hdf5(tmp_path / "long.h5", rows)
    with h5py.File(long, "r+") as file:
        file["ep_len"][-1] += 1
    refused("long.h5: expected episodes .* within the columns, got rows up to", long)
    (tmp_path / "half.h5").write_bytes(long.read_bytes()[: long.stat().st_size // 2])
    refused("half.h5: no readable HDF5 file", tmp_path / "half.h5")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["pixels"] = h5py.ExternalLink("long.h5", "pixels")
    refused("link.h5: pixels is a link", tmp_path / "link.h5")
    refused("nowhere: expected an .h5 file or a .lance table", tmp_path / "nowhere")
    unwritten = write_hdf5(tmp_path / "unwritten.h5", rows)
    with h5py.File(unwritten, "r+") as file:
        file["pixels"].resize(len(file["pixels"]) + 10, axis=0)
    refused("unwritten.h5: a part of pixels was never written", unwritten)


def write_hdf5_without(path: Path, rows: list[Rows], *names: str) -> Path:
    write_hdf5(path, rows)
    with h5py.File(path, "r+") as file:
        for name in names:
            del file[name]
    return path


def test_a_damaged_picture_is_named(stamp_rollouts: Path, tmp_path: Path) -> None:
    rows = toy(stamp_rollouts)[:1]
    table = lance.dataset(write_lance(tmp_path / "toy.lance", rows)).to_table()
    blobs = table["pixels"].to_pylist()
    blobs[7] = blobs[7][:-20] + bytes([blobs[7][-20] ^ 1]) + blobs[7][-19:]
    lance.write_dataset(table.set_column(2, "pixels", pa.array(blobs, pa.binary())), tmp_path / "bad.lance")
    refused("bad.lance: pixels of episode 0: no readable PNG or JPEG", tmp_path / "bad.lance")


def test_a_damaged_table_is_named(stamp_rollouts: Path, tmp_path: Path) -> None:
    table = write_lance(tmp_path / "toy.lance", toy(stamp_rollouts)[:1])
    (data,) = (table / "data").iterdir()
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    refused("toy.lance: cannot be read: ", table)
    for manifest in (table / "_versions").iterdir():
        manifest.write_bytes(b"no manifest")
    refused("toy.lance: cannot be read: ", table)


def test_rows_that_do_not_follow_one_another_are_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    table = write_lance(tmp_path / "toy.lance", toy(stamp_rollouts))
    lance.dataset(table).delete("episode_idx = 0")
    left = run_import("stable-worldmodel", table, tmp_path / "whole").episodes
    assert left == len(toy(stamp_rollouts)) - 1
    lance.dataset(table).delete("episode_idx = 1 and step_idx = 4")
    said = "its rows do not follow one another: one is missing, or in another place; expected step_idx 4 after 3, got 5"
    refused(f"toy.lance: episode 0: {said}", table)
    rows = toy(stamp_rollouts)[0]
    swapped = {name: column[[0, 2, 1, *range(3, len(column))]] for name, column in rows.items()}
    refused("expected step_idx 1 after 0, got 2", write_hdf5(tmp_path / "toy.h5", [swapped]))


def test_rows_of_two_episodes_are_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "toy.h5", toy(stamp_rollouts))
    with h5py.File(path, "r+") as file:
        offsets = file["ep_offset"][:]
        file["ep_offset"][1] = 0
    refused(r"episodes 0 and 1 have rows in common \(ep_len, ep_offset\); expected rows of its own for each episode", path)
    with h5py.File(path, "r+") as file:
        file["ep_offset"][:] = offsets
        file["ep_idx"] = np.repeat([5, 6], [offsets[1] - 1, len(file["action"]) - offsets[1] + 1])
    refused(
        "episode 0: its rows are of several episodes: ep_len and ep_offset are those of other rows; expected one ep_idx", path
    )
