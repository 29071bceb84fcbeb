"""Videos and folders of pictures with tables: the toy world's rows come back, whatever holds them."""

import csv
import re
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from tests.conftest import stamp_config
from tests.importing.toy import episodes, require_imported, require_refused, require_resumed, run_import, write_video
from worldmodel_v.collection import collect
from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.importing.decoding import picture, video_frames
from worldmodel_v.importing.tables import read_table
from worldmodel_v.records import Episode
from worldmodel_v.storage import open_dataset


def columns_of(episode: Episode, num_rows: int) -> dict[str, np.ndarray]:
    """The table of an episode: a row for each action, or one more, which is that of the final observation."""
    columns = {"steer": episode.action[:, 0], "gas": episode.action[:, 1], "reward": episode.reward}
    ends = {"terminated": episode.terminated, "truncated": episode.truncated}
    rows = {**columns, **ends, "seed": np.full(episode.num_rows, episode.seed), "lap": np.arange(episode.num_rows)}
    return {name: column[:num_rows] for name, column in rows.items()}


def write_csv(path: Path, columns: dict[str, np.ndarray]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    pyarrow.parquet.write_table(pa.table(columns), path)


def write_npz(path: Path, columns: dict[str, np.ndarray]) -> None:
    np.savez(path, **columns)


def write_pictures(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")


WRITERS = {"csv": write_csv, "parquet": write_parquet, "npz": write_npz}


def write_rides(
    folder: Path,
    rollouts: Path,
    write: Callable[[Path, np.ndarray], None] = write_video,
    ending: str = ".mp4",
    table: str = "csv",
    extra_rows: int = 0,
) -> Path:
    """Episode i as ride_i; by their letters, the names would be in another order."""
    folder.mkdir()
    for number, episode in enumerate(episodes(rollouts)):
        write(folder / f"ride_{number + 5}{ending}", episode.pixels)
        WRITERS[table](folder / f"ride_{number + 5}.{table}", columns_of(episode, episode.num_steps + extra_rows))
    return folder


@pytest.mark.parametrize(
    ("write", "ending", "table"),
    [(write_video, ".mp4", "csv"), (write_video, ".mkv", "parquet"), (write_pictures, "", "npz")],
    ids=["mp4 csv", "mkv parquet", "png npz"],
)
def test_every_row_is_in_its_place(
    write: Callable[[Path, np.ndarray], None], ending: str, table: str, stamp_rollouts: Path, tmp_path: Path
) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts, write, ending, table)
    report = run_import("video", source, tmp_path / "out", action=("steer", "gas"))
    require_imported(tmp_path / "out", stamp_rollouts)
    assert [episode.seed for episode in episodes(tmp_path / "out")] == [each.seed for each in episodes(stamp_rollouts)]
    assert report.notes == ["lap: no value beside the final frame, so it is NaN there, and whole numbers are float64"]
    lap = open_dataset(tmp_path / "out").episode(3).lap
    np.testing.assert_array_equal(lap[:-1], np.arange(len(lap) - 1))
    assert np.isnan(lap[-1])


def test_a_table_with_a_row_for_the_final_observation_is_the_same_episode(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts, table="parquet", extra_rows=1)
    report = run_import("video", source, tmp_path / "out", action=("steer", "gas"))
    assert report.notes == []
    require_imported(tmp_path / "out", stamp_rollouts)
    lap = open_dataset(tmp_path / "out").episode(3).lap
    np.testing.assert_array_equal(lap, np.arange(len(lap)), strict=True)


def test_without_a_final_frame_the_last_action_is_left_out(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = tmp_path / "rides"
    source.mkdir()
    for number, episode in enumerate(episodes(stamp_rollouts)):
        write_video(source / f"{number}.mp4", episode.pixels[:-1])
        write_csv(
            source / f"{number}.csv",
            {"action_0": episode.action[:-1, 0], "action_1": episode.action[:-1, 1]}
            | {"reward": episode.reward[:-1], "done": episode.terminated[:-1]},
        )
    report = run_import("video", source, tmp_path / "out", terminated="done")
    require_imported(tmp_path / "out", stamp_rollouts, without_last=True)
    assert [note.partition(":")[0] for note in report.notes] == ["final observation", "seed"]


@pytest.mark.parametrize("unended", [5, 7])
def test_each_episode_says_whether_it_has_a_final_frame(unended: int, stamp_rollouts: Path, tmp_path: Path) -> None:
    """Of tables with a row for each frame, one ends with an action, and the others with a row beside the final frame."""
    source = write_rides(tmp_path / "rides", stamp_rollouts, extra_rows=1)
    shorter = episodes(stamp_rollouts)[unended - 5]
    write_video(source / f"ride_{unended}.mp4", shorter.pixels[:-1])
    write_csv(source / f"ride_{unended}.csv", columns_of(shorter, shorter.num_steps) | {"seed": np.full(shorter.num_steps, -1)})
    report = run_import("video", source, tmp_path / "out", action=("steer", "gas"))
    assert [note.partition(":")[0] for note in report.notes] == ["final observation", "seed"]
    lost = [
        whole.num_steps - each.num_steps for whole, each in zip(*map(episodes, (stamp_rollouts, tmp_path / "out")), strict=True)
    ]
    assert lost == [int(number + 5 == unended) for number in range(len(lost))]


def test_choices_need_a_number_of_them(tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "rollouts", env_kwargs='{"discrete": true}'))
    source = tmp_path / "rides"
    source.mkdir()
    for number, episode in enumerate(episodes(tmp_path / "rollouts")):
        write_video(source / f"{number}.mp4", episode.pixels)
        ends = {"terminated": episode.terminated[:-1], "truncated": episode.truncated[:-1]}
        write_csv(source / f"{number}.csv", {"action": episode.action[:-1], "reward": episode.reward[:-1], **ends})
    with pytest.raises(DatasetNotUsable, match=r"0.mp4: its actions are whole numbers"):
        run_import("video", source, tmp_path / "out")
    run_import("video", source, tmp_path / "out", action_space="discrete:5")
    require_imported(tmp_path / "out", tmp_path / "rollouts")


def test_outcomes_a_row_too_late_are_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts)
    episode = episodes(stamp_rollouts)[0]
    columns = columns_of(episode, episode.num_rows)
    write_npz(source / "ride_5.npz", columns | {"reward": np.roll(columns["reward"], 1)})
    (source / "ride_5.csv").unlink()
    with pytest.raises(DatasetNotUsable, match=r"ride_5.npz: reward is \S+ in the last row, where no action is"):
        run_import("video", source, tmp_path / "out", action=("steer", "gas"))


