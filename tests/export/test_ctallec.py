"""ctallec's rollouts, read as its data/loaders.py reads them for trainmdrnn.py (commit d6abd9c)."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.builders import make_episode, rollout_spec
from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.envs.stamp import action_stamp, read_stamps
from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.export import ExportReport, export
from worldmodel_v.export.ctallec import CtallecConfig, _fills_batches
from worldmodel_v.selection import SelectConfig, select
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset

WINDOW = 8
Window = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes of the toy world, of 20 to 23 actions."""
    out = tmp_path_factory.mktemp("ctallec") / "rollouts"
    collect(stamp_config(out, episodes=4))
    return out


@pytest.fixture(scope="module")
def long_rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight episodes of 60 to 63 actions."""
    out = tmp_path_factory.mktemp("ctallec") / "long"
    collect(stamp_config(out, env_kwargs={"length": 60}))
    return out


def run(data: Path, out: Path, **options: bool) -> ExportReport:
    return export(CtallecConfig(data=data, out=out, **options))


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


def test_its_loader_pairs_each_frame_with_the_action_to_the_next(rollouts: Path, tmp_path: Path) -> None:
    report = run(rollouts, tmp_path / "carracing")
    windows = read_as_its_loader(tmp_path / "carracing")
    num_steps = [open_dataset(rollouts).episode(i).num_steps for i in range(4)]
    assert len(windows) == sum(steps + 1 - WINDOW for steps in num_steps)
    ends = 0
    for frames, actions, rewards, terminals, next_frames in windows:
        assert frames.shape == (WINDOW, 64, 64, 3)
        for frame, action, reward, terminal, next_frame in zip(frames, actions, rewards, terminals, next_frames, strict=True):
            step, stamp = read_stamps(frame)[0], read_stamps(next_frame)[1]
            assert read_stamps(next_frame)[0] == step + 1
            assert action_stamp(action) == stamp
            assert reward == stamp + step
            ends += int(terminal)
            assert not terminal or step + 1 in num_steps
    assert ends == 4  # the last transition of each episode is there, in one window
    assert report.rows == sum(num_steps) + 4
    assert [note for note in report.notes if "truncated" in note or "frames" in note] == []  # its SIZE is 64


def test_its_loader_takes_no_file_for_an_episode_that_is_none(rollouts: Path, tmp_path: Path) -> None:
    run(rollouts, tmp_path / "carracing")
    files = [
        file.relative_to(tmp_path / "carracing").as_posix() for file in (tmp_path / "carracing").rglob("*") if file.is_file()
    ]
    assert sorted(files) == [*(f"episodes_0000/rollout_{i:06d}.npz" for i in range(4)), "source.json"]


def test_constants_of_its_code_that_the_data_does_not_meet_are_said(equal_rollouts: Path, tmp_path: Path) -> None:
    report = run(equal_rollouts, tmp_path / "carracing")
    assert "utils/misc.py: set ASIZE to 2; it is 3 there" in report.notes
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


@pytest.mark.parametrize(
    ("height", "width", "remedy"),
    [(96, 96, "set SIZE in utils/misc.py to 96"), (64, 96, "it takes no others than square ones")],
)
def test_frames_of_another_size_than_its_are_said(height: int, width: int, remedy: str, tmp_path: Path) -> None:
    """`SIZE` in utils/misc.py is 64."""
    episode = make_episode(0, 5, size=(height, width))
    spec = rollout_spec(episode.schema, frame_height=height, frame_width=width)
    with DatasetWriter(tmp_path / "data", spec) as writer:
        writer.commit(0, build_shard([episode], spec_hash=spec.hash))
    report = run(tmp_path / "data", tmp_path / "carracing")
    assert f"trainmdrnn.py: takes 64x64 frames, these are {height}x{width}; {remedy}" in report.notes


BATCH, SEQUENCE = 16, 32
"""Its BSIZE and SEQ_LEN."""


def train_as_its_trainer(lengths: list[int], buffer_size: int) -> None:
    """Its passes over files of so many rows, as many as it has epochs: each loads the next buffer of files, and views every
    batch, the last one too, as BATCH windows. Raises ValueError where its `view` fails."""
    first = 0
    for _ in range(30):
        buffer = lengths[first : first + buffer_size]
        first = (first + buffer_size) % len(lengths)
        windows = sum(rows - SEQUENCE for rows in buffer)
        for start in range(0, windows, BATCH):
            np.zeros((min(BATCH, windows - start) * SEQUENCE, 2)).reshape(BATCH, SEQUENCE, 2)


def lengths_in(folder: Path) -> list[int]:
    return [len(np.load(file)["rewards"]) for file in sorted(folder.rglob("*.npz"))]


@pytest.mark.parametrize(
    ("lengths", "fits"),
    [
        *(([1000] * 100, True), ([1001] * 100, False), ([1000] * 101, False), ([992] * 101, True), ([1008, 48, 64] * 7, True)),
        *(([1000, 1008] * 50, False), ([996] * 100, False)),
    ],
)
def test_the_lengths_that_fill_its_batches_are_known(lengths: list[int], fits: bool) -> None:
    assert _fills_batches(np.array(lengths)) == fits
    if fits:
        train_as_its_trainer(lengths, 30)
        train_as_its_trainer(lengths, 10)
    else:
        with pytest.raises(ValueError, match="cannot reshape"):
            train_as_its_trainer(lengths, 30)


def test_whole_batches_keep_the_ends_and_its_trainer_gets_to_its_own(long_rollouts: Path, tmp_path: Path) -> None:
    report = run(long_rollouts, tmp_path / "plain")
    assert lengths_in(tmp_path / "plain") == [open_dataset(long_rollouts).episode(i).num_rows for i in range(8)]
    with pytest.raises(ValueError, match="cannot reshape"):
        train_as_its_trainer(lengths_in(tmp_path / "plain"), 30)
    (note,) = [note for note in report.notes if "fewer than 16 windows" in note]
    assert note.endswith("; export with whole_batches=True, which writes multiples of 16 rows")

    report = run(long_rollouts, tmp_path / "whole", whole_batches=True)
    kept = lengths_in(tmp_path / "whole")
    assert set(kept) == {48, 64}
    train_as_its_trainer(kept, 30)
    assert report.rows == sum(kept)
    cut = [rows - kept_rows for rows, kept_rows in zip(lengths_in(tmp_path / "plain"), kept, strict=True)]
    assert (
        f"whole batches: the first rows of {sum(rows > 0 for rows in cut)} episodes are left out, {sum(cut)} of "
        f"{sum(cut) + sum(kept)} rows"
    ) in report.notes
    assert not [note for note in report.notes if "fewer than 16 windows" in note]
    ends = 0
    for frames, actions, _, terminals, next_frames in read_as_its_loader(tmp_path / "whole"):
        assert (read_stamps(frames[-1])[0], action_stamp(actions[-1])) == (
            read_stamps(next_frames[-1])[0] - 1,
            read_stamps(next_frames[-1])[1],
        )
        ends += int(terminals.sum())
    assert ends == 8


def test_episodes_without_a_whole_batch_are_left_out_or_refused(rollouts: Path, long_rollouts: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotUsable, match=r"no episode has 48 rows \(the longest has 2\d\); leave out whole_batches=True"):
        run(rollouts, tmp_path / "carracing", whole_batches=True)
    assert not (tmp_path / "carracing").exists()
    merged = select(SelectConfig(data=(rollouts, long_rollouts), out=tmp_path / "merged"))
    assert merged.out == tmp_path / "merged"
    report = run(tmp_path / "merged", tmp_path / "carracing", whole_batches=True)
    assert report.episodes == 8
    assert "whole batches: 4 of 12 episodes have fewer than 48 rows and are left out" in report.notes
    train_as_its_trainer(lengths_in(tmp_path / "carracing"), 30)
