"""The whole run: the same bytes by whomever and after any kill; other files and other settings are refused by name."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import Sayings
from tests.conftest import stamp_config
from tests.export.conftest import write_stamp_latents
from tests.faults.every_step import dataset_content
from tests.faults.kills import killed_behind
from tests.importing.recorders import record_hardmaru, record_plain, resaved
from tests.selection.made import content, selected
from tests.test_alignment import toy as linear_world
from worldmodel_v.cli import importing as command
from worldmodel_v.cli import inspect
from worldmodel_v.collection import collect
from worldmodel_v.errors import ConfigError, DatasetNotUsable, OutputNotUsable
from worldmodel_v.export import FORMATS, export
from worldmodel_v.importing import ImportReport, import_recordings, source_files
from worldmodel_v.importing.hardmaru import HardmaruImportConfig
from worldmodel_v.importing.plain_npz import NpzImportConfig
from worldmodel_v.progress import Progress
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import Dataset, open_dataset, verify


def run(source: Path, out: Path, progress: Progress | None = None, **options: Any) -> ImportReport:
    settings = {"episodes_per_shard": 1, "alignment": False, **options}
    return import_recordings(NpzImportConfig(from_=source, out=out, **settings), progress)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    record_plain(tmp_path / "recorded")
    return tmp_path / "recorded"


def test_killed_behind_every_step_the_same_again_gives_the_same_bytes(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_files, "MAX_LISTED", 2)
    run(recorded, tmp_path / "undisturbed", episodes=2)
    expected = content(tmp_path / "undisturbed") | {"files": (tmp_path / "undisturbed" / "files.jsonl").read_bytes()}
    step = 0
    while killed_behind(step, lambda: run(recorded, tmp_path / f"killed-{step}", episodes=2)):  # noqa: B023  (it is done at once)
        run(recorded, out := tmp_path / f"killed-{step}", episodes=2)
        assert content(out) | {"files": (out / "files.jsonl").read_bytes()} == expected, step
        assert verify(open_dataset(out)) == []
        step += 1
    assert step > 20


def test_fewer_episodes_first_and_more_later_give_the_same_bytes(recorded: Path, tmp_path: Path) -> None:
    run(recorded, tmp_path / "all")
    assert run(recorded, tmp_path / "more", episodes=2).new_episodes == 2
    report = run(recorded, tmp_path / "more")
    assert (report.episodes, report.new_episodes) == (4, 2)
    assert content(tmp_path / "more") == content(tmp_path / "all")
    assert run(recorded, tmp_path / "more").new_episodes == 0


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_workers_change_no_byte(recorded: Path, tmp_path: Path) -> None:
    run(recorded, tmp_path / "alone")
    run(recorded, tmp_path / "workers", workers=2)
    assert dataset_content(tmp_path / "workers") == dataset_content(tmp_path / "alone")


@pytest.mark.parametrize("most_listed", [1000, 2])
def test_other_files_are_refused_by_name(
    most_listed: int, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_files, "MAX_LISTED", most_listed)
    run(recorded, tmp_path / "out", episodes=3)
    before = content(tmp_path / "out")
    imported = open_dataset(tmp_path / "out").spec.settings()["imported"]
    assert (imported["num_files"], len(imported["files"])) == (4, 4 if most_listed > 4 else 0)
    assert (tmp_path / "out" / "files.jsonl").exists() == (most_listed == 2)

    whole = (recorded / "3.npz").read_bytes()
    resaved(recorded / "3.npz", reward=np.load(recorded / "3.npz")["reward"] + 1)
    with pytest.raises(
        OutputNotUsable, match=r"out: was imported from other files: 3\.npz has SHA-256 \w+…, it had \w+…; give"
    ):
        run(recorded, tmp_path / "out")
    (recorded / "3.npz").unlink()
    with pytest.raises(OutputNotUsable, match=r"3\.npz is missing now"):
        run(recorded, tmp_path / "out")
    (recorded / "3.npz").write_bytes(whole)
    (recorded / "4.npz").write_bytes(whole)
    with pytest.raises(OutputNotUsable, match=r"4\.npz is new"):
        run(recorded, tmp_path / "out")
    assert content(tmp_path / "out") == before
    (recorded / "4.npz").unlink()
    assert run(recorded, tmp_path / "out").new_episodes == 1


def test_other_settings_are_refused_by_name(recorded: Path, tmp_path: Path) -> None:
    run(recorded, tmp_path / "out")
    with pytest.raises(OutputNotUsable, match=r"imported\.options\.truncated is 'truncated' there, 'none' asked"):
        run(recorded, tmp_path / "out", truncated="none")
    with pytest.raises(OutputNotUsable, match="frame_height is 64 there, 32 asked"):
        run(recorded, tmp_path / "out", frame_size=32)
    with pytest.raises(OutputNotUsable, match=r"action_space is .* there, .* asked"):
        run(recorded, tmp_path / "out", action_space="box:-1,1")
    with pytest.raises(OutputNotUsable, match="holds episodes that were imported, and this command does not continue it"):
        collect(stamp_config(tmp_path / "out"))
    collect(stamp_config(tmp_path / "collected", episodes=1))
    with pytest.raises(OutputNotUsable, match="holds a dataset that was not imported, and this command does not continue it"):
        run(recorded, tmp_path / "collected")


def test_episodes_that_are_skipped_are_not_there(recorded: Path, tmp_path: Path) -> None:
    run(recorded, tmp_path / "all")
    assert run(recorded, tmp_path / "some", skip=(2, 0)).episodes == 2
    for ours, theirs in zip(open_dataset(tmp_path / "some"), [open_dataset(tmp_path / "all")[i] for i in (1, 3)], strict=True):
        assert all(np.array_equal(rows, theirs.columns[name], equal_nan=True) for name, rows in ours.columns.items())
    assert run(recorded, tmp_path / "some", skip=(0, 2)).new_episodes == 0
    with pytest.raises(OutputNotUsable, match=r"imported\.options\.skip is \[0, 2\] there, 'not set' asked"):
        run(recorded, tmp_path / "some")
    with pytest.raises(ConfigError, match=r"^skip: expected 0 to 3, got 4"):
        run(recorded, tmp_path / "more", skip=(4,))
    with pytest.raises(ConfigError, match=r"^skip: leaves out all 4 episodes; leave out fewer"):
        run(recorded, tmp_path / "none", skip=(0, 1, 2, 3))
    with pytest.raises(ConfigError, match=r"^episodes: expected at most 3, which .* has besides the 1 skipped ones, got 4"):
        run(recorded, tmp_path / "many", skip=(1,), episodes=4)
    for skip in (3, (1.5,), (np.int64(2),)):
        with pytest.raises(ConfigError, match=r"^skip: expected a list of whole numbers, got"):
            run(recorded, tmp_path / "wrong", skip=skip)


def test_a_damaged_file_ends_the_run_and_what_was_committed_stays(recorded: Path, tmp_path: Path) -> None:
    file = recorded / "2.npz"
    content_ = bytearray(file.read_bytes())
    content_[5000] ^= 255
    file.write_bytes(content_)
    with pytest.raises(DatasetNotUsable, match=r"2\.npz: cannot be read: BadZipFile: Bad CRC-32 for file 'pixels\.npy'"):
        run(recorded, tmp_path / "out")
    assert open_dataset(tmp_path / "out").num_episodes == 2


def test_files_that_change_during_the_import(recorded: Path, tmp_path: Path) -> None:
    class Changing(Sayings):
        def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
            if name == "shard_committed":
                os.utime(recorded / "0.npz")

    with pytest.raises(DatasetNotUsable, match=r"0\.npz: was changed while it was imported; import again, into another"):
        run(recorded, tmp_path / "out", Changing())


def record_linear(folder: Path, late: int) -> None:
    """A world whose frames show three values, with the actions `late` rows too late."""
    folder.mkdir()
    for number, rows in enumerate(linear_world(episodes=8, steps=60)):
        values = np.clip(128 + 25 * rows.observation[0], 0, 255).astype(np.uint8)
        action = np.roll(rows.action, late, axis=0).astype(np.float32)
        frames = np.broadcast_to(values[:, None, None, :], (len(values), 8, 8, 3))
        np.savez(folder / f"{number:02d}.npz", pixels=frames, action=action, reward=rows.reward)


@pytest.mark.parametrize("late", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_actions_that_are_late_are_told(late: int, tmp_path: Path) -> None:
    record_linear(tmp_path / "recorded", late)
    events: list[tuple[str, bool, dict[str, Any]]] = []

    class Told(Sayings):
        def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
            events.append((name, warning, facts | {"message": message}))

    options = {"terminated": "none", "truncated": "none", "episodes_per_shard": 10, "alignment": True}
    report = run(tmp_path / "recorded", tmp_path / "out", Told(), **options)
    assert report.alignment == ("late by 1" if late else "aligned")
    warning, facts = next((warning, facts) for name, warning, facts in events if name == "alignment_judged")
    assert warning == bool(late)
    assert (facts["verdict"], facts["rows"], facts["stage"]) == ("late" if late else "aligned", late, "import")
    assert ("in other rows than its format says" in facts["message"]) == bool(late)


def run_command(main: Any, words: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    monkeypatch.setenv("COLUMNS", "400")
    main()
    return capsys.readouterr().out


def test_the_command_and_what_wm_inspect_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_hardmaru(tmp_path / "record")
    words = ["wm-import", "hardmaru", "--from", tmp_path / "record", "--out", tmp_path / "out", "--quiet"]
    printed = run_command(command.main, words, monkeypatch, capsys)
    assert "from hardmaru: 4 episodes, 40 frames (4 new episodes)\nactions: undecidable\n" in printed
    assert "- reward: no rewards, so they are NaN in every row\n" in printed
    shown = run_command(inspect.main, ["wm-inspect", tmp_path / "out"], monkeypatch, capsys)
    assert "imported" in shown
    assert "from hardmaru, 4 files (list " in shown
    assert "…), no licence named, lacks final observation, reward, termination" in shown
    facts = json.loads(run_command(inspect.main, ["wm-inspect", tmp_path / "out", "--json"], monkeypatch, capsys))
    assert facts["settings"]["imported"]["files"] == open_dataset(tmp_path / "out").spec.imported["files"]
    assert facts["return"] is None


def test_the_later_stages_know_that_nobody_recorded_rewards(tmp_path: Path) -> None:
    record_hardmaru(tmp_path / "record")
    import_recordings(HardmaruImportConfig(from_=tmp_path / "record", out=tmp_path / "out", alignment=False))
    dataset: Dataset[Any] = open_dataset(tmp_path / "out")
    assert np.isnan(dataset.episode(0).episode_return)
    report = export(FORMATS["npz"](data=tmp_path / "out", out=tmp_path / "npz"))
    assert report.notes == ["reward: nobody recorded it; where the format holds one, it is NaN"]
    latents = write_stamp_latents(tmp_path / "out", tmp_path / "latents")
    assert open_dataset(latents).schema["reward"].absent
    with pytest.raises(DatasetNotUsable, match="latents: nobody recorded its rewards, which this format makes 0 or 1"):
        export(FORMATS["adsp"](data=latents, out=tmp_path / "series"))
    selected(tmp_path / "some", tmp_path / "out", episodes="1")
    some = open_dataset(tmp_path / "some", RolloutSpec)
    assert some.spec.imported == dataset.spec.imported
    assert some.episode(0).seed == dataset.episode(1).seed


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "no format is named; expected one of hardmaru, ctallec"),
        ("gif --from x", "unknown format 'gif'; expected one of"),
        ("--actions npz --from here --out out video", "here: holds no episode; expected videos"),
        ("npz --from absent --out out", "absent: no such directory; give the directory of the recording"),
        ("npz --from here --out out --action-space five", "--action-space five: is no space of actions"),
        ("npz --from here --out here/out", "--out here/out: lies in the recording, which is only read"),
        ("npz --from here --out out --episodes 9", "--episodes: expected at most 4, which here has, got 9"),
        (
            "npz --from here --out out --frames obs",
            "expected an array 'obs', got the arrays pixels, action, reward, terminated",
        ),
    ],
)
def test_a_mistake_is_one_line_of_the_command(
    words: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_plain(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wm-import", *words.split(), *(["--quiet"] if "--out" in words else [])])
    with pytest.raises(SystemExit) as left:
        command.main()
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.startswith("wm-import: ")
    assert said.count("\n") == 1
    assert line in said
    assert not (tmp_path / "out").exists()
