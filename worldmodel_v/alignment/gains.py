"""What the news after an offset tell of an action: see the package's head.

R² is that of a ridge regression on random features, out of fold. From its residuals, the gain is that of a second ridge
regression, of the action's residuals on those of the news, which are multiplied by what the last observation shows: an action's
effect depends on where it is taken. Folds and standard errors are over blocks of rows.

Legend: N rows, D values of an observation, A of an action, all float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worldmodel_v.alignment.regression import FOLDS, clipped, expanded, joined, out_of_fold, principal, standardized
from worldmodel_v.notebook import shown
from worldmodel_v.progress import Progress

FARTHEST = 3
"""Shifts of up to so many rows are told apart."""

OFFSETS = range(-FARTHEST - 1, FARTHEST + 1)
PAST = 3
"""How many observations and how many actions of the past are given."""

COMPONENTS = 12
"""Principal components of observations, and as many of their differences."""

PLACES = 4
"""Components of the last observation that the news are multiplied with."""

BLOCK_ROWS = 50
FEWEST_ROWS = 300


@dataclass(frozen=True)
class Rows:
    """T rows of an episode that follow each other, and the observation after them.

    observation (T + 1, D), or a tuple of several; action (T, A), choices one-hot; reward (T,).
    """

    observation: tuple[np.ndarray, ...]
    action: np.ndarray
    reward: np.ndarray


@dataclass(frozen=True)
class Gain:
    """What the news after an offset add to R² of the action, in standard errors too."""

    size: float
    errors: float
    before: float
    """R² before the news."""

    reward_size: float = 0.0
    reward_errors: float = 0.0
    """What the reward adds to what the next observation tells, of the action and its square; for offsets from 0 on."""


def measure(episodes: Sequence[Rows], progress: Progress | None = None) -> dict[int, Gain]:
    """The gain at each offset; empty if too few rows have all their neighbours."""
    actions = standardized([rows.action for rows in episodes])
    observations = _components([rows.observation for rows in episodes])
    rewards = standardized(clipped([rows.reward[:, None] for rows in episodes]))
    gains: dict[int, Gain] = {}
    task = shown(progress).task("alignment", len(OFFSETS), "offsets")
    for offset in OFFSETS:
        window = _Window([len(action) for action in actions], offset)
        if window.num_rows < FEWEST_ROWS:
            gains.clear()
            break
        gains[offset] = _gain(window, observations, actions, rewards, offset)
        task.advance()
    task.close()
    return gains


class _Window:
    """The rows t of all episodes for which all that an offset needs is there, and the blocks and folds they fall into."""

    def __init__(self, lengths: Sequence[int], offset: int) -> None:
        first, behind = max(PAST, PAST - 1 - offset), max(offset, 0)
        self._rows = [np.arange(first, max(first, length - behind)) for length in lengths]
        number = np.concatenate([np.full(len(t), i) for i, t in enumerate(self._rows)])
        self.num_rows = len(number)
        block = np.concatenate(self._rows) // BLOCK_ROWS
        self.block = np.unique(np.stack([number, block]), axis=1, return_inverse=True)[1].ravel()
        shuffled = np.random.default_rng(0).permutation(self.num_blocks)
        self.fold = (shuffled % FOLDS)[self.block]

    @property
    def num_blocks(self) -> int:
        return int(self.block.max()) + 1 if self.num_rows else 0

    def at(self, columns: list[np.ndarray], offset: int) -> np.ndarray:
        """(N, …): a column's values `offset` rows after each row."""
        return np.concatenate([column[t + offset] for column, t in zip(columns, self._rows, strict=True)])

    def in_errors(self, better: np.ndarray) -> float:
        """The sum of (N,) differences in its standard errors, by blocks."""
        sums = np.bincount(self.block, better)
        error = np.sqrt(len(sums) * sums.var(ddof=1)) if len(sums) > 1 else 0.0
        return float(sums.sum() / error) if error > 1e-9 else 0.0


def _gain(
    window: _Window, observations: list[np.ndarray], actions: list[np.ndarray], rewards: list[np.ndarray], offset: int
) -> Gain:
    now, last, before_last = (window.at(observations, offset - back) for back in range(PAST))
    earlier = [window.at(actions, -back) for back in range(1, PAST + 1)]
    seen = [now, now - last, last - before_last, window.at(rewards, offset - 1), *earlier]
    action, change, reward = window.at(actions, 0), window.at(observations, offset + 1) - now, window.at(rewards, offset)
    total, places = np.square(action - action.mean(axis=0)).sum(), _places(now)

    def without(inputs: Sequence[np.ndarray], *outputs: np.ndarray) -> list[np.ndarray]:
        """Of each output what the inputs do not forecast."""
        together = np.concatenate(outputs, axis=1)
        residual = together - out_of_fold(expanded(joined(inputs)), together, window.fold)
        return np.split(residual, np.cumsum([each.shape[1] for each in outputs])[:-1], axis=1)

    def gain(left: np.ndarray, *news: np.ndarray) -> tuple[float, float]:
        inputs = np.concatenate([_times(joined([each]), places) for each in news], axis=1)
        fallen = (np.square(left) - np.square(left - out_of_fold(inputs, left, window.fold))).sum(axis=1)
        return float(fallen.sum() / total), window.in_errors(fallen)

    left, of_change, of_reward = without(seen, action, change, reward)
    before = 1 - float(np.square(left).sum() / total)
    with_all = gain(left, of_change, with_square(of_reward))
    if offset < 0 or not reward.shape[1]:
        return Gain(*with_all, before)
    left_with_square, of_reward = without([*seen, change], with_square(action), reward)
    return Gain(*with_all, before, *gain(left_with_square, with_square(of_reward)))


def _places(now: np.ndarray) -> np.ndarray:
    """(N, 1 + PLACES): one, and the main components of an observation."""
    values = now @ principal(now, PLACES) if now.shape[1] else now
    return np.concatenate(
        [np.ones((len(now), 1)), np.clip((values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9), -3, 3)], 1
    )


def _times(news: np.ndarray, places: np.ndarray) -> np.ndarray:
    return (news[:, :, None] * places[:, None, :]).reshape(len(news), -1)


def _components(observations: Sequence[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """Of each episode (T + 1, D'): the main components of each kind of observation and of its differences."""
    kinds = []
    for of_kind in zip(*observations, strict=True):
        mean = np.concatenate(of_kind).mean(axis=0)
        changes = principal(np.concatenate([np.diff(each, axis=0) for each in of_kind]), COMPONENTS)
        both, weights = np.linalg.qr(np.concatenate([changes, principal(np.concatenate(of_kind), COMPONENTS)], axis=1))
        both = both[:, np.abs(np.diag(weights)) > 1e-3]
        kinds.append([(each - mean) @ both for each in of_kind])
    return [np.concatenate(parts, axis=1) for parts in zip(*kinds, strict=True)]


def with_square(values: np.ndarray) -> np.ndarray:
    """(N, 2A): values and their squares, as a cost of an action does not depend on its sign."""
    return np.concatenate([values, np.square(values)], axis=1)