def test_an_episode_of_another_form_than_the_first_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts)
    episode = episodes(stamp_rollouts)[1]
    write_csv(source / "ride_6.csv", columns_of(episode, episode.num_rows))
    rows = f"{episode.num_steps} rows of actions in .*ride_6.csv, one less than frames, as for .*ride_5.mp4"
    expected = f"expected {rows}, got {episode.num_rows}"
    with pytest.raises(DatasetNotUsable, match=f"ride_6.mp4: has {episode.num_rows} frames; {expected}"):
        run_import("video", source, tmp_path / "out", action=("steer", "gas"))


def test_nan_and_empty_cells_stand_for_no_value(stamp_rollouts: Path, tmp_path: Path) -> None:
    """In the row of the final observation; anywhere else they are refused."""
    source = write_rides(tmp_path / "rides", stamp_rollouts, extra_rows=1)
    assert "nan,nan,nan" in (source / "ride_5.csv").read_text()
    text = (source / "ride_6.csv").read_text()
    assert "nan,nan,nan,False,False" in text
    (source / "ride_6.csv").write_text(text.replace("nan,nan,nan,False,False", ",,,,"))
    run_import("video", source, tmp_path / "out", action=("steer", "gas"))
    require_imported(tmp_path / "out", stamp_rollouts)
    rows = text.split("\n")
    rows[4] = "nan" + rows[4][rows[4].index(",") :]
    (source / "ride_6.csv").write_text("\n".join(rows))
    with pytest.raises(DatasetNotUsable, match=r"action 3 is \[nan"):
        run_import("video", source, tmp_path / "other", action=("steer", "gas"))


