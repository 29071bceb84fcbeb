"""dreamer4's shards, read as WMDataset of its wm_dataset.py reads them (commit bdeddfe)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders import make_episode, rollout_spec
from worldmodel_v.envs.stamp import action_stamp, read_stamps
from worldmodel_v.errors import ConfigError
from worldmodel_v.export import ExportReport, dreamer4, export
from worldmodel_v.export.dreamer4 import Dreamer4Config, _task_of
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset

TASK, LENGTH, SHARD = "Stamp-v0", 5, 2048


def run(data: Path, out: Path, **options: str) -> ExportReport:
    return export(Dreamer4Config(data=data, out=out, **options))


class ItsDataset:
    """Windows of LENGTH transitions of the task: the frames from a start on, and the rows after it."""

    def __init__(self, folder: Path, *, size: int = 64, shard_frames: int = SHARD) -> None:
        (demo,) = sorted((folder / "data").glob("*.pt"))
        self.task, self.size, self.shard_frames = demo.stem, size, shard_frames
        rows = torch.load(demo, map_location="cpu", weights_only=True)
        self.episode, self.action, self.reward = rows["episode"].to(torch.int64), rows["action"], rows["reward"]
        self.shards = sorted((folder / "frames" / self.task).glob("*shard*.pt"))
        last = torch.load(self.shards[-1], weights_only=True)["frames"]
        assert (len(self.shards) - 1) * shard_frames + len(last) == len(self.reward) == len(self.action) == len(self.episode)
        count = len(self.reward) - LENGTH
        known = ~(torch.isnan(self.action).any(dim=-1) | torch.isnan(self.reward))
        self.starts = [
            start
            for start in range(count)
            if self.episode[start] == self.episode[start + LENGTH] and bool(known[start + 1 : start + LENGTH + 1].all())
        ]
        self.action_size = json.loads((folder / "tasks.json").read_text())[self.task]["action_dim"]

    def frames(self, start: int, length: int) -> torch.Tensor:
        parts = []
        while length:
            place, offset = divmod(start, self.shard_frames)
            frames = torch.load(self.shards[place], weights_only=True)["frames"]
            assert frames.dtype == torch.uint8
            assert frames.shape[1:] == (3, self.size, self.size)
            parts.append(frames[offset : offset + length])
            start, length = start + len(parts[-1]), length - len(parts[-1])
        return torch.cat(parts)

    def window(self, place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frames (LENGTH + 1, H, W, 3), actions (LENGTH, 16) and rewards (LENGTH,)."""
        start = self.starts[place]
        rows = slice(start + 1, start + 1 + LENGTH)
        action = torch.zeros(LENGTH, 16)
        action[:, : self.action_size] = self.action[rows, : self.action_size]
        return self.frames(start, LENGTH + 1).permute(0, 2, 3, 1).numpy(), action.numpy(), self.reward[rows].numpy()


def assert_windows_align(loaded: ItsDataset) -> None:
    for place in range(len(loaded.starts)):
        frames, actions, rewards = loaded.window(place)
        for t in range(LENGTH):
            step, after = read_stamps(frames[t])[0], read_stamps(frames[t + 1])
            assert after[0] == step + 1
            assert action_stamp(actions[t]) == after[1]
            assert rewards[t] == after[1] + step


@pytest.mark.parametrize("shard_frames", [SHARD, 50])
def test_its_windows_have_the_action_and_reward_that_led_to_each_frame(
    shard_frames: int, stamp_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dreamer4, "SHARD_FRAMES", shard_frames)
    report = run(stamp_rollouts, tmp_path / "out")
    loaded, source = ItsDataset(tmp_path / "out", shard_frames=shard_frames), open_dataset(stamp_rollouts)
    assert loaded.task == TASK
    assert len(loaded.shards) == -(-source.num_rows // shard_frames)
    assert len(loaded.starts) == source.num_rows - 8 * LENGTH  # every window inside of an episode, the last transition too
    assert_windows_align(loaded)
    assert (loaded.action_size, report.rows) == (2, source.num_rows)
    assert not loaded.action[:, 2:].nan_to_num().any()
    first_rows = torch.from_numpy(np.cumsum([0, *(source.episode(i).num_rows for i in range(7))]))
    assert torch.isnan(loaded.reward).nonzero().flatten().tolist() == first_rows.tolist()
    last = loaded.shards[-1].stat().st_size
    assert last < 5_000 + 3 * 64 * 64 * (source.num_rows - (len(loaded.shards) - 1) * shard_frames)
    frames = loaded.frames(0, source.num_rows).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(frames, np.concatenate([source.episode(i).pixels for i in range(8)]), strict=True)


def test_constants_of_its_code_that_the_data_does_not_meet_are_said(stamp_rollouts: Path, tmp_path: Path) -> None:
    report = run(stamp_rollouts, tmp_path / "out", task="show-stamp")
    assert report.notes == [
        "terminated, truncated: not held",
        "state: not held (4 factors)",
        "task_set.py: set TASK_SET to ['show-stamp']; a task in it without data is an error there",
        "train_dynamics.py: takes 128x128 frames, these are 64x64; set img_size there to 64, and H and W of "
        "train_tokenizer.py to 64 and 64",
    ]
    assert ItsDataset(tmp_path / "out").task == "show-stamp"
    assert (tmp_path / "out" / "frames" / "show-stamp" / "show-stamp_shard0000.pt").exists()


def test_discrete_actions_are_one_hot(discrete_rollouts: Path, tmp_path: Path) -> None:
    run(discrete_rollouts, tmp_path / "out")
    loaded = ItsDataset(tmp_path / "out")
    assert loaded.action_size == 5
    for place in range(len(loaded.starts)):
        frames, actions, _ = loaded.window(place)
        assert (actions.argmax(axis=1) + 1).tolist() == [read_stamps(frame)[1] for frame in frames[1:]]


def test_more_actions_than_it_has_are_refused(tmp_path: Path) -> None:
    episode = make_episode(0, 5, size=8, action_size=17)
    spec = rollout_spec(episode.schema)
    with DatasetWriter(tmp_path / "data", spec) as writer:
        writer.commit(0, build_shard([episode], spec_hash=spec.hash))
    with pytest.raises(ConfigError, match="dreamer4 has actions of at most 16 values, these have 17"):
        run(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", ["", "../up", "a/b", ".hidden", "two words"])
def test_a_task_is_a_name_for_files(task: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="task: expected a name for files, of letters, digits, dots and dashes"):
        Dreamer4Config(data=tmp_path / "data", out=tmp_path / "out", task=task)


def test_the_default_task_is_the_environments_id() -> None:
    assert _task_of("worldmodel_v/CarRacing-v3") == "CarRacing-v3"
    assert _task_of("my_world:Own-v0") == "Own-v0"
    assert _task_of("a world of mine") == "a-world-of-mine"
    assert _task_of("../..") == "task"
