"""Episodes that differ when they are played again are told of by name; all others are not."""

import itertools
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.builders import Sayings, digests
from tests.commands import start
from tests.conftest import stamp_config
from worldmodel_v.collection import collect, collect_source
from worldmodel_v.collection.config import CollectionConfig
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.sources import EpisodeSource


class Repeating(StampEnv):
    """Of a stranger, and honest."""


class Forgetful(StampEnv):
    """Its frames differ from play to play from step 3 on, its rewards from step 4 on: reward t comes with frame t + 1."""

    plays = itertools.count()

    def reset(self, **how: Any) -> Any:
        self._play, self._t = next(self.plays), 0
        return super().reset(**how)

    def step(self, action: Any) -> Any:
        observation, reward, *end = super().step(action)
        self._t += 1
        observation = observation + np.uint8(self._play * (self._t >= 3))
        return observation, reward + self._play * (self._t >= 5), *end


gymnasium.register("tests/Repeating-v0", entry_point=Repeating)
gymnasium.register("tests/Forgetful-v0", entry_point=Forgetful)


class Noise(EpisodeSource):
    """Its pixels are of the operating system's generator."""

    name = "noise"
    action_space = gymnasium.spaces.Discrete(2)

    def episode(self, number: int, rng: np.random.Generator) -> dict[str, Any]:
        pixels = np.random.default_rng().integers(256, size=(2, 8, 8, 3), dtype=np.uint8)
        return {"pixels": pixels, "action": [0], "reward": [1.0], "terminated": True}


@pytest.mark.parametrize("episodes", [2, 33])
def test_what_differs_and_from_which_step_on(tmp_path: Path, episodes: int) -> None:
    sayings = Sayings()
    collect(stamp_config(tmp_path / "out", env="tests/Forgetful-v0", episodes=episodes), sayings)
    (facts,) = sayings.facts("not_reproducible")
    assert facts["episode"] == 0
    assert facts["steps"] == {"pixels": 3, "reward": 4}


def test_a_script_is_told_by_the_logger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    collect(stamp_config(tmp_path / "out", env="tests/Forgetful-v0", episodes=2))
    (told,) = caplog.records
    assert (told.name, told.levelname) == ("worldmodel_v", "WARNING")
    assert "tests/Forgetful-v0 does not repeat" in told.getMessage()


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    sayings = Sayings()
    collect_source(Noise(), CollectionConfig(out=tmp_path / "out", episodes=3, workers=0), sayings)
    (facts,) = sayings.facts("not_reproducible")
    assert facts["steps"] == {"pixels": 0}


class Shortening(EpisodeSource):
    """Each play is cut one action before the one before; all else is as ever."""

    name = "shortening"
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def episode(self, number: int, rng: np.random.Generator) -> dict[str, Any]:
        self.num_steps -= 1
        pixels = np.zeros((self.num_steps + 1, 8, 8, 3), np.uint8)
        rows = [0] * self.num_steps
        return {"pixels": pixels, "action": rows, "reward": rows, "terminated": False}


@pytest.mark.parametrize("episodes", [2, 33])
def test_an_episode_that_is_cut_earlier_when_it_is_played_again(tmp_path: Path, episodes: int) -> None:
    sayings = Sayings()
    collect_source(Shortening(99), CollectionConfig(out=tmp_path / "out", episodes=episodes, workers=0), sayings)
    (facts,) = sayings.facts("not_reproducible")
    assert facts["steps"].keys() == {"truncated", "the end"}


@pytest.mark.parametrize("episodes", [2, 33])
def test_a_world_that_repeats_has_the_shards_of_any_and_no_warning(tmp_path: Path, episodes: int) -> None:
    sayings = Sayings()
    collect(stamp_config(tmp_path / "a", env="tests/Repeating-v0", episodes=episodes), sayings)
    collect(stamp_config(tmp_path / "b", env="tests/Repeating-v0", episodes=episodes))
    assert not sayings.facts("not_reproducible")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