def test_tables_elsewhere_and_one_table_of_all(stamp_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    source = write_rides(tmp_path / "rides", stamp_rollouts)
    tables = tmp_path / "tables"
    tables.mkdir()
    for path in source.glob("*.csv"):
        path.rename(tables / path.name)
    options = {"action": ("steer", "gas")}
    run_import("video", source, tmp_path / "a", actions=str(tables), **options)
    parts = [
        columns_of(each, each.num_steps) | {"episode": np.full(each.num_steps, i)}
        for i, each in enumerate(episodes(stamp_rollouts))
    ]
    write_parquet(tmp_path / "all.parquet", {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    run_import("video", source, tmp_path / "b", actions="~/all.parquet", **options)
    for out in ("a", "b"):
        require_imported(tmp_path / out, stamp_rollouts)


def test_what_an_npz_holds_once_is_the_seed_or_named(stamp_rollouts: Path, tmp_path: Path) -> None:
    episode = episodes(stamp_rollouts)[0]
    write_pictures(tmp_path / "ride", episode.pixels)
    once = {"seed": np.array(7), "fps": np.array(30), "driver": np.array("me")}
    write_npz(tmp_path / "ride.npz", {"action": episode.action[:-1]} | once)
    notes = run_import("video", tmp_path / "ride", tmp_path / "out").notes
    assert "fps, driver: left out, it has no number for each row" in notes
    assert open_dataset(tmp_path / "out").episode(0).seed == 7
    write_npz(tmp_path / "ride.npz", {"action": episode.action[:-1], "reward": np.array(7.0)})
    with pytest.raises(DatasetNotUsable, match=r"ride\.npz: reward: is a single value; expected a number in every row"):
        run_import("video", tmp_path / "ride", tmp_path / "other")


def test_tensors_decimals_and_categories_of_numbers_are_numbers(tmp_path: Path) -> None:
    steer = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    columns = {
        "action": pa.FixedShapeTensorArray.from_numpy_ndarray(steer),
        "gain": pa.array([Decimal("0.25"), None, Decimal("-3"), Decimal("1")]),
        "gear": pa.array([2, 1, 2, 2]).dictionary_encode(),
        "road": pa.array(["dirt", "ice", "dirt", "ice"]).dictionary_encode(),
        "number": pa.array([Decimal(2**53 + 1)] * 4),
        "flags": pa.array([[True]] * 4, pa.list_(pa.bool_(), 1)).cast(pa.fixed_shape_tensor(pa.bool_(), (1,))),
        "when": pa.array([1000, 2000, 3000, 4000], pa.timestamp("ms")),
    }
    write_parquet(tmp_path / "ride.parquet", columns)
    table = read_table(tmp_path / "ride.parquet")
    np.testing.assert_array_equal(table["action"], steer)
    np.testing.assert_array_equal(table["gain"], [0.25, np.nan, -3, 1])
    np.testing.assert_array_equal(table["gear"], [2, 1, 2, 2])
    assert table["road"].dtype == table["flags"].dtype == object
    assert table["number"].tolist() == [2**53 + 1] * 4
    assert str(table["when"][1]) == "1970-01-01T00:00:02.000"
    write_parquet(tmp_path / "ride.parquet", columns | {"action": columns["action"].take(pa.array([0, None, 1, 2]))})
    with pytest.raises(DatasetNotUsable, match=r"action: 1 values are missing; expected a number in every row"):
        read_table(tmp_path / "ride.parquet")


def test_a_large_csv_with_quotes_keeps_its_rows(tmp_path: Path) -> None:
    """Larger than the megabyte that pyarrow parses at once."""
    rows = [f"x,{number}.5\n" for number in range(200_000)]
    rows[5] = '"two\nlines",0.5\n'
    (tmp_path / "ride.csv").write_text("note,action\n" + "".join(rows))
    assert len(read_table(tmp_path / "ride.csv")["action"]) == len(rows)
    rows[5] = '"not closed,0.5\n'
    (tmp_path / "ride.csv").write_text("note,action\n" + "".join(rows))
    with pytest.raises(DatasetNotUsable, match=r"is no such CSV .*not closed"):
        read_table(tmp_path / "ride.csv")


def test_a_table_without_a_video_is_named(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts)
    (source / "ride_6.mp4").rename(source / "ride_6.gif")
    notes = run_import("video", source, tmp_path / "out", action=("steer", "gas")).notes
    assert "ride_6.csv: left out, no video has its name" in notes


def test_an_uneven_frame_rate_neither_repeats_nor_drops_a_frame(stamp_rollouts: Path, tmp_path: Path) -> None:
    episode = episodes(stamp_rollouts)[0]
    times = np.cumsum(1 + np.arange(episode.num_rows) ** 2 % 97).tolist()
    for ending in (".mp4", ".mkv"):
        write_video(tmp_path / f"uneven{ending}", episode.pixels, times=times)
        frames = [frame for _, frame in video_frames(tmp_path / f"uneven{ending}")]
        np.testing.assert_array_equal(np.stack(frames), episode.pixels)


def test_a_lossy_video_is_close(stamp_rollouts: Path, tmp_path: Path) -> None:
    episode = episodes(stamp_rollouts)[0]
    write_video(tmp_path / "lossy.mp4", episode.pixels, lossy=True)
    frames = np.stack([frame for _, frame in video_frames(tmp_path / "lossy.mp4")])
    difference = np.abs(frames.astype(int) - episode.pixels)
    assert 0 < difference.mean() < 2


@pytest.mark.parametrize(("pixels", "eight"), [("gray16le", "gray"), ("gbrp16le", "bgr0")])
def test_a_video_of_more_than_8_bits_a_colour_is_refused(pixels: str, eight: str, tmp_path: Path) -> None:
    """Such as distances, of which 8 bits would be left."""
    with av.open(str(tmp_path / "depth.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 24, pixels
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 24, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(picture.reformat(format=pixels)), *stream.encode()])
    message = rf"expected 8 bits a colour, got 16 \({pixels}\); convert it to 8 bits .* -pix_fmt {eight} "
    with pytest.raises(DatasetNotUsable, match=message):
        list(video_frames(tmp_path / "depth.mkv"))


def test_frames_are_resized_one_by_one(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts)
    run_import("video", source, tmp_path / "out", action=("steer", "gas"), frame_size=32)
    for ours, theirs in zip(episodes(tmp_path / "out"), episodes(stamp_rollouts), strict=True):
        np.testing.assert_array_equal(ours.pixels, theirs.pixels[:, ::2, ::2])


def test_it_goes_on_where_it_was_stopped(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts)
    require_resumed("video", source, tmp_path, action=("steer", "gas"))


def test_a_damaged_video_is_refused_and_what_was_committed_stays(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts, ending=".mkv")
    content = bytearray((source / "ride_10.mkv").read_bytes())
    content[len(content) // 2] ^= 4
    (source / "ride_10.mkv").write_bytes(content)
    with pytest.raises(DatasetNotUsable, match=r"ride_10.mkv: is damaged at frame \d+: FFmpeg says 'slice CRC mismatch"):
        run_import("video", source, tmp_path / "out", action=("steer", "gas"), episodes_per_shard=2)
    assert open_dataset(tmp_path / "out").num_episodes == 4


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_video_that_ends_early_is_refused(ending: str, stamp_rollouts: Path, tmp_path: Path) -> None:
    path = tmp_path / f"early{ending}"
    write_video(path, episodes(stamp_rollouts)[0].pixels)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(DatasetNotUsable, match="damaged"):
        list(video_frames(path))


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'secret.mp4'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    ],
    ids=["concat", "playlist"],
)
def test_a_video_that_refers_to_other_files_does_not_have_them_read(text: str, stamp_rollouts: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "secret.mp4", episodes(stamp_rollouts)[0].pixels)
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(DatasetNotUsable, match="no video that FFmpeg can read"):
        list(video_frames(tmp_path / "list.mp4"))


def test_the_command_refuses_in_a_line(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts)
    words = ["video", "--from", source, "--out", tmp_path / "out"]
    require_refused(words, "ride_5.csv: has no column of actions", "got steer, gas, reward")
    (source / "ride_5.mp4").write_bytes(b"no video")
    require_refused([*words, "--action", "steer", "gas"], "ride_5.mp4: is no video that FFmpeg can read, or it is damaged")


def test_what_is_missing_or_does_not_fit_is_named(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts)
    first = episodes(stamp_rollouts)[0]

    def refused(text: str, **options: object) -> None:
        with pytest.raises((ConfigError, DatasetNotUsable), match=text):
            run_import("video", source, tmp_path / "out", **{"action": ("steer", "gas"), **options})

    refused("action='brake': the table has no such column", action=("steer", "brake"))
    refused("reward='score': the table has no such column", reward="score")
    refused("action='steer': is in the action already", action=("steer", "gas", "steer"))
    refused("reward='gas': is in the action already", reward="gas")
    write_csv(source / "ride_5.csv", columns_of(first, 17))
    rows = f"expected {first.num_steps} or {first.num_rows} rows of actions in {source}/ride_5.csv, got 17"
    refused(f"ride_5.mp4: has {first.num_rows} frames; {rows}")
    (source / "ride_5.csv").unlink()
    refused("ride_5.mp4: has no table of actions; expected ride_5.csv or")
    write_csv(source / "ride_5.csv", columns_of(first, first.num_steps))
    write_npz(source / "ride_5.npz", columns_of(first, first.num_steps))
    refused("ride_5.mp4: has two tables of actions")
    (source / "ride_5.npz").unlink()
    write_csv(source / "ride_6.csv", {"steer": first.action[:, 0], "gas": first.action[:, 1]})
    refused("ride_6.csv: has other columns; expected steer, gas, reward, .*, got steer, gas$")
    with pytest.raises(DatasetNotUsable, match="nowhere: is not there"):
        run_import("video", tmp_path / "nowhere", tmp_path / "out")


def test_frames_that_are_left_out_of_their_numbers_are_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts, write_pictures, "")
    (source / "ride_5" / "7.png").unlink()
    with pytest.raises(DatasetNotUsable, match=r"ride_5/8.png: a frame's number does not follow the one before"):
        run_import("video", source, tmp_path / "out", action=("steer", "gas"))


def test_a_frame_of_a_kind_that_is_not_read_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts, write_pictures, "")
    last = max((source / "ride_5").glob("*.png"), key=lambda path: int(path.stem))
    last.rename(last.with_suffix(".webp"))
    with pytest.raises(
        DatasetNotUsable, match=r"ride_5/\d+.webp: stands among the frames and is not read; expected PNG or JPEG"
    ):
        run_import("video", source, tmp_path / "out")


