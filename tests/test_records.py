"""What a record accepts, what it refuses, and in which words."""

import dataclasses
import pickle
import re
from collections.abc import Callable

import numpy as np
import pytest

from tests.builders import assert_same_record, make_episode, make_latents, with_columns
from worldmodel_v.errors import EpisodeFailed
from worldmodel_v.records import Episode


def changed(record: Episode, column: str, edit: Callable[[np.ndarray], None]) -> dict[str, np.ndarray]:
    """One column of a record as an argument for `replace`, edited in place."""
    rows = getattr(record, column).copy()
    edit(rows)
    return {column: rows}


def put(rows: object, value: object) -> Callable[[np.ndarray], None]:
    return lambda column: column.__setitem__(rows, value)


def as_type(column: str, dtype: type) -> Callable[[Episode], dict]:
    return lambda episode: {column: np.nan_to_num(getattr(episode, column)).astype(dtype)}


def edited(column: str, rows: object, value: object) -> Callable[[Episode], dict]:
    return lambda episode: changed(episode, column, put(rows, value))


BROKEN_EPISODES: dict[str, tuple[Callable[[Episode], dict], str]] = {
    "pixels of another length": (lambda e: {"pixels": e.pixels[:-1]}, "pixels has 5 rows, reward has 6"),
    "actions of another length": (lambda e: {"action": e.action[1:]}, "action has 5 rows, reward has 6"),
    "float pixels": (as_type("pixels", np.float32), "pixels: expected rows of uint8 [8, 8, 3], got float32 [8, 8, 3]"),
    "pixels without channels": (
        lambda e: {"pixels": e.pixels[..., 0]},
        "pixels: expected rows of uint8 [8, 8, 3], got uint8 [8, 8]",
    ),
    "pixels of four channels": (
        lambda e: {"pixels": np.zeros((6, 8, 8, 4), np.uint8)},
        "pixels: expected rows of uint8 [8, 8, 3]",
    ),
    "float64 actions": (as_type("action", np.float64), "action: expected rows of float32 [2], got float64 [2]"),
    "discrete actions": (lambda e: {"action": np.full(6, -1, np.int64)}, "action: expected rows of float32 [2], got int64 []"),
    "float64 reward": (as_type("reward", np.float64), "reward: expected rows of float32 [], got float64 []"),
    "reward as a column": (lambda e: {"reward": e.reward[:, None]}, "reward: expected rows of float32 [], got float32 [1]"),
    "terminated as numbers": (as_type("terminated", np.uint8), "terminated: expected rows of bool [], got uint8 []"),
    "truncated as numbers": (as_type("truncated", np.int64), "truncated: expected rows of bool [], got int64 []"),
    "float64 state": (as_type("state", np.float64), "state: expected rows of float32 [2], got float64 [2]"),
    "state of other factors": (lambda e: {"state": e.state[:, :1]}, "state: expected rows of float32 [2], got float32 [1]"),
    "a column too many": (lambda e: {"more": e.reward}, "expected the columns ['pixels', 'action', 'reward', 'terminated',"),
    "NaN in state": (edited("state", (-1, 0), np.nan), "state (factor_0) is nan in row 5"),
    "infinite state": (edited("state", (0, 1), np.inf), "state (factor_1) is inf in row 0"),
    "NaN reward in the middle": (edited("reward", 2, np.nan), "reward is nan in row 2"),
    "infinite reward": (edited("reward", 0, -np.inf), "reward is -inf in row 0"),
    "a reward in the last row": (edited("reward", -1, 0.0), "the last row must hold no reward, but nan"),
    "an action in the last row": (edited("action", -1, 0.0), "the last row must hold no action, but nan"),
    "half an action in the last row": (edited("action", (-1, 0), 0.0), "the last row must hold no action, but nan"),
    "NaN action in the middle": (edited("action", (3, 1), np.nan), "action is nan in row 3"),
    "going on after the end": (edited("terminated", 2, True), "the episode goes on after it ended"),
    "going on after a cut": (edited("truncated", 0, True), "the episode goes on after it ended"),
    "an end in the last row": (edited("terminated", -1, True), "the episode goes on after it ended"),
    "no end": (edited("terminated", -2, False), "the last action neither terminated nor truncated the episode"),
}


@pytest.mark.parametrize("what", BROKEN_EPISODES)
def test_an_episode_that_breaks_the_contract_is_refused_with_its_number_and_seed(what: str) -> None:
    change, text = BROKEN_EPISODES[what]
    episode = make_episode(12, num_factors=2)
    with pytest.raises(EpisodeFailed, match=f"^{re.escape(f'episode 12 (seed 1012): {text}')}"):
        with_columns(episode, **change(episode))


