"""stable-worldmodel's dataset.h5, read as its HDF5Dataset reads it."""

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (as its reader)
import numpy as np
import pytest
import torch

from tests.export.conftest import ACTION, STEP, acted
from worldmodel_v.envs.stamp import action_stamp, read_stamps
from worldmodel_v.export import ExportReport, export
from worldmodel_v.export.stable_worldmodel import StableWorldmodelConfig
from worldmodel_v.storage import open_dataset

NUM_STEPS = 4


def run(data: Path, out: Path) -> ExportReport:
    return export(StableWorldmodelConfig(data=data, out=out))


def read_as_its_dataset(folder: Path) -> list[dict[str, torch.Tensor]]:
    """Every clip of NUM_STEPS rows inside one episode, with frames as (C, H, W)."""
    (path,) = folder.glob("*.h5")
    clips = []
    with h5py.File(path, "r", swmr=True, rdcc_nbytes=256 * 1024 * 1024) as file:
        lengths, offsets = file["ep_len"][:], file["ep_offset"][:]
        names = [name for name in file if name not in ("ep_len", "ep_offset")]
        for length, offset in zip(lengths, offsets, strict=True):
            for start in range(length - NUM_STEPS + 1):
                rows = slice(offset + start, offset + start + NUM_STEPS)
                clip = {name: torch.from_numpy(file[name][rows]) for name in names}
                frames = {name: column for name, column in clip.items() if column.ndim == 4 and column.shape[-1] in (1, 3)}
                clips.append(clip | {name: column.permute(0, 3, 1, 2) for name, column in frames.items()})
                clips[-1]["action"] = clips[-1]["action"].reshape(NUM_STEPS, -1)
    return clips


def test_its_clips_of_frames_have_each_action_and_reward_between_two_frames(stamp_rollouts: Path, tmp_path: Path) -> None:
    report = run(stamp_rollouts, tmp_path / "out")
    assert report.notes == []
    clips = read_as_its_dataset(tmp_path / "out")
    source = open_dataset(stamp_rollouts)
    assert len(clips) == source.num_rows - 8 * (NUM_STEPS - 1)
    for clip in clips:
        assert clip["pixels"].shape == (NUM_STEPS, 3, 64, 64)
        frames = clip["pixels"].permute(0, 2, 3, 1).numpy()
        first = read_stamps(frames[0])[0]
        for t in range(NUM_STEPS - 1):
            step, next_stamps = read_stamps(frames[t])[0], read_stamps(frames[t + 1])
            assert (step, next_stamps[0]) == (first + t, first + t + 1)
            assert action_stamp(clip["action"][t].numpy()) == next_stamps[1]
            assert clip["reward"][t] == next_stamps[1] + step
    last_rows = [clip for clip in clips if bool(torch.isnan(clip["action"][-1]).all())]
    assert len(last_rows) == 8
    assert all(bool(clip["terminated"][-2]) and bool(torch.isnan(clip["reward"][-1])) for clip in last_rows)


def test_its_clips_of_latents_too(unequal_latents: Path, tmp_path: Path) -> None:
    run(unequal_latents, tmp_path / "out")
    clips = read_as_its_dataset(tmp_path / "out")
    assert set(clips[0]) == {"mu", "logvar", "action", "reward", "terminated", "truncated", "state", "ep_idx", "step_idx"}
    for clip in clips:
        mu, action = clip["mu"].numpy(), clip["action"].numpy()
        assert (np.diff(mu[:, STEP]) == 1).all()
        assert acted(action[:-1], mu[1:, ACTION]).all()
        np.testing.assert_array_equal(clip["reward"][:-1], mu[1:, ACTION] + mu[:-1, STEP])


@pytest.mark.parametrize("kind", ["rollouts", "latents"])
def test_every_row_of_every_column_is_there(kind: str, stamp_rollouts: Path, unequal_latents: Path, tmp_path: Path) -> None:
    data = {"rollouts": stamp_rollouts, "latents": unequal_latents}[kind]
    run(data, tmp_path / "out")
    episodes = [open_dataset(data).episode(i) for i in range(8)]
    with h5py.File(tmp_path / "out" / "dataset.h5") as file:
        assert file["ep_len"].dtype == np.int32
        assert file["ep_offset"].dtype == np.int64
        for name in episodes[0].columns:
            expected = np.concatenate([episode.columns[name] for episode in episodes])
            np.testing.assert_array_equal(file[name][:], expected, strict=True)
        assert [name.decode() for name in file["state"].attrs["names"]] == list(episodes[0].state_names)


def test_discrete_actions_are_vectors_that_it_can_normalise(discrete_rollouts: Path, tmp_path: Path) -> None:
    report = run(discrete_rollouts, tmp_path / "out")
    assert report.notes == ["action: discrete, written one-hot over the 5 values of its space"]
    with h5py.File(tmp_path / "out" / "dataset.h5") as file:
        column = torch.from_numpy(file["action"][:])
    known = column[~torch.isnan(column).any(dim=1)]
    assert len(column) - len(known) == 8
    expected = np.concatenate([open_dataset(discrete_rollouts).episode(i).action[:-1] for i in range(8)])
    np.testing.assert_array_equal(known.argmax(dim=1), expected)
    assert (known.sum(dim=1) == 1).all()