def test_an_end_in_the_middle_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts)
    columns = columns_of(episodes(stamp_rollouts)[0], episodes(stamp_rollouts)[0].num_steps)
    columns["terminated"] = columns["terminated"] | (np.arange(len(columns["lap"])) == 4)
    write_csv(source / "ride_5.csv", columns)
    with pytest.raises(DatasetNotUsable, match=r"terminated is set before the episode's last action; expected row \d+, got 4"):
        run_import("video", source, tmp_path / "out", action=("steer", "gas"))


def write_ride(folder: Path, text: str, rollouts: Path) -> Path:
    """The first toy episode as pictures, with `text` as its table."""
    folder.mkdir()
    write_pictures(folder / "ride", episodes(rollouts)[0].pixels)
    (folder / "ride.csv").write_text(text)
    return folder


def table_of(episode: Episode, head: str, row: str) -> str:
    """A CSV with this head, and a row for each action: steer, gas and reward are in place of {0}, {1} and {2}."""
    rows = zip(*episode.action[:-1].T.tolist(), episode.reward[:-1].tolist(), strict=True)
    return "\n".join([head, *(row.format(*each) for each in rows), ""])


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("action_0, action_1, reward", "{0}, {1}, {2}"),
        ("reward,action_1,action_0", "{2},{1},{0}"),
        ("note,action.0,action.1,reward", "left,{0},{1},{2}"),
        ("\ufeffaction[0],action[1],reward", "{0},{1},{2}"),
    ],
    ids=["spaces", "any order", "texts", "byte order mark"],
)
def test_columns_are_found_by_their_names_and_numbers(head: str, row: str, stamp_rollouts: Path, tmp_path: Path) -> None:
    episode = episodes(stamp_rollouts)[0]
    source = write_ride(tmp_path / "rides", table_of(episode, head, row), stamp_rollouts)
    report = run_import("video", source, tmp_path / "out")
    imported = episodes(tmp_path / "out")[0]
    np.testing.assert_array_equal(imported.action, episode.action)
    np.testing.assert_array_equal(imported.reward, episode.reward)
    assert ("note: left out, it has no number for each row" in report.notes) == ("note" in head)


