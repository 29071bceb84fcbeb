"""Worlds whose spaces or pictures change, and policies that move them unseen: each is refused by name."""

import copy
import pickle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.envs.calls import calls_noted
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.errors import ConfigError, EnvironmentNotUsable, EpisodesSetAside
from worldmodel_v.sources import Recorder
from worldmodel_v.storage import open_dataset

HERE = __name__


class Moving:
    """Steps the environment in its reset."""

    def __init__(self, env: gymnasium.Env, inside: float = 0, tells: float = 0, plans: float = 0) -> None:
        self._env, self._inside, self._tells, self._plans = env, inside, tells, plans

    def reset(self, rng: np.random.Generator) -> Any:
        env = copy.deepcopy(self._env) if self._plans else self._env
        env = env.unwrapped if self._inside else env
        frame = env.step(env.action_space.sample())[0]
        assert env.unwrapped.stamps[0] == 1  # type: ignore[attr-defined]
        assert self._env.unwrapped.stamps[0] == (0 if self._plans else 1)  # type: ignore[attr-defined]
        return frame if self._tells else None

    def act(self, frame: np.ndarray) -> Any:
        return [0.0, 0.0]


@pytest.mark.parametrize("how", ["", "(inside=1)"])
def test_a_policy_that_moves_the_environment_and_returns_no_frame_is_refused(how: str, tmp_path: Path) -> None:
    policy = f"{HERE}:Moving{how}"
    with pytest.raises(Exception, match="calls the environment's step in its own reset and returns no frame") as caught:
        collect(stamp_config(tmp_path / "out", policy=policy))
    assert policy in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["(tells=1)", "(plans=1)"])
def test_one_that_tells_or_that_steps_a_copy_is_not(how: str, tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "out", policy=f"{HERE}:Moving{how}", episodes=1, episodes_per_shard=1))
    first = open_dataset(tmp_path / "out").episode(0)
    assert first.columns["state"][0, 0] == (1 if "tells" in how else 0)


class Unseen:
    """Steps the environment, or copies of it, in its third act."""

    def __init__(self, env: gymnasium.Env, copies: float = 0) -> None:
        self._env, self._copies, self._acts = env, copies, 0

    def reset(self, rng: np.random.Generator) -> None: ...

    def act(self, frame: np.ndarray) -> Any:
        self._acts += 1
        world = self._env.unwrapped
        copies = [copy.deepcopy(self._env), copy.copy(world), pickle.loads(pickle.dumps(world))]
        for env in copies if self._copies else [world]:
            if self._acts == 3:
                env.step(self._env.action_space.sample())
        return [0.0, 0.0]


def test_a_policy_that_moves_the_environment_in_its_act_fails_its_episode(tmp_path: Path) -> None:
    with pytest.raises(EpisodesSetAside, match="in step 2: ValueError: the policy calls the environment's step in its own act"):
        collect(stamp_config(tmp_path / "out", policy=f"{HERE}:Unseen", episodes=1))
    assert "step" in vars(StampEnv)
    assert StampEnv.step.__module__ == StampEnv.__module__


def test_one_that_moves_copies_is_recorded(tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "out", policy=f"{HERE}:Unseen(copies=1)", episodes=1))
    episode = open_dataset(tmp_path / "out").episode(0)
    assert episode.state[:, 0].tolist() == [*range(episode.num_rows)]


def test_two_threads_may_note_the_calls_of_one_class() -> None:
    step, worlds = vars(StampEnv)["step"], (StampEnv(), StampEnv())
    one, other = map(calls_noted, worlds)
    noted = one.__enter__(), other.__enter__()

    def names() -> list[list[str]]:
        return [[call.name for call in calls] for calls in noted]

    worlds[1].reset(seed=1)
    assert names() == [[], ["reset"]]
    one.__exit__(None, None, None)
    worlds[1].step(worlds[1].action_space.sample())
    assert names() == [[], ["reset", "step"]]
    other.__exit__(None, None, None)
    assert vars(StampEnv)["step"] is step


