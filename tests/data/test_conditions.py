"""Conditions stand in the rows of their frames, whatever picks the rows, and what is not recorded is named."""

import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.builders import make_episode, rollout_spec
from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.data import FrameStream, condition_reader, condition_rows, measure_condition, read_conditions, read_frames
from worldmodel_v.envs.stamp import read_stamps
from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.records import Episode
from worldmodel_v.storage import Dataset, Shard, build_shard, open_dataset

NAMES = ("episode_stamp", "step")
"""Of the toy world's state, in another order than there; its frames show the same numbers."""


def shard_of(episode: Episode) -> Shard:
    return Shard.from_bytes(build_shard([episode], spec_hash=rollout_spec().hash), episode.schema)


def every_episode(_: int) -> bool:
    return True


def even_episode(episode_id: int) -> bool:
    return episode_id % 2 == 0


@pytest.fixture(scope="module")
def dataset(stamp_rollouts: Path) -> Dataset:
    return open_dataset(stamp_rollouts)


def stamped(frames: np.ndarray) -> list[list[float]]:
    """(episode, step) as the frames show them."""
    return [[float(episode), float(step)] for step, _action, episode, _return in map(read_stamps, frames)]


class TestRows:
    def test_state_comes_by_name_and_in_the_order_asked(self) -> None:
        episode = make_episode(num_steps=5, num_factors=3)
        with shard_of(episode) as shard:
            found = condition_rows(shard, ("factor_2", "factor_0"), 1, 4)
        np.testing.assert_array_equal(found, episode.state[1:4][:, [2, 0]], strict=True)

    def test_an_action_stands_beside_the_state_and_the_last_rows_is_zero(self) -> None:
        episode = make_episode(num_steps=4, num_factors=2, action_size=3)
        with shard_of(episode) as shard:
            found = condition_rows(shard, ("factor_1", "action"), 0, 5)
        assert found.shape == (5, 4)
        np.testing.assert_array_equal(found[:, 0], episode.state[:, 1])
        np.testing.assert_array_equal(found[:4, 1:], episode.action[:4])
        assert found[4, 1:].tolist() == [0.0, 0.0, 0.0]

    def test_a_discrete_action_is_one_hot_and_the_last_rows_is_zero(self) -> None:
        episode = make_episode(num_steps=6, action_size=0)
        with shard_of(episode) as shard:
            found = condition_rows(shard, ("action",), 0, 7)
        assert found.argmax(axis=1)[:6].tolist() == episode.action[:6].tolist()
        assert found.sum(axis=1).tolist() == [1.0] * 6 + [0.0]

    def test_a_space_of_other_actions_than_the_vae_knows_is_named(self) -> None:
        episode = make_episode(num_steps=30, action_size=0)
        text = "its condition on action has 5 values, the VAE was trained with 4; give data of the same actions"
        read = condition_reader(("action",), 4)
        assert read is not None
        with shard_of(episode) as shard, pytest.raises(ModelNotUsable, match=re.escape(text)):
            read(shard, 0, 31)

    def test_a_name_that_is_not_recorded_is_refused_with_those_that_are(self) -> None:
        text = "shard in memory: records no 'speed' for a VAE to be conditional on; it has action, factor_0, factor_1"
        with shard_of(make_episode(num_factors=2)) as shard, pytest.raises(ModelNotUsable, match=f"^{re.escape(text)}$"):
            condition_rows(shard, ("factor_0", "speed"), 0, 1)
        text = "shard in memory: records no 'factor_0' for a VAE to be conditional on; it has action"
        with shard_of(make_episode()) as shard, pytest.raises(ModelNotUsable, match=f"^{re.escape(text)}$"):
            condition_rows(shard, ("factor_0",), 0, 1)


class TestBesideFrames:
    @pytest.mark.parametrize("num_chunks", [1, 128])
    def test_every_frame_of_the_stream_keeps_its_condition(self, dataset: Dataset, num_chunks: int) -> None:
        settings = {"batch_size": 24, "seed": 0, "num_chunks": num_chunks}
        stream = FrameStream(dataset, even_episode, **settings, condition=condition_reader(NAMES, 2))
        for frames, condition in islice(stream, 6):
            assert condition.dtype == np.float32
            assert condition.tolist() == stamped(frames)

    def test_a_condition_does_not_change_the_order_of_the_frames(self, dataset: Dataset) -> None:
        settings = {"batch_size": 24, "seed": 0}
        plain = next(iter(FrameStream(dataset, every_episode, **settings)))
        beside = next(iter(FrameStream(dataset, every_episode, **settings, condition=condition_reader(NAMES, 2))))
        assert plain.condition is None
        np.testing.assert_array_equal(plain.frames, beside.frames)

    @pytest.mark.parametrize("limit", [1, 7, 10_000])
    def test_conditions_are_read_for_the_very_frames_that_are_read(self, dataset: Dataset, limit: int) -> None:
        condition = read_conditions(dataset, even_episode, limit, condition_reader(NAMES, 2))
        assert condition.tolist() == stamped(read_frames(dataset, even_episode, limit))

    def test_without_names_there_is_no_reader(self) -> None:
        assert condition_reader((), 0) is None


class TestMeasure:
    def test_mean_and_deviation_are_those_of_the_chosen_episodes(self, dataset: Dataset) -> None:
        found = measure_condition(dataset, NAMES, even_episode)
        rows = np.concatenate([dataset.episode(i).state[:, [2, 0]] for i in range(0, 8, 2)]).astype(np.float64)
        np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(found.std, rows.std(axis=0), rtol=1e-5)

    def test_a_continuous_action_has_as_many_values_as_its_size(self, dataset: Dataset) -> None:
        assert dataset.episode(0).action.shape[1:] == (2,)
        assert measure_condition(dataset, ("action", "step"), every_episode).mean.shape == (3,)

    def test_a_discrete_action_has_as_many_as_there_are_actions(self, tmp_path: Path) -> None:
        collect(stamp_config(tmp_path / "out", episodes=2, env_kwargs='{"discrete": true}'))
        dataset = open_dataset(tmp_path / "out")
        most = max(dataset.episode(i).action.max() for i in range(2))
        assert measure_condition(dataset, ("action", "step"), lambda episode: episode == 0).mean.shape == (most + 2,)