def test_columns_that_no_dataset_can_hold_are_left_out_and_named(stamp_rollouts: Path, tmp_path: Path) -> None:
    """Without a name as pandas writes its index, of another name than HDF5 takes, and of names that latents or windows have."""
    table = table_of(episodes(stamp_rollouts)[0], ",action_0,action_1,a/b,x,z,mask,mu,ep_len", "0,{0},{1},1,2,3,4,5,6")
    report = run_import("video", write_ride(tmp_path / "rides", table, stamp_rollouts), tmp_path / "out")
    taken = "datasets and windows of latents have something else of this name"
    assert [note for note in report.notes if "left out (" in note] == [
        "'': left out (a column cannot be called '')",
        "a/b: left out (a column cannot be called 'a/b')",
        f"z: left out ({taken})",
        f"mask: left out ({taken})",
        f"mu: left out ({taken})",
        "ep_len: left out (a column cannot be called 'ep_len')",
    ]
    assert [column.name for column in open_dataset(tmp_path / "out").schema.by_role("extra")] == ["x"]


@pytest.mark.parametrize(
    ("head", "row", "said"),
    [
        ("action,reward", "{0},much", "ride.csv: reward: not every value is a number, or true or false"),
        ("action_0,action_1", "{0},left", "ride.csv: action_1: not every value is a number"),
        ("action,terminated", "{0},no", "ride.csv: terminated: not every value is a number"),
        ("action,reward,reward", "{0},1,2", "ride.csv: has two columns of the name 'reward'"),
        ("action;reward", "{0};{2}", "not separated by commas; expected a head such as steer,gas,reward, got action;reward"),
        ("action,lap", "{0},1764432000000000001", "lap: whole numbers that float64 cannot hold"),
        ("action,seed", "{0},-3", "seed: one whole number in all rows, 0 to 2^63 - 1, or -1 if it is not known, got [-3]"),
        ("action,seed", "{0},inf", "seed: one whole number in all rows"),
        ("action,terminated", "{0},2", "terminated: 0 or 1, or false or true, got 2"),
        ("action,reward", "{0},16777217", "reward: int64 values that float32 cannot hold"),
        ("action, id", "{0}, 18446744073709551617", "ride.csv: id: whole numbers that int64 cannot hold"),
        ("action", "{0}\n", "ride.csv: line 3 is empty; expected a number in every row"),
        ("action_0,action_2", "{0},{1}", "columns of actions whose numbers follow one another, got action_2 after action_0"),
        ("action_1,action_01", "{0},{1}", "columns of actions whose numbers follow one another, got action_01 after action_1"),
        ("action_x,action_std", "{0},{1}", "has no column of actions; expected action, or action_0, action_1, …, got action_x"),
        ("action,reward", "{0},{1},", "ride.csv: is no such CSV (ArrowInvalid: CSV parse error: Expected 2 columns, got 3"),
    ],
)
def test_what_a_table_would_lose_without_a_word_is_refused(
    head: str, row: str, said: str, stamp_rollouts: Path, tmp_path: Path
) -> None:
    source = write_ride(tmp_path / "rides", table_of(episodes(stamp_rollouts)[0], head, row), stamp_rollouts)
    with pytest.raises(DatasetNotUsable, match=re.escape(said)):
        run_import("video", source, tmp_path / "out")