BROKEN_LATENTS: dict[str, tuple[Callable[[Episode], dict], str]] = {
    "float64 mu": (lambda s: {"mu": s.mu.astype(np.float64)}, "mu: expected rows of float32 [4], got float64 [4]"),
    "float16 logvar": (
        lambda s: {"logvar": s.logvar.astype(np.float16)},
        "logvar: expected rows of float32 [4], got float16 [4]",
    ),
    "mu of one axis": (lambda s: {"mu": s.mu[:, 0]}, "mu: expected rows of float32 [4], got float32 []"),
    "NaN in mu": (lambda s: changed(s, "mu", put((0, 0), np.nan)), "mu is nan in row 0"),
    "infinite logvar": (lambda s: changed(s, "logvar", put((-1, 0), np.inf)), "logvar is inf in row 5"),
    "logvar of another length": (lambda s: {"logvar": s.logvar[:-1]}, "logvar has 5 rows, reward has 6"),
    "logvar of another size": (lambda s: {"logvar": s.logvar[:, :2]}, "logvar: expected rows of float32 [4], got float32 [2]"),
}


@pytest.mark.parametrize("what", BROKEN_LATENTS)
def test_latents_that_break_the_contract_are_refused(what: str) -> None:
    change, text = BROKEN_LATENTS[what]
    latents = make_latents(3)
    with pytest.raises(EpisodeFailed, match=f"^{re.escape(f'episode 3 (seed 1003): {text}')}"):
        with_columns(latents, **change(latents))


def test_an_episode_without_an_action_is_refused() -> None:
    episode = make_episode()
    with pytest.raises(EpisodeFailed, match="expected at least one action, got 1 rows"):
        with_columns(episode, **{name: rows[-1:] for name, rows in episode.columns.items()})


@pytest.mark.parametrize("final", [0, 3, -2])
def test_a_discrete_episode_whose_last_action_is_not_the_fill_is_refused(final: int) -> None:
    episode = make_episode(action_size=0)
    with pytest.raises(EpisodeFailed, match="the last row must hold no action, but -1"):
        with_columns(episode, **changed(episode, "action", put(-1, final)))


def test_a_discrete_episode_with_the_fill_before_the_last_row_is_refused() -> None:
    episode = make_episode(action_size=0)
    with pytest.raises(EpisodeFailed, match="action is -1 before the last row"):
        with_columns(episode, **changed(episode, "action", put(2, -1)))


def test_columns_are_attributes_and_others_are_named() -> None:
    episode = make_episode()
    assert episode.pixels is episode.columns["pixels"]
    with pytest.raises(
        AttributeError, match="Episode has no column 'mu'; it has pixels, action, reward, terminated, truncated"
    ):
        episode.mu  # noqa: B018


def test_an_episode_can_be_sent_to_another_process() -> None:
    episode = make_episode(num_factors=2)
    assert_same_record(pickle.loads(pickle.dumps(episode)), episode)


def test_an_episode_may_end_terminated_and_truncated_at_once() -> None:
    episode = make_episode(ending="both")
    assert episode.terminated[-2]
    assert episode.truncated[-2]


def test_float16_latents_are_accepted() -> None:
    assert make_latents(dtype=np.float16).mu.dtype == np.float16


def test_the_return_is_summed_in_float64_without_the_last_row() -> None:
    episode = make_episode(num_steps=4)
    episode = with_columns(episode, reward=np.array([1e8, 1, 1, -1e8, np.nan], np.float32))
    assert episode.episode_return == 2.0


def test_rows_and_steps_are_told_apart() -> None:
    episode = make_episode(num_steps=7)
    assert (episode.num_steps, episode.num_rows) == (7, 8)


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_episode().seed = 3


def test_the_repr_shows_shapes_and_no_values() -> None:
    assert repr(make_episode(2, num_steps=5, num_factors=3)) == (
        "Episode(2, seed 1002, 5 steps: pixels uint8[6, 8, 8, 3], action float32[6, 2], reward float32[6], "
        "terminated bool[6], truncated bool[6], state float32[6, 3])"
    )
    assert repr(make_latents(2, num_steps=5, action_size=0)) == (
        "Episode(2, seed 1002, 5 steps: mu float32[6, 4], logvar float32[6, 4], action int64[6], reward float32[6], "
        "terminated bool[6], truncated bool[6])"
    )
