"""Which step and which action each row holds, read off the frames themselves."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.envs.stamp import action_stamp, read_stamps
from worldmodel_v.storage import open_dataset


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("image_observation", [False, True])
@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_every_row_holds_its_own_step_and_action(tmp_path: Path, discrete: bool, image_observation: bool, ending: str) -> None:
    kwargs = (
        f'{{"discrete": {str(discrete).lower()}, "image_observation": {str(image_observation).lower()}, "ending": "{ending}"}}'
    )
    collect(stamp_config(tmp_path / "out", env_kwargs=kwargs, episodes=2))
    for episode_id in range(2):
        episode = open_dataset(tmp_path / "out").episode(episode_id)
        steps, came_from, episode_stamps, totals = zip(*map(read_stamps, episode.pixels), strict=True)
        stamps = [action_stamp(action) for action in episode.action[:-1]]
        assert steps == tuple(range(episode.num_rows))
        assert came_from == (0, *stamps)
        assert len(set(episode_stamps)) == 1
        assert totals == tuple(np.concatenate([[0], np.cumsum(stamps)]) % 256)
        np.testing.assert_array_equal(episode.reward[:-1], np.array(stamps) + np.arange(len(stamps)))
        np.testing.assert_array_equal(episode.state, np.stack([steps, came_from, episode_stamps, totals], axis=1))
        assert np.isnan(episode.reward[-1])
        assert np.all(episode.action[-1] == -1 if discrete else np.isnan(episode.action[-1]))
        ends = {name: np.flatnonzero(getattr(episode, name)).tolist() for name in ("terminated", "truncated")}
        other = "truncated" if ending == "terminated" else "terminated"
        assert ends == {ending: [episode.num_steps - 1], other: []}


def test_an_episode_cut_at_max_steps_ends_truncated_with_its_final_observation(tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "out", max_steps=5, episodes=1))
    episode = open_dataset(tmp_path / "out").episode(0)
    assert episode.num_steps == 5
    assert episode.truncated.tolist() == [False, False, False, False, True, False]
    assert not episode.terminated.any()
    assert read_stamps(episode.pixels[-1])[0] == 5


def test_an_episode_that_terminates_on_its_last_allowed_step_is_terminated_alone(tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "free", episodes=1))
    length = open_dataset(tmp_path / "free").episode(0).num_steps
    collect(stamp_config(tmp_path / "cut", episodes=1, max_steps=length))
    episode = open_dataset(tmp_path / "cut").episode(0)
    assert episode.terminated[-2]
    assert not episode.truncated.any()