def test_what_else_is_named_after_actions_is_none_of_them(stamp_rollouts: Path, tmp_path: Path) -> None:
    episode = episodes(stamp_rollouts)[0]
    table = table_of(episode, "action_std,action_1,action_2", "7,{0},{1}")
    run_import("video", write_ride(tmp_path / "rides", table, stamp_rollouts), tmp_path / "out")
    imported = episodes(tmp_path / "out")[0]
    np.testing.assert_array_equal(imported.action, episode.action)
    assert imported.action_std[0] == 7


def test_rows_in_another_order_than_the_frames_are_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    episode = episodes(stamp_rollouts)[0]
    head, *rows = table_of(episode, "action_0,action_1,Step", "{0},{1},").split()
    for order in (range(len(rows)), range(len(rows) - 1, -1, -1)):
        table = "\n".join([head, *(f"{rows[step]}{step}" for step in order)])
        source = write_ride(tmp_path / f"rides {order.step}", table, stamp_rollouts)
        if order.step == 1:
            run_import("video", source, tmp_path / "out")
        else:
            with pytest.raises(DatasetNotUsable, match=r"ride.csv: its rows are not in the order of Step; .*; sort it by Step"):
                run_import("video", source, tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "the column without a name"),
        ("Unnamed: 0", "Unnamed: 0"),
        ("__index_level_0__", "__index_level_0__"),
        ("t", "t"),
        ("index", "index"),
    ],
)
def test_an_index_says_an_order_too(name: str, said: str, stamp_rollouts: Path, tmp_path: Path) -> None:
    head, *rows = table_of(episodes(stamp_rollouts)[0], "action_0,action_1", "{0},{1}").split()
    in_order = [f"{step},{row}" for step, row in enumerate(rows)]
    for folder, order in (("right", in_order), ("wrong", [in_order[1], in_order[0], *in_order[2:]])):
        source = write_ride(tmp_path / folder, "\n".join([f"{name},{head}", *order]), stamp_rollouts)
        if folder == "right":
            run_import("video", source, tmp_path / "out")
        else:
            with pytest.raises(
                DatasetNotUsable, match=f"its rows are not in the order of {said}; .*, got 0 after 1; sort it by"
            ):
                run_import("video", source, tmp_path / "other")


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_dates_and_times_say_an_order_too(ending: str, stamp_rollouts: Path, tmp_path: Path) -> None:
    head, *rows = table_of(episodes(stamp_rollouts)[0], "action_0,action_1,timestamp", "{0},{1},").split()
    for when, falls in (
        ("2026-01-{:02}", False),
        ("2026-01-01 10:00:{:02}", False),
        ("10:{:02}", True),
        ("2026-01-{:02}", True),
    ):
        days = range(len(rows), 0, -1) if falls else range(1, len(rows) + 1)
        table = "\n".join([head, *(row + when.format(day) for row, day in zip(rows, days, strict=True))])
        source = write_ride(tmp_path / f"rides {when} {falls}", table, stamp_rollouts)
        if ending == ".parquet":
            pyarrow.parquet.write_table(pyarrow.csv.read_csv(source / "ride.csv"), source / "ride.parquet")
            (source / "ride.csv").unlink()
        if falls:
            with pytest.raises(DatasetNotUsable, match=r"its rows are not in the order of timestamp; .*; sort it by timestamp"):
                run_import("video", source, tmp_path / "other")
        else:
            notes = run_import("video", source, tmp_path / f"out {when}").notes
            assert "timestamp: left out, it has no number for each row" in notes


