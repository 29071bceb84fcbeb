"""What a record accepts, what it refuses, and in which words."""

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pytest

from tests.builders import make_episode, make_latents
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
    "float pixels": (as_type("pixels", np.float32), "pixels: expected uint8 with 4 axes, got float32 with 4 axes"),
    "pixels without channels": (lambda e: {"pixels": e.pixels[..., 0]}, "pixels: expected uint8 with 4 axes, got uint8 with 3"),
    "pixels of four channels": (lambda e: {"pixels": np.zeros((6, 8, 8, 4), np.uint8)}, "pixels"),
    "float64 actions": (as_type("action", np.float64), "action: expected float32 with 2 axes, got float64 with 2 axes"),
    "discrete actions of int32": (
        lambda e: {"action": np.full(6, -1, np.int32)},
        "action: expected int64 with 1 axes, got int32 with 1 axes",
    ),
    "float64 reward": (as_type("reward", np.float64), "reward: expected float32 with 1 axes, got float64 with 1 axes"),
    "reward as a column": (lambda e: {"reward": e.reward[:, None]}, "reward: expected float32 with 1 axes, got float32 with 2"),
    "terminated as numbers": (as_type("terminated", np.uint8), "terminated: expected bool with 1 axes, got uint8 with 1 axes"),
    "truncated as numbers": (as_type("truncated", np.int64), "truncated: expected bool with 1 axes, got int64 with 1 axes"),
    "float64 state": (as_type("state", np.float64), "state: expected float32 with 2 axes, got float64 with 2 axes"),
    "unnamed state": (lambda e: {"state_names": ("a",)}, "2 state factors but ('a',)"),
    "NaN in state": (edited("state", (-1, 0), np.nan), "state holds NaN or infinite values"),
    "infinite state": (edited("state", (0, 1), np.inf), "state holds NaN or infinite values"),
    "NaN reward in the middle": (edited("reward", 2, np.nan), "reward is NaN or infinite before the last row"),
    "infinite reward": (edited("reward", 0, -np.inf), "reward is NaN or infinite before the last row"),
    "a reward in the last row": (edited("reward", -1, 0.0), "the last row must hold no action or reward"),
    "an action in the last row": (edited("action", -1, 0.0), "the last row must hold no action or reward"),
    "half an action in the last row": (edited("action", (-1, 0), 0.0), "the last row must hold no action or reward"),
    "NaN action in the middle": (edited("action", (3, 1), np.nan), "action is NaN or infinite before the last row"),
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
        dataclasses.replace(episode, **change(episode))


BROKEN_LATENTS: dict[str, tuple[Callable[[Episode], dict], str]] = {
    "float64 mu": (lambda s: {"mu": s.mu.astype(np.float64)}, "mu: expected float32 or float16, got float64"),
    "float64 logvar": (lambda s: {"logvar": s.logvar.astype(np.float64)}, "logvar: expected float32 or float16, got float64"),
    "mu of one axis": (lambda s: {"mu": s.mu[:, 0]}, "mu: expected 2 axes, got 1"),
    "NaN in mu": (lambda s: changed(s, "mu", put((0, 0), np.nan)), "mu holds NaN or infinite values"),
    "infinite logvar": (lambda s: changed(s, "logvar", put((-1, 0), np.inf)), "logvar holds NaN or infinite values"),
    "logvar of another length": (lambda s: {"logvar": s.logvar[:-1]}, "logvar has 5 rows, reward has 6"),
    "logvar of another size": (lambda s: {"logvar": s.logvar[:, :2]}, ""),
}


@pytest.mark.parametrize("what", BROKEN_LATENTS)
def test_latents_that_break_the_contract_are_refused(what: str) -> None:
    change, text = BROKEN_LATENTS[what]
    latents = make_latents(3)
    with pytest.raises(EpisodeFailed, match=f"^{re.escape(f'episode 3 (seed 1003): {text}')}"):
        dataclasses.replace(latents, **change(latents))


def test_an_episode_without_an_action_is_refused() -> None:
    with pytest.raises(EpisodeFailed, match="expected at least one action, got 1 rows"):
        Episode(
            episode_id=0,
            seed=0,
            pixels=np.zeros((1, 4, 4, 3), np.uint8),
            action=np.full((1, 2), np.nan, np.float32),
            reward=np.full(1, np.nan, np.float32),
            terminated=np.zeros(1, np.bool_),
            truncated=np.zeros(1, np.bool_),
        )


@pytest.mark.parametrize("final", [0, 3, -2])
def test_a_discrete_episode_whose_last_action_is_not_minus_one_is_refused(final: int) -> None:
    episode = make_episode(action_size=0)
    with pytest.raises(EpisodeFailed, match="the last row must hold no action or reward"):
        dataclasses.replace(episode, **changed(episode, "action", put(-1, final)))


def test_an_episode_may_end_terminated_and_truncated_at_once() -> None:
    episode = make_episode(ending="both")
    assert episode.terminated[-2]
    assert episode.truncated[-2]


def test_float16_latents_are_accepted() -> None:
    assert make_latents(dtype=np.float16).mu.dtype == np.float16


def test_the_return_is_summed_in_float64_without_the_last_row() -> None:
    episode = make_episode(num_steps=4)
    episode = dataclasses.replace(episode, reward=np.array([1e8, 1, 1, -1e8, np.nan], np.float32))
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
