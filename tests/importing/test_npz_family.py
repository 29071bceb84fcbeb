"""hardmaru, ctallec and plain arrays: every action in the row of the frame that it was chosen on; what is lacking is marked."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.importing.recorders import EPISODES, assert_in_place, record_ctallec, record_hardmaru, record_plain, resaved
from tests.importing.toy import run_import
from worldmodel_v.errors import ConfigError, DatasetNotUsable, OutputNotUsable
from worldmodel_v.export import FORMATS as EXPORTS
from worldmodel_v.export import export
from worldmodel_v.importing import FORMATS, ImportReport, import_recordings
from worldmodel_v.importing.episode_files import tables
from worldmodel_v.importing.npz_folder import npz_files
from worldmodel_v.importing.order import require_in_order
from worldmodel_v.records import Episode
from worldmodel_v.storage import Dataset, open_dataset, verify

BOX = '{"type": "Box", "dtype": "float32", "shape": [2], %s}'


def run(name: str, source: Path, out: Path, **options: object) -> tuple[ImportReport, list[Episode], Dataset]:
    """Import without the verdict on alignment, which has tests of its own."""
    config = FORMATS[name](from_=source, out=out, alignment=False, **options)  # type: ignore[arg-type]
    report = import_recordings(config)
    dataset = open_dataset(out)
    assert verify(dataset) == []
    return report, [dataset.episode(number) for number in range(dataset.num_episodes)], dataset


def test_hardmaru_rows_end_before_the_last_action(tmp_path: Path) -> None:
    taken = record_hardmaru(tmp_path / "record")
    report, episodes, dataset = run("hardmaru", tmp_path / "record", tmp_path / "out")
    assert (report.episodes, report.frames) == (EPISODES, EPISODES * 10)
    for episode, actions in zip(episodes, taken, strict=True):
        assert episode.num_steps == 9
        assert_in_place(episode, has_reward=False)
        np.testing.assert_array_equal(episode.action[:-1], actions[:9])
        assert np.isnan(episode.reward).all()
        assert not episode.terminated.any()
        assert episode.truncated[-2]
    assert [episode.seed for episode in episodes] == sorted(int(path.stem) for path in (tmp_path / "record").iterdir())
    assert dataset.schema["reward"].absent
    assert dataset.spec.imported["lacks"] == ["final observation", "reward", "termination"]
    assert [note.partition(":")[0] for note in report.notes] == dataset.spec.imported["lacks"]


def test_ctallec_rows_are_moved_one_up(tmp_path: Path) -> None:
    drawn = record_ctallec(tmp_path / "carracing")
    report, episodes, dataset = run("ctallec", tmp_path / "carracing", tmp_path / "out")
    for episode, actions in zip(episodes, drawn, strict=True):
        assert_in_place(episode, first=1)
        np.testing.assert_array_equal(episode.action[:-1], actions[1 : episode.num_steps + 1])
        assert episode.terminated[-2]
        assert not episode.truncated.any()
        assert episode.seed == -1
    assert [*dataset.spec.imported["files"]] == [f"thread_{t}/rollout_{n}.npz" for t in (0, 1) for n in (0, 1)]
    assert dataset.spec.imported["lacks"] == ["truncation", "seed"]
    assert report.notes[-1].startswith("the first action of each episode, with its reward: left out")


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_plain_arrays_come_back_as_they_are(ending: str, tmp_path: Path) -> None:
    recorded = record_plain(tmp_path / "plain", ending=ending)
    report, episodes, dataset = run("npz", tmp_path / "plain", tmp_path / "out")
    for episode, arrays in zip(episodes, recorded, strict=True):
        assert_in_place(episode)
        np.testing.assert_array_equal(episode.pixels, arrays["pixels"])
        for name in ("action", "reward", "terminated", "truncated"):
            np.testing.assert_array_equal(episode.columns[name][:-1], arrays[name])
        assert episode.columns[ending][-2]
    assert dataset.spec.imported["lacks"] == ["seed"]
    assert report.notes == ["seed: no seed of some or all episodes, so it is -1 there"]
    bounds = {"low": "-inf", "high": "inf"}
    assert dataset.schema.action_space == {"type": "Box", "dtype": "float32", "shape": [2], **bounds}


@pytest.mark.parametrize(("name", "seeds"), [("npz", False), ("ctallec", False), ("minari", True)])
def test_what_wm_export_wrote_comes_back_with_every_row(name: str, seeds: bool, stamp_rollouts: Path, tmp_path: Path) -> None:
    export(EXPORTS[name](data=stamp_rollouts, out=tmp_path / "recorded-v0"))
    _, episodes, dataset = run(name, tmp_path / "recorded-v0", tmp_path / "out", action_space="box:-1,1")
    original = open_dataset(stamp_rollouts)
    assert dataset.num_episodes == original.num_episodes
    for number, episode in enumerate(episodes):
        before = original.episode(number)
        for column in ("pixels", "action", "reward", "terminated", "truncated"):
            np.testing.assert_array_equal(episode.columns[column], before.columns[column], strict=True)
        assert episode.seed == (before.seed if seeds else -1)
        if name == "npz":
            np.testing.assert_array_equal(episode.state, before.state, strict=True)
            assert episode.state_names == before.state_names
        if name == "minari":
            assert episode.policy == "random"
            np.testing.assert_array_equal(episode.columns["info.step"], before.state[:, 0])
    assert dataset.schema.action_space == original.schema.action_space


def test_discrete_actions_that_this_package_wrote_come_back_once_their_number_is_said(tmp_path: Path) -> None:
    recorded = record_plain(tmp_path / "plain", discrete=True)
    with pytest.raises(
        DatasetNotUsable, match=r"0\.npz: its actions are whole numbers .*say it, such as action_space='discrete"
    ):
        run("npz", tmp_path / "plain", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    _, episodes, dataset = run("npz", tmp_path / "plain", tmp_path / "out", action_space="discrete:5")
    for episode, arrays in zip(episodes, recorded, strict=True):
        assert_in_place(episode)
        np.testing.assert_array_equal(episode.action, [*arrays["action"], -1])
    assert dataset.schema.actions.num_actions == 5
    export(EXPORTS["npz"](data=tmp_path / "out", out=tmp_path / "again"))
    _, again, _ = run("npz", tmp_path / "again", tmp_path / "back", action_space="discrete:5")
    for one, other in zip(episodes, again, strict=True):
        np.testing.assert_array_equal(one.action, other.action)
    with pytest.raises(DatasetNotUsable, match=r"action \d is 4, outside of its space"):
        run("npz", tmp_path / "plain", tmp_path / "four", action_space="discrete:4")


def test_actions_of_several_axes_come_back_as_this_package_exports_them(tmp_path: Path) -> None:
    recorded = record_plain(tmp_path / "plain")
    for number, arrays in enumerate(recorded):
        bits = np.repeat(arrays["action"][:, :1, None] > 0, 2, axis=2).astype(np.int8)  # (T, 1, 2)
        resaved(tmp_path / "plain" / f"{number}.npz", action=bits)
    space = '{"type": "MultiBinary", "dtype": "int8", "shape": [1, 2]}'
    _, episodes, dataset = run("npz", tmp_path / "plain", tmp_path / "out", action_space=space)
    export(EXPORTS["npz"](data=tmp_path / "out", out=tmp_path / "again"))
    _, again, _ = run("npz", tmp_path / "again", tmp_path / "back", action_space=json.dumps(dataset.schema.action_space))
    for one, other in zip(episodes, again, strict=True):
        np.testing.assert_array_equal(one.action, other.action)


def test_arrays_of_other_names_with_grey_frames_channels_first_and_no_ends(tmp_path: Path) -> None:
    recorded = record_plain(tmp_path / "plain")
    for number, arrays in enumerate(recorded):
        content = {"obs": np.moveaxis(arrays["pixels"][..., :1], 3, 1), "a": arrays["action"].astype(np.float64)}
        np.savez(tmp_path / "plain" / f"{number}.npz", **content)
    names = {"frames": "obs", "action": "a", "reward": "none", "terminated": "none", "truncated": "none"}
    with pytest.raises(DatasetNotUsable, match="if the channels come first, say layout='CHW'"):
        run("npz", tmp_path / "plain", tmp_path / "out", **names)
    _, episodes, dataset = run("npz", tmp_path / "plain", tmp_path / "out", layout="CHW", **names)
    for episode, arrays in zip(episodes, recorded, strict=True):
        np.testing.assert_array_equal(episode.pixels, arrays["pixels"])
        np.testing.assert_array_equal(episode.action[:-1], arrays["action"])
        assert episode.truncated[-2]
    assert dataset.spec.imported["lacks"] == ["reward", "termination", "seed"]
    assert dataset.spec.imported["options"] == {"layout": "CHW", **names}


def test_frames_without_a_channel_and_without_a_final_one(tmp_path: Path) -> None:
    recorded = record_plain(tmp_path / "plain")
    for number, arrays in enumerate(recorded):
        resaved(tmp_path / "plain" / f"{number}.npz", pixels=arrays["pixels"][:-1, :, :, 0])
    report, episodes, dataset = run("npz", tmp_path / "plain", tmp_path / "out", frame_size=32, crop="0:64,0:64")
    for episode, arrays in zip(episodes, recorded, strict=True):
        assert_in_place(episode)
        np.testing.assert_array_equal(episode.pixels, arrays["pixels"][:-1, ::2, ::2])
        np.testing.assert_array_equal(episode.action[:-1], arrays["action"][:-1])
        assert not episode.terminated.any()
        assert episode.truncated[-2]
    assert dataset.spec.imported["lacks"] == ["final observation", "seed"]
    assert report.notes[0].startswith("final observation: no frame follows the last action of some or all episodes, so")


def test_further_arrays_with_a_row_for_each_frame_are_columns_and_others_are_named(tmp_path: Path) -> None:
    recorded = record_plain(tmp_path / "plain")
    for number, arrays in enumerate(recorded):
        rows = len(arrays["pixels"])
        beside = {"depth": np.full((rows, 2), number, np.float64), "log_prob": np.zeros(rows - 1), "fps": np.array(30)}
        resaved(tmp_path / "plain" / f"{number}.npz", **beside)
    report, episodes, dataset = run("npz", tmp_path / "plain", tmp_path / "out")
    assert [column.name for column in dataset.schema.by_role("extra")] == ["depth"]
    for number, episode in enumerate(episodes):
        np.testing.assert_array_equal(episode.columns["depth"], np.full((episode.num_rows, 2), number, np.float64), strict=True)
    assert {note.partition(":")[0] for note in report.notes} == {"seed", "log_prob", "fps"}


def test_rows_in_another_order_than_their_steps_are_refused(tmp_path: Path) -> None:
    record_plain(tmp_path / "recorded")
    for file in (tmp_path / "recorded").iterdir():
        with np.load(file) as arrays:
            step = np.arange(len(arrays["pixels"]))
        step[[1, 2]] = 2, 1
        resaved(file, step=step)
    with pytest.raises(
        DatasetNotUsable, match=r"npz: its rows are not in the order of step; .*, got 1 after 2; sort it by step"
    ):
        run_import("npz", tmp_path / "recorded", tmp_path / "out")
    run_import("npz", tmp_path / "recorded", tmp_path / "out", without=("step",))


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_dates_are_told_as_dates(unit: str) -> None:
    times = np.array(["2020-01-02T00:00:00", "2020-01-01T00:00:00"], f"M8[{unit}]")
    with pytest.raises(DatasetNotUsable, match=r"got 2020-01-01T00:00:00[.0]* after 2020-01-02T00:00:00[.0]*; sort it by t"):
        require_in_order({"t": times})


def test_a_single_file_is_an_episode(tmp_path: Path) -> None:
    record_plain(tmp_path / "plain")
    _, episodes, dataset = run("npz", tmp_path / "plain" / "2.npz", tmp_path / "out")
    assert len(episodes) == 1
    assert [*dataset.spec.imported["files"]] == ["2.npz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncated": "cut", "terminated": "none"}, "without an array of terminations says nothing"),
        ({"action_space": "discrete:0"}, "is no space of actions .*expected discrete:5"),
        ({"action_space": "box:1,-1"}, "the bounds are in the wrong order"),
        ({"action_space": "five"}, "is no space of actions"),
        ({"action_space": '{"type": "Text"}'}, "is no space of actions"),
        ({"frames": "none"}, "expected an array 'none', got the arrays .*; name it with frames$"),
        ({"action_space": f"discrete:{10**30}"}, "is no space of actions"),
        ({"action_space": '{"type": "Discrete", "dtype": "int64", "n": 3.9, "start": 0}'}, r"3\.9: expected whole numbers"),
        ({"action_space": BOX % '"low": [-1], "high": [1, 2, 3]'}, "is no space of actions .*broadcast"),
        ({"action_space": BOX % '"low": 9, "high": -9'}, "the bounds are in the wrong order"),
        ({"action_space": BOX % '"low": -9'}, "has no bounds"),
        ({"frame_size": 63}, "no architecture trains on frames of 63x63"),
        ({"crop": "1:2"}, "crop: expected"),
        ({"episodes": 9}, "episodes: expected at most 4"),
        ({"out": "inside"}, "lies in the recording, which is only read"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, object], message: str, tmp_path: Path) -> None:
    record_plain(tmp_path / "plain")
    if options.get("out"):
        options = {"out": tmp_path / "plain" / "inside"}
    with pytest.raises((ConfigError, DatasetNotUsable), match=message):
        run("npz", tmp_path / "plain", **{"out": tmp_path / "out", **options})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("num_frames", [0, 1])
def test_an_episode_without_actions_is_refused(num_frames: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", pixels=np.zeros((num_frames, 8, 8, 3), np.uint8), action=np.zeros((0, 2)))
    with pytest.raises(DatasetNotUsable, match=r"0.npz: expected at least one action, got 0"):
        run("npz", tmp_path, tmp_path.with_name("out"), reward="none", terminated="none", truncated="none")


def test_arrays_that_no_column_holds_are_named_whichever_file_has_them(tmp_path: Path) -> None:
    for number, arrays in enumerate(record_plain(tmp_path / "here")):
        rows = len(arrays["pixels"])
        none = {"late": np.zeros(rows)} if number else {"wide": np.zeros((rows, 0)), "count": np.zeros(rows, np.uint64)}
        resaved(tmp_path / "here" / f"{number}.npz", swapped=np.ones((rows, 2), ">f4"), **none)
    report, _, dataset = run("npz", tmp_path / "here", tmp_path / "out")
    assert {note.partition(":")[0] for note in report.notes} == {"seed", "wide", "count", "late"}
    assert dataset.spec.schema["swapped"].dtype == "float32"


def test_folders_behind_symbolic_links_are_read_once(tmp_path: Path) -> None:
    record_ctallec(tmp_path / "real")
    (tmp_path / "here").mkdir()
    for thread in (tmp_path / "real").iterdir():
        (tmp_path / "here" / thread.name).symlink_to(thread)
    (tmp_path / "real" / "thread_0" / "loop").symlink_to(tmp_path / "real" / "thread_0")
    assert run("ctallec", tmp_path / "here", tmp_path / "out")[0].episodes == EPISODES
    with pytest.raises(ConfigError, match="lies in the recording"):
        FORMATS["ctallec"](from_=tmp_path / "real" / "thread_0", out=tmp_path / "here" / "thread_0" / "out")


def test_an_output_that_is_a_file_is_a_mistake(tmp_path: Path) -> None:
    record_plain(tmp_path / "here")
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputNotUsable, match="out: is a file"):
        run("npz", tmp_path / "here", tmp_path / "out")


def test_endings_in_capitals_are_found(tmp_path: Path) -> None:
    for name in ("ride.MP4", "ride.CSV", "a.NPZ"):
        (tmp_path / name).touch()
    assert npz_files(tmp_path) == (tmp_path / "a.NPZ",)
    assert tables([tmp_path / "ride.MP4"], None) == [tmp_path / "ride.CSV"]