def test_a_row_that_is_missing_between_others_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    head, *rows = table_of(episodes(stamp_rollouts)[0], "action_0,action_1,frame", "{0},{1},").split()
    for step, gap, refused in ((1, 0, False), (4, 0, False), (1, 1, True)):
        counts = [step * row + gap * (row > 2) for row in range(len(rows))]
        table = "\n".join([head, *(f"{row}{count}" for row, count in zip(rows, counts, strict=True))])
        source = write_ride(tmp_path / f"rides {step} {gap}", table, stamp_rollouts)
        if refused:
            with pytest.raises(
                DatasetNotUsable, match=r"frame does not count evenly, .*; expected 3 after 2, got 4; add it, or"
            ):
                run_import("video", source, tmp_path / "other")
            run_import("video", source, tmp_path / "without", without=("frame",))
        else:
            run_import("video", source, tmp_path / f"out {step}")


def test_a_table_that_is_not_in_utf_8_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_ride(tmp_path / "rides", "", stamp_rollouts)
    (source / "ride.csv").write_text("action,größe\n0.5,1\n", "latin-1")
    with pytest.raises(DatasetNotUsable, match=r"ride.csv: its head is not in UTF-8; save it as UTF-8"):
        run_import("video", source, tmp_path / "out")


def test_pictures_whose_names_say_no_order_are_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_ride(tmp_path / "rides", "action_0\n0.5\n", stamp_rollouts)
    (source / "ride" / "0.png").rename(source / "ride" / "first.png")
    with pytest.raises(DatasetNotUsable, match="expected pictures with a number in each name, which says their order"):
        run_import("video", source, tmp_path / "out")


