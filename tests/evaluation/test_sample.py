"""Which frames are looked at, and that what stands beside them is of the same row."""

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.conftest import write_rollouts, write_vae
from tests.selection.made import selected
from worldmodel_v.autoencoders.artifact import Training, read_training
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.envs.stamp import read_stamps
from worldmodel_v.errors import ConfigError, DatasetNotUsable, ModelNotUsable
from worldmodel_v.evaluation.conditions import as_arguments, condition_rows
from worldmodel_v.evaluation.sample import Sample, choose_holdout, read_sample
from worldmodel_v.progress import Silent
from worldmodel_v.records import Origin
from worldmodel_v.storage import open_dataset


def read(path: Path, *, holdout_every: int = 4, limit: int = 1000) -> Sample:
    model = VAE(VAEConfig(frame_height=16, frame_width=16))
    return read_sample(open_dataset(path), model, holdout_every=holdout_every, limit=limit, progress=Silent())


def test_every_row_of_the_held_out_episodes_is_there_once(small_rollouts: Path) -> None:
    sample = read(small_rollouts)
    dataset = open_dataset(small_rollouts)
    assert np.unique(sample.episode).tolist() == [3, 7]
    for episode in (3, 7):
        record = dataset.episode(episode)
        of_episode = sample.episode == episode
        assert sample.row[of_episode].tolist() == list(range(record.num_rows))
        np.testing.assert_array_equal(sample.frames[of_episode], record.pixels)
        np.testing.assert_array_equal(sample.state[of_episode], record.state)
        np.testing.assert_array_equal(sample.action[of_episode], record.action)
    assert sample.state_names == record.state_names
    assert sample.condition.shape == (len(sample), 0)


def test_a_selection_is_tested_on_the_episodes_that_were_held_out_before_it(small_rollouts: Path, tmp_path: Path) -> None:
    selected(tmp_path / "some", small_rollouts, drop="0,2")
    sample, dataset = read(tmp_path / "some"), open_dataset(tmp_path / "some")
    assert np.unique(sample.episode).tolist() == [1, 5]
    assert [dataset.episode(number).origin for number in (1, 5)] == [Origin(0, 3), Origin(0, 7)]
    of_all = Training(holdout_every=4, data_spec_hash=open_dataset(small_rollouts).spec_hash, steps=5)
    of_some = Training(
        holdout_every=4, data_spec_hash=dataset.spec_hash, steps=5, selected_from=(open_dataset(small_rollouts).spec_hash,)
    )
    for training, data in ((of_all, dataset), (of_some, dataset), (of_some, open_dataset(small_rollouts))):
        assert choose_holdout(None, training, data) == 4
        with pytest.raises(ConfigError, match="holdout_every=3: the VAE was trained on these rollouts with every 4th"):
            choose_holdout(3, training, data)


def test_fewer_frames_are_evenly_spaced_and_keep_what_stands_beside_them(small_rollouts: Path) -> None:
    everything, some = read(small_rollouts), read(small_rollouts, limit=11)
    picked = np.linspace(0, len(everything) - 1, 11).astype(int)
    np.testing.assert_array_equal(some.frames, everything.frames[picked])
    for frame, state, row in zip(some.frames, some.state, some.row, strict=True):
        assert read_stamps(frame) == tuple(state)
        assert state[0] == row


def test_a_split_that_leaves_too_few_frames_is_refused(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data", num_steps=3)
    with pytest.raises(DatasetNotUsable, match=r"its held-out episodes \(every 2nd\) have 8 frames, 10 are needed"):
        read(data, holdout_every=2)
    with pytest.raises(DatasetNotUsable, match="has 4 episodes; holding out every 9th needs at least 9"):
        read(data, holdout_every=9)


def test_the_split_is_the_trainings(tmp_path: Path) -> None:
    dataset = open_dataset(write_rollouts(tmp_path / "data"))
    training = read_training(write_vae(tmp_path / "vae", dataset.path, holdout_every=3))
    assert training == Training(holdout_every=3, data_spec_hash=dataset.spec_hash, steps=5)
    assert choose_holdout(None, training, dataset) == 3
    assert choose_holdout(3, training, dataset) == 3
    with pytest.raises(ConfigError, match="holdout_every=4: the VAE was trained on these rollouts with every 3rd"):
        choose_holdout(4, training, dataset)
    elsewhere = Training(holdout_every=3, data_spec_hash="f" * 64, steps=5)
    assert choose_holdout(4, elsewhere, dataset) == 4


@pytest.mark.parametrize("content", [None, "", "[]", '{"training": {}}'])
def test_a_directory_that_does_not_tell_its_split_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelNotUsable, match=r"config\.json: does not tell which episodes the training held out"):
        read_training(tmp_path)


class Conditional:
    """A stand-in for a VAE that is told something."""

    def __init__(self, *names: str, condition_dim: int = 0) -> None:
        self.config = type("Config", (), {"condition": names, "condition_dim": condition_dim or len(names)})


def test_a_condition_is_the_named_columns(small_rollouts: Path) -> None:
    dataset = open_dataset(small_rollouts)
    record = dataset.episode(0)
    assert record.state is not None
    with dataset.open_shard(dataset.entries[0]) as shard:
        found = condition_rows(shard, Conditional("step", "action", condition_dim=3), 0, record.num_rows)  # type: ignore[arg-type]
        with pytest.raises(ModelNotUsable, match=r"records no 'spead' .* it has action, step, action_stamp"):
            condition_rows(shard, Conditional("spead"), 0, 2)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found[:, 0], record.state[:, 0])
    np.testing.assert_array_equal(found[:-1, 1:], record.action[:-1])
    assert found[-1, 1:].tolist() == [0.0, 0.0]
    assert found.dtype == np.float32


def test_a_discrete_action_is_one_hot_and_a_missing_one_is_nothing(tmp_path: Path) -> None:
    dataset = open_dataset(write_rollouts(tmp_path / "data", action_size=0, num_steps=4))
    action = dataset.episode(0).action
    with dataset.open_shard(dataset.entries[0]) as shard:
        found = condition_rows(shard, Conditional("action", condition_dim=5), 0, 5)  # type: ignore[arg-type]
    assert found[:-1].argmax(axis=1).tolist() == action[:-1].tolist()
    assert found.sum(axis=1).tolist() == [1, 1, 1, 1, 0]


def test_a_vae_of_one_channel_is_shown_no_colours(small_rollouts: Path) -> None:
    dataset = open_dataset(small_rollouts)
    settings = {"holdout_every": 4, "limit": 10, "progress": Silent()}
    of_colour, of_grey = (
        read_sample(dataset, VAE(VAEConfig(frame_height=16, frame_width=16, channels=n)), **settings) for n in (3, 1)
    )
    assert of_colour.seen is of_colour.frames
    np.testing.assert_array_equal(of_grey.frames, of_colour.frames)
    colour, grey = of_colour.seen, of_grey.seen
    brightness = (colour @ np.array([0.299, 0.587, 0.114])).round()
    assert np.abs(grey - brightness[..., None]).max() <= 1
    assert (grey == grey[..., :1]).all()


def test_a_vae_without_condition_is_called_without_one() -> None:
    import torch

    assert as_arguments(np.zeros((3, 0), np.float32), torch.device("cpu")) == ()
    (condition,) = as_arguments(np.ones((3, 2), np.float32), torch.device("cpu"))
    assert condition.shape == (3, 2)
