"""Environments that draw from the global generators of Python, NumPy or PyTorch, in spite of Gymnasium's seed."""

import random
from pathlib import Path
from typing import Any

import gymnasium
import numba
import numpy as np
import pytest
import torch
from gymnasium.utils import seeding

from tests.builders import digests
from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.sources.base import seeded_globally
from worldmodel_v.storage import open_dataset


class Careless(gymnasium.Env):
    """Its frames are of NumPy's global generator, its rewards of Python's and PyTorch's."""

    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.t, self.grey = 0, np.random.randint(256)
        return self._see(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        return self._see(), random.random() + float(torch.rand(())), self.t == 4, False, {}

    def _see(self) -> np.ndarray:
        return np.full((8, 8, 3), self.grey, np.uint8)


def seed_all() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


gymnasium.register("tests/Careless-v0", entry_point=Careless)


class Replaces(Careless):
    """Puts another kind of generator in the place of NumPy's, in its first steps."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        frame, reward, *rest = super().step(action)
        np.random.set_bit_generator(np.random.PCG64(1))
        return frame, reward, *rest


gymnasium.register("tests/Replaces-v0", entry_point=Replaces)


class DrawnWhenMade(Careless):
    """Draws before its first reset, and has no-one seed its actions."""

    def __init__(self) -> None:
        self.action_space = gymnasium.spaces.Discrete(1000)
        self.made = int(self.np_random.integers(256))

    def _see(self) -> np.ndarray:
        return np.full((8, 8, 3), self.made, np.uint8)


class Unseeded:
    """Samples the environment's actions as they are."""

    def __init__(self, env: gymnasium.Env) -> None:
        self.act = lambda frame: env.action_space.sample()

    def reset(self, rng: np.random.Generator) -> None:
        pass


gymnasium.register("tests/DrawnWhenMade-v0", entry_point=DrawnWhenMade)


def test_what_gymnasium_makes_without_a_seed_repeats_and_differs_from_episode_to_episode(tmp_path: Path) -> None:
    before = seeding.np_random
    for name in ("a", "b"):
        env, policy = "tests/DrawnWhenMade-v0", "tests.collection.test_global_generators:Unseeded"
        collect(stamp_config(tmp_path / name, env=env, policy=policy, frame_size=8, episodes=4, episodes_per_shard=2))
    assert seeding.np_random is before
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    found = [(int(episode.pixels[0, 0, 0, 0]), *episode.action[:2].tolist()) for episode in open_dataset(tmp_path / "a")]
    assert all(len({*values}) > 2 for values in zip(*found, strict=True))


class OfTheClass(Careless):
    """All of its class share one space, from which it draws."""

    action_space = gymnasium.spaces.Discrete(1000)

    def _see(self) -> np.ndarray:
        return np.full((8, 8, 3), self.action_space.sample() % 256, np.uint8)


gymnasium.register("tests/OfTheClass-v0", entry_point=OfTheClass)


def test_a_space_of_the_class_draws_no_further_in_the_next_episode(tmp_path: Path) -> None:
    for name, episodes in (("whole", 3), ("first", 1), ("first", 3)):
        if episodes == 1 or name == "whole":
            OfTheClass.action_space = gymnasium.spaces.Discrete(1000)  # as in another process
        settings = {"policy": "tests.collection.test_global_generators:Unseeded", "frame_size": 8}
        collect(stamp_config(tmp_path / name, env="tests/OfTheClass-v0", **settings, episodes=episodes, episodes_per_shard=1))
        assert OfTheClass.action_space._np_random is None
    assert digests(tmp_path / "whole") == digests(tmp_path / "first")
    assert len({episode.action[0].item() for episode in open_dataset(tmp_path / "whole")}) == 3


@numba.njit
def compiled() -> float:
    return np.random.normal() + random.random()


def test_what_compiled_functions_draw_repeats_and_the_callers_goes_on() -> None:
    compiled()
    state = numba._helperlib.rnd_get_np_state_ptr()
    numba._helperlib.rnd_seed(state, 1)
    expected = numba._helperlib.rnd_get_state(state)
    drawn = []
    for episode in (0, 0, 1):
        with seeded_globally(0, episode):
            drawn.append([compiled() for _ in range(3)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert numba._helperlib.rnd_get_state(state) == expected


def test_an_episode_within_an_episode_changes_nothing_of_the_rest_of_it() -> None:
    seeds = []
    for _ in range(2):
        with seeded_globally(0, 0):
            with seeded_globally(0, 1):
                pass
            seeds.append(seeding.np_random()[1])
    assert seeds[0] == seeds[1]


COLOURS = {"env_kwargs": {"domain_randomize": True}, "reset_options": {"randomize": False}}


@pytest.mark.parametrize(
    "settings",
    [
        {"env": "CarRacing-v3", **COLOURS},
        {"env": "worldmodel_v/CarRacing-v3", **COLOURS},
        {"env": "FrozenLake-v1", "env_kwargs": {"map_name": None}},
    ],
)
def test_the_colours_and_maps_that_gymnasiums_worlds_draw_when_they_are_made_repeat(tmp_path: Path, settings: dict) -> None:
    for name in ("a", "b"):
        collect(stamp_config(tmp_path / name, **settings, episodes=1, max_steps=1))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_another_kind_of_generator_lasts_for_its_episode_alone(tmp_path: Path) -> None:
    before = np.random.get_bit_generator()
    for name in ("Replaces", "Careless"):
        collect(stamp_config(tmp_path / name, env=f"tests/{name}-v0", frame_size=8, episodes=3, episodes_per_shard=3))
        assert np.random.get_bit_generator() is before
    found, expected = (open_dataset(tmp_path / name) for name in ("Replaces", "Careless"))
    assert [episode.pixels[0, 0, 0, 0] for episode in found] == [episode.pixels[0, 0, 0, 0] for episode in expected]


def test_they_give_the_same_episodes_each_time_and_leave_the_callers_generators_alone(tmp_path: Path) -> None:
    settings = {"env": "tests/Careless-v0", "frame_size": 8, "episodes": 6, "episodes_per_shard": 2}
    seed_all()
    expected = random.random(), np.random.random(), torch.rand(())
    seed_all()
    collect(stamp_config(tmp_path / "a", **settings))
    assert (random.random(), np.random.random(), torch.rand(())) == expected
    collect(stamp_config(tmp_path / "b", **settings))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    dataset = open_dataset(tmp_path / "a")
    assert len({int(dataset.episode(i).pixels[0, 0, 0, 0]) for i in range(6)}) > 3
    assert len({float(dataset.episode(i).reward[0]) for i in range(6)}) == 6