def test_an_animation_in_the_place_of_a_picture_is_refused(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 8), (value, 0, 0)) for value in (1, 2))
    first.save(tmp_path / "two.png", save_all=True, append_images=[second])
    with pytest.raises(DatasetNotUsable, match="two: is an animation; expected one picture a file, got 2 pictures"):
        picture(tmp_path / "two.png", "two")


def test_a_table_without_rows_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = write_ride(tmp_path / "rides", "action,reward\n", stamp_rollouts)
    with pytest.raises(DatasetNotUsable, match=r"ride.csv: has no rows; expected one row for each action"):
        run_import("video", source, tmp_path / "out")


def test_folders_with_a_dot_in_their_names_are_episodes_of_their_own(stamp_rollouts: Path, tmp_path: Path) -> None:
    source = tmp_path / "rides"
    source.mkdir()
    for number, episode in enumerate(episodes(stamp_rollouts)[:2]):
        write_pictures(source / f"ride.{number}", episode.pixels)
        write_csv(source / f"ride.{number}.csv", columns_of(episode, episode.num_steps))
    assert run_import("video", source, tmp_path / "out", action=("steer", "gas")).episodes == 2


ON_ITS_SIDE, UPSIDE_DOWN = (0, 1, -1, 0), (1, 0, 0, -1)


@pytest.mark.parametrize(("matrix", "how"), [(ON_ITS_SIDE, "turned by -90°"), (UPSIDE_DOWN, "flipped vertically")])
def test_a_video_that_is_stored_on_its_side_is_refused(
    matrix: tuple[int, ...], how: str, stamp_rollouts: Path, tmp_path: Path
) -> None:
    source = write_rides(tmp_path / "rides", stamp_rollouts)
    turn_mp4(source / "ride_5.mp4", matrix)
    with pytest.raises(DatasetNotUsable, match=rf"stored as they are shown, got one to be {how}; turn it \(ffmpeg"):
        run_import("video", source, tmp_path / "out", action=("steer", "gas"))


def turn_mp4(path: Path, matrix: tuple[int, ...]) -> None:
    """Write into the header of its track that it is shown turned, as telephones do."""
    content = bytearray(path.read_bytes())
    start = content.rindex(b"tkhd") + 4 + 4 + 20 + 16
    right, down, left, top = (value << 16 for value in matrix)
    content[start : start + 36] = struct.pack(">9i", right, down, 0, left, top, 0, 64 << 16, 0, 1 << 30)
    path.write_bytes(content)


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (16, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.png", "turned.jpg"):
        stored = np.ascontiguousarray(np.rot90(upright))
        Image.fromarray(stored).save(tmp_path / name, exif=exif)
        with Image.open(tmp_path / name) as image:
            np.testing.assert_array_equal(picture(tmp_path / name, name), np.rot90(np.asarray(image), -1))
    np.testing.assert_array_equal(picture(tmp_path / "turned.png", "turned"), upright)


def test_grey_with_transparency_is_read_and_16_bits_are_refused(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).convert("LA").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(picture(tmp_path / "grey.png", "grey"), np.repeat(grey[..., None], 3, axis=2))
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 8, 8, "rgb48be", Fraction(1)
    (packet,) = encoder.encode(av.VideoFrame(8, 8, "rgb48be"))
    with pytest.raises(DatasetNotUsable, match=r"deep: is no picture of 8 bits a colour; .* got mode RGB, 16 bits a colour"):
        picture(bytes(packet), "deep")
    with pytest.raises(DatasetNotUsable, match=r"^text: is no PNG or JPEG$"):
        picture(b"text", "text")