class OfTwoSizes(StampEnv):
    """`render()` is smaller in episodes whose seed is odd."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(image_observation=False, render_mode=render_mode)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        assert seed is not None
        self.size = 32 if seed % 2 else 64
        return super().reset(seed=seed)


class NewSpace(StampEnv):
    """Has another space after its resets, or if it is built a second time."""

    built = 0

    def __init__(self, what: str, at: str) -> None:
        super().__init__()
        self._what, self._at = what, at
        self.observation_space = Dict({"top": self.observation_space})
        NewSpace.built += 1
        if at == "building" and self.built > 3:  # the first two are of the trial and the check, the third of episode 0
            self._change()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if self._at == "reset":
            self._change()
        frame, info = super().reset(seed=seed)
        return {"top": frame}, info

    def step(self, action: Any) -> Any:
        frame, *rest = super().step(action)
        return {"top": frame}, *rest

    def _change(self) -> None:
        if self._what == "action":
            self.action_space = Box(-2, 2, (2,))
        else:
            self.size = 32
            self.observation_space = Dict({"top": Box(0, 255, (32, 32, 3), np.uint8)})


gymnasium.register("tests/OfTwoSizes-v0", entry_point=OfTwoSizes)
gymnasium.register("tests/NewSpace-v0", entry_point=NewSpace)


def test_what_render_gives_has_the_size_of_the_first_episode(tmp_path: Path) -> None:
    with pytest.raises(EpisodesSetAside) as caught:
        collect(stamp_config(tmp_path / "out", env="tests/OfTwoSizes-v0", episodes_per_shard=1))
    assert "the environment's render is (32, 32, 3) in this episode, and (64, 64, 3) in the dataset" in str(caught.value)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.spec.settings()["render_shape"] == [64, 64, 3]
    assert 0 < dataset.num_episodes < 8
    assert all(episode.seed % 2 == 0 for episode in dataset)


@pytest.mark.parametrize(("what", "name"), [("action", "action_space"), ("picture", "observation.top")])
def test_a_space_is_that_of_the_first_episode(what: str, name: str, tmp_path: Path) -> None:
    NewSpace.built = 0
    settings = {"env": "tests/NewSpace-v0", "env_kwargs": {"what": what, "at": "building"}, "episodes_per_shard": 1}
    with pytest.raises(EpisodesSetAside, match=rf"the environment's {name} is .* in this episode, and .* in the dataset"):
        collect(stamp_config(tmp_path / "out", **settings))
    assert open_dataset(tmp_path / "out").num_episodes == 1


@pytest.mark.parametrize(("what", "name"), [("action", "action space"), ("picture", "space of its observation.top")])
def test_a_space_that_changes_at_a_reset_is_refused(what: str, name: str, tmp_path: Path) -> None:
    settings = {"env": "tests/NewSpace-v0", "env_kwargs": {"what": what, "at": "reset"}}
    with pytest.raises(EnvironmentNotUsable, match=rf"{name} is .* after reset, and .* before"):
        collect(stamp_config(tmp_path / "out", **settings))


class Brightening(StampEnv):
    """Doubles the bounds of its frames in place at a reset."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(0, 1, (64, 64, 3), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.observation_space.high[:] = 2  # type: ignore[attr-defined]
        frame, info = super().reset(seed=seed)
        return frame.astype(np.float32) / 255, info


gymnasium.register("tests/Brightening-v0", entry_point=Brightening)


def test_bounds_that_change_at_a_reset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentNotUsable, match="the bounds in the space of its observation changed at its reset"):
        collect(stamp_config(tmp_path / "out", env="tests/Brightening-v0"))


class Telling(StampEnv):
    """Tells the seed of its reset."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.seed = seed
        return super().reset(seed=seed)

    def ground_truth(self) -> dict[str, float]:
        return {"seed": self.seed % 1000 if self.seed else -1}


class NewInside(gymnasium.Wrapper):
    """Puts another environment inside at each reset."""

    def __init__(self) -> None:
        super().__init__(Telling())

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.env = Telling()
        return self.env.reset(seed=seed)


gymnasium.register("tests/NewInside-v0", entry_point=NewInside, disable_env_checker=True)


def test_the_ground_truth_is_that_of_the_environment_that_a_reset_has_put_inside(tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "out", env="tests/NewInside-v0", episodes=2))
    for episode in open_dataset(tmp_path / "out"):
        assert (episode.state == episode.seed % 1000).all()


def test_a_recorder_notes_who_steps_that_one(tmp_path: Path) -> None:
    with Recorder(NewInside(), tmp_path / "out") as env:
        for seed in (1, 2):
            env.reset(seed=seed)
            env.step(env.action_space.sample())
        env.unwrapped.step(env.action_space.sample())
        with pytest.raises(ConfigError, match="the environment's step was called past the recorder"):
            env.step(env.action_space.sample())
    assert open_dataset(tmp_path / "out").num_episodes == 1


class WideningSpace(StampEnv):
    """Widens its action space in place at its first step."""

    def step(self, action: Any) -> Any:
        self.action_space.low[:], self.action_space.high[:] = 2, 3  # type: ignore[attr-defined]
        return super().step(np.clip(action, -1, 1))


gymnasium.register("tests/WideningSpace-v0", entry_point=WideningSpace)


class OfTheMoment:
    """Samples the environment's space as it is."""

    def __init__(self, env: gymnasium.Env) -> None:
        self.space = env.action_space

    def reset(self, rng: np.random.Generator) -> None:
        self.space.seed(1)

    def act(self, frame: np.ndarray) -> Any:
        return self.space.sample()


def test_actions_of_a_space_that_widens_are_held_against_the_recorded_one(tmp_path: Path) -> None:
    with pytest.raises(
        EpisodesSetAside, match=r"the policy's action in step 1 is .*, outside Box\(-1.0, 1.0, \(2,\), float32\)"
    ):
        collect(stamp_config(tmp_path / "out", env="tests/WideningSpace-v0", policy=f"{__name__}:OfTheMoment", episodes=1))


def test_a_recorder_holds_to_the_size_too(tmp_path: Path) -> None:
    with Recorder(OfTwoSizes(render_mode="rgb_array"), tmp_path / "out") as env:
        env.reset(seed=2)
        env.step(env.action_space.sample())
        with pytest.raises(ValueError, match=r"the environment's render is \(32, 32, 3\) in this episode"):
            env.reset(seed=3)


def test_a_recorder_is_not_copied(tmp_path: Path) -> None:
    with Recorder(StampEnv(), tmp_path / "out") as env:
        for copied in (copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="a Recorder is neither copied nor pickled"):
                copied(env)
        copy.deepcopy(env.unwrapped).reset(seed=1)
