"""The same settings give the same bytes: for 0, 1 and 2 workers, and on real CarRacing."""

from pathlib import Path

import numpy as np
import pytest

from tests.builders import digests
from tests.conftest import stamp_config
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.envs import make_image_env
from worldmodel_v.storage import open_dataset, verify


@pytest.mark.usefixtures("local_ray")
def test_toy_shards_are_byte_identical_for_0_1_and_2_workers(tmp_path: Path) -> None:
    found = {}
    for workers in (0, 1, 2):
        collect(stamp_config(tmp_path / str(workers), workers=workers))
        assert verify(open_dataset(tmp_path / str(workers))) == []
        found[workers] = digests(tmp_path / str(workers))
    assert len(found[0]) == 4
    assert found[0] == found[1] == found[2]


@pytest.mark.usefixtures("local_ray")
def test_car_racing_shards_are_byte_identical_for_0_and_2_workers_and_other_shard_borders_keep_the_episodes(
    tmp_path: Path,
) -> None:
    def car_racing(name: str, **changes: int) -> Path:
        settings = {"episodes": 3, "episodes_per_shard": 2, "max_steps": 30, "workers": 0, **changes}
        collect(CollectConfig(out=tmp_path / name, env="CarRacing-v3", policy="brownian", **settings))
        return tmp_path / name

    alone, together, regrouped = car_racing("0"), car_racing("2", workers=2), car_racing("regrouped", episodes_per_shard=3)
    assert digests(alone) == digests(together)
    for episode_id in range(3):
        first, second = (open_dataset(path).episode(episode_id) for path in (alone, regrouped))
        for name, column in first.columns.items():
            np.testing.assert_array_equal(column, getattr(second, name))


def test_a_larger_number_of_episodes_extends_the_dataset_with_the_same_episodes(tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "grown", episodes=4))
    before = digests(tmp_path / "grown")
    report = collect(stamp_config(tmp_path / "grown", episodes=9))
    assert report.new_episodes == 5
    assert before.items() <= digests(tmp_path / "grown").items()
    collect(stamp_config(tmp_path / "whole", episodes=9))
    grown, whole = open_dataset(tmp_path / "grown"), open_dataset(tmp_path / "whole")
    assert verify(grown) == verify(grown.path) == []
    for episode_id in range(9):
        np.testing.assert_array_equal(grown.episode(episode_id).pixels, whole.episode(episode_id).pixels)
    assert collect(stamp_config(tmp_path / "grown", episodes=9)).new_episodes == 0


def test_a_recorded_car_racing_episode_replays_from_its_seed_and_actions(tmp_path: Path) -> None:
    collect(CollectConfig(out=tmp_path / "out", episodes=1, max_steps=40, workers=0, crop="full", frame_size=96))
    episode = open_dataset(tmp_path / "out").episode(0)
    env = make_image_env("CarRacing-v3", {})
    frames, rewards = [env.reset(episode.seed)], []
    for action in episode.action[:-1]:
        frame, reward, _, _ = env.step(action)
        frames.append(frame)
        rewards.append(reward)
    env.close()
    np.testing.assert_array_equal(np.stack(frames), episode.pixels)
    np.testing.assert_array_equal(np.float32(rewards), episode.reward[:-1])
