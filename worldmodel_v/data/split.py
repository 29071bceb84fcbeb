"""Which episodes are held out: every k-th, by number.

Episodes are independent draws, so any fixed choice of numbers is as random as another. This choice needs no file, is the
same in training, evaluation and the MDN-RNN, and does not change when a dataset is extended. The split is by episode
because neighbouring frames are nearly equal: a split by frame would test on the training set.
"""

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.storage import Location
from worldmodel_v.surface import option


def is_held_out(episode_id: int, holdout_every: int) -> bool:
    """Whether an episode is held out: numbers k - 1, 2k - 1, 3k - 1, … for `holdout_every` = k."""
    return episode_id % holdout_every == holdout_every - 1


def require_split(path: Location, num_episodes: int, holdout_every: int) -> None:
    """Raise DatasetNotUsable if one side of the split would have no episode."""
    if num_episodes < holdout_every or num_episodes < 2:
        raise DatasetNotUsable(
            f"has {num_episodes} episodes; holding out every {holdout_every}th needs at least {max(2, holdout_every)}",
            where=path,
            remedy=f"collect more, or lower {option('holdout_every')} (2 or more)",
        )