class Lit(StampEnv):
    """As bright as a file says."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self._light = int(Path(file).read_text())

    def step(self, action: Any) -> Any:
        frame, *others = super().step(action)
        return frame + np.uint8(self._light), *others


gymnasium.register("tests/Lit-v0", entry_point=Lit)


def test_a_dataset_that_is_continued_with_a_world_that_has_changed(tmp_path: Path) -> None:
    light, sayings = tmp_path / "light", Sayings()
    for value, episodes in ((0, 2), (0, 3), (1, 4)):
        assert not sayings.facts("not_reproducible")
        light.write_text(f"{value}")
        settings = {"env": "tests/Lit-v0", "env_kwargs": {"file": str(light)}, "episodes_per_shard": 1}
        collect(stamp_config(tmp_path / "out", episodes=episodes, **settings), sayings)
    (facts,) = sayings.facts("not_reproducible")
    assert (facts["episode"], facts["steps"]) == (0, {"pixels": 1})


class Counting(StampEnv):
    """Its rewards count the episodes of this process."""

    episodes = 0

    def reset(self, **how: Any) -> Any:
        type(self).episodes += 1
        return super().reset(**how)

    def step(self, action: Any) -> Any:
        frame, reward, *end = super().step(action)
        return frame, reward + self.episodes, *end


gymnasium.register("tests/Counting-v0", entry_point=Counting)


class AnewEachTime:
    """An executor whose every task finds the world as in a fresh process."""

    def try_tasks(self, setup: Any, tasks: Any, **how: Any) -> Any:
        for task in tasks:
            Counting.episodes, FirstMapForAll.light = 0, None
            yield task, setup()(task)


def test_what_a_world_keeps_shows_in_a_fresh_process_too(tmp_path: Path) -> None:
    sayings = Sayings()
    collect(stamp_config(tmp_path / "out", env="tests/Counting-v0", episodes=1), sayings, AnewEachTime())
    (facts,) = sayings.facts("not_reproducible")
    assert facts["steps"] == {"reward": 0}


class FirstMapForAll(StampEnv):
    """Keeps the brightness that the first seed in its process draws."""

    light: int | None = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        given = super().reset(seed=seed, options=options)
        cls = type(self)
        cls.light = int(self.np_random.integers(1 << 20)) if cls.light is None else cls.light
        return given

    def step(self, action: Any) -> Any:
        frame, reward, *end = super().step(action)
        return frame, reward + self.light, *end


gymnasium.register("tests/FirstMapForAll-v0", entry_point=FirstMapForAll)


def test_what_the_first_episode_of_a_process_decides_for_all_shows(tmp_path: Path) -> None:
    sayings = Sayings()
    collect(stamp_config(tmp_path / "out", env="tests/FirstMapForAll-v0", episodes=2), sayings, AnewEachTime())
    (facts,) = sayings.facts("not_reproducible")
    assert facts["steps"] == {"reward": 0}


NOISE = """
import os
import gymnasium
from worldmodel_v.envs.stamp import StampEnv

class Noisy(StampEnv):
    def step(self, action):
        frame, reward, *end = super().step(action)
        return frame, reward + int.from_bytes(os.urandom(2), "big"), *end

gymnasium.register("Noisy-v0", entry_point=Noisy)
"""


@pytest.mark.slow
def test_the_command_tells_of_it_with_workers(tmp_path: Path) -> None:
    (tmp_path / "noisy_world.py").write_text(NOISE)
    words = ("wm-collect", "--workers", 2, "--policy", "random", "--episodes", 2, "--log-format", "json")
    of = ("--env", "noisy_world:Noisy-v0", "--out", tmp_path / "out")
    process = start(*words, *of, PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[2]}")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    told = [event for event in map(json.loads, errors.splitlines()) if event["event"] == "not_reproducible"]
    assert [(event["level"], event["episode"], event["steps"]) for event in told] == [("warning", 0, {"reward": 0})]
    assert "episode 0 (seed" in told[0]["message"]
    assert "of noisy_world:Noisy-v0 does not repeat: played again, it differs: reward from step 0 on" in told[0]["message"]


HASHING = """
import gymnasium
from worldmodel_v.envs.stamp import StampEnv

class Hashing(StampEnv):
    def step(self, action):
        frame, reward, *end = super().step(action)
        return frame, reward + hash("text") % 1000, *end

gymnasium.register("Hashing-v0", entry_point=Hashing)
"""


@pytest.mark.slow
def test_commands_and_their_workers_hash_texts_alike(tmp_path: Path) -> None:
    (tmp_path / "hashing_world.py").write_text(HASHING)
    words = ("wm-collect", "--env", "hashing_world:Hashing-v0", "--policy", "random", "--episodes", 2, "--max-steps", 3)
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    for workers, seed in ((2, "1"), (0, "2")):
        process = start(*words, "--workers", workers, "--out", tmp_path / str(workers), PYTHONPATH=path, PYTHONHASHSEED=seed)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert digests(tmp_path / "0") == digests(tmp_path / "2")
