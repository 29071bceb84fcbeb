"""ctallec's rollouts, read as its data/loaders.py reads them for trainmdrnn.py."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.envs.stamp import action_stamp, read_stamps
from worldmodel_v.export import ExportReport, export
from worldmodel_v.export.ctallec import CtallecConfig
from worldmodel_v.storage import open_dataset

WINDOW = 8
Window = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def rollouts_96(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy rollouts of 96x96, as its code takes them."""
    out = tmp_path_factory.mktemp("ctallec") / "rollouts"
    collect(stamp_config(out, episodes=4, frame_size=96, env_kwargs='{"size": 96}'))
    return out


def run(data: Path, out: Path) -> ExportReport:
    return export(CtallecConfig(data=data, out=out))


def read_as_its_loader(root: Path) -> list[Window]:
    """Its windows (frames, actions, rewards, terminals, next frames): every file of every sub-folder is an episode."""
    folders = [root / name for name in os.listdir(root) if (root / name).is_dir()]  # noqa: PTH208  (as it does)
    windows: list[Window] = []
    for file in sorted(folder / name for folder in folders for name in os.listdir(folder)):  # noqa: PTH208
        with np.load(file) as data:
            episode = {name: data[name] for name in ("observations", "actions", "rewards", "terminals")}
        for start in range(episode["rewards"].shape[0] - WINDOW):
            frames = episode["observations"][start : start + WINDOW + 1]
            outcomes = [episode[name][start + 1 : start + WINDOW + 1] for name in ("actions", "rewards", "terminals")]
            windows.append((frames[:-1], *outcomes, frames[1:]))
    return windows


def test_its_loader_pairs_each_frame_with_the_action_to_the_next(rollouts_96: Path, tmp_path: Path) -> None:
    report = run(rollouts_96, tmp_path / "carracing")
    windows = read_as_its_loader(tmp_path / "carracing")
    num_steps = [open_dataset(rollouts_96).episode(i).num_steps for i in range(4)]
    assert len(windows) == sum(steps + 1 - WINDOW for steps in num_steps)
    ends = 0
    for frames, actions, rewards, terminals, next_frames in windows:
        assert frames.shape == (WINDOW, 96, 96, 3)
        for frame, action, reward, terminal, next_frame in zip(frames, actions, rewards, terminals, next_frames, strict=True):
            step, stamp = read_stamps(frame)[0], read_stamps(next_frame)[1]
            assert read_stamps(next_frame)[0] == step + 1
            assert action_stamp(action) == stamp
            assert reward == stamp + step
            ends += int(terminal)
            assert not terminal or step + 1 in num_steps
    assert ends == 4  # the last transition of each episode is there, in one window
    assert report.rows == sum(num_steps) + 4
    assert [note for note in report.notes if "truncated" in note or "frames" in note] == []


def test_its_loader_takes_no_file_for_an_episode_that_is_none(rollouts_96: Path, tmp_path: Path) -> None:
    run(rollouts_96, tmp_path / "carracing")
    files = [
        file.relative_to(tmp_path / "carracing").as_posix() for file in (tmp_path / "carracing").rglob("*") if file.is_file()
    ]
    assert sorted(files) == [*(f"episodes_0000/rollout_{i:06d}.npz" for i in range(4)), "source.json"]


def test_constants_of_its_code_that_the_data_does_not_meet_are_said(equal_rollouts: Path, tmp_path: Path) -> None:
    report = run(equal_rollouts, tmp_path / "carracing")
    assert "trainmdrnn.py: takes 96x96 frames, these are 64x64; set SIZE in utils/misc.py" in report.notes
    assert "trainmdrnn.py: 8 episodes have fewer than the 33 rows of its window; lower SEQ_LEN there" in report.notes
    (note,) = [note for note in report.notes if note.startswith("data/loaders.py")]
    assert note.startswith("data/loaders.py: keeps the last 600 files for testing, which leaves none to train on")
    (note,) = [note for note in report.notes if note.startswith("truncated")]
    assert note.startswith("truncated: not held; terminals is terminated alone")


def test_discrete_actions_are_one_hot(discrete_rollouts: Path, tmp_path: Path) -> None:
    run(discrete_rollouts, tmp_path / "carracing")
    for _, actions, _, _, next_frames in read_as_its_loader(tmp_path / "carracing"):
        assert actions.shape == (WINDOW, 5)
        assert (actions.argmax(axis=1) + 1).tolist() == [read_stamps(frame)[1] for frame in next_frames]
