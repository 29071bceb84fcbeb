"""Which episodes are held out."""

from pathlib import Path

import pytest

from worldmodel_v.data import is_held_out, require_split
from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.words import counted, ordinal


@pytest.mark.parametrize(("every", "expected"), [(2, [1, 3, 5, 7, 9]), (4, [3, 7]), (10, [9]), (11, [])])
def test_every_kth_episode_is_held_out_from_number_k_minus_1(every: int, expected: list[int]) -> None:
    assert [episode for episode in range(10) if is_held_out(episode, every)] == expected


@pytest.mark.parametrize(("num_episodes", "every"), [(2, 2), (4, 4), (5, 4), (24, 8)])
def test_a_dataset_with_episodes_on_both_sides_is_accepted(num_episodes: int, every: int) -> None:
    require_split(Path("data"), num_episodes, every)
    assert {is_held_out(episode, every) for episode in range(num_episodes)} == {False, True}


@pytest.mark.parametrize(("num_episodes", "every", "needed"), [(3, 4, 4), (0, 10, 10), (1, 2, 2), (1, 1, 2)])
def test_a_dataset_that_would_leave_one_side_empty_is_refused(num_episodes: int, every: int, needed: int) -> None:
    with pytest.raises(DatasetNotUsable) as caught:
        require_split(Path("data"), num_episodes, every)
    assert str(caught.value) == (
        f"data: has {counted(num_episodes, 'episode')}; holding out every {ordinal(every)} needs at least {needed}; "
        "collect more, or lower holdout_every (2 or more)"
    )
