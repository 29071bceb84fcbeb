"""Environments that reset themselves when their episode ends, and environments that are moved without the recorder."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.errors import ConfigError, EpisodesSetAside
from worldmodel_v.sources import Recorder
from worldmodel_v.storage import open_dataset


class ResetsItself(StampEnv):
    """`how`: it returns the frame of its own reset, or the final one, which a buffer may have lost by then."""

    def __init__(self, how: str, render_mode: str | None = None) -> None:
        super().__init__(image_observation=how != "rendered", render_mode=render_mode)
        self._how, self._buffer = how, np.zeros((64, 64, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        first, info = super().reset(seed=seed)
        if self._how == "buffer":
            self._buffer[:] = first
        return (self._buffer if self._how == "buffer" else first), info

    def step(self, action: Any) -> Any:
        shown, reward, terminated, truncated, info = super().step(action)
        if self._how == "buffer":
            self._buffer[:] = shown
            shown = self._buffer
        if terminated or truncated:
            first, _ = self.reset()
            shown = first if self._how == "first" else shown
        return shown, reward, terminated, truncated, info


class BesideNaN(ResetsItself):
    """It has numbers that are none beside its picture."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__("first", render_mode)
        spaces = {"image": self.observation_space, "speed": gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)}
        self.observation_space = gymnasium.spaces.Dict(spaces)

    def reset(self, **options: Any) -> Any:
        first, info = super().reset(**options)
        return self._beside(first), info

    def step(self, action: Any) -> Any:
        shown, *outcome = super().step(action)
        return shown if isinstance(shown, dict) else self._beside(shown), *outcome

    def _beside(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": image.copy(), "speed": np.full(1, np.nan, np.float32)}


class Around(gymnasium.ObservationWrapper):
    """The observation of a layer that resets itself is another one outside."""

    def observation(self, observation: Any) -> Any:
        return 255 - observation


class Holding(gymnasium.Env):
    """Wraps another that resets itself, without Gymnasium's class, and turns its frames."""

    def __init__(self) -> None:
        self._env = ResetsItself("first")
        self.observation_space, self.action_space = self._env.observation_space, self._env.action_space

    def reset(self, **options: Any) -> Any:
        shown, info = self._env.reset(**options)
        return 255 - shown, info

    def step(self, action: Any) -> Any:
        shown, *outcome = self._env.step(action)
        return 255 - shown, *outcome


class OneOfSeveral(gymnasium.Env):
    """The only environment in a vector of one, which resets it in the same step."""

    def __init__(self) -> None:
        mode = gymnasium.vector.AutoresetMode.SAME_STEP
        self.worlds = gymnasium.vector.SyncVectorEnv([StampEnv], autoreset_mode=mode)
        self.observation_space, self.action_space = self.worlds.single_observation_space, self.worlds.single_action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        shown, info = self.worlds.reset(seed=seed)
        return shown[0], info

    def step(self, action: Any) -> Any:
        shown, reward, terminated, truncated, info = self.worlds.step(action[None])
        return shown[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info


class Rounds(gymnasium.Env):
    """Shows a picture of its own for each round of a game that it holds and begins anew after each."""

    observation_space, action_space = gymnasium.spaces.Box(0, 255, (16, 16, 3), np.uint8), gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self._env = gymnasium.make("CliffWalking-v1")

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._env.reset(seed=seed)
        self._round = 0
        return np.zeros((16, 16, 3), np.uint8), {}

    def step(self, action: Any) -> Any:
        self._round += 1
        self._env.step(3)  # where the last reset has begun
        self._env.reset()
        return np.full((16, 16, 3), 20 * self._round, np.uint8), 1.0, self._round == 3, False, {}


gymnasium.register("ResetsItself/rounds-v0", Rounds)
gymnasium.register("ResetsItself/holding-v0", Holding)
gymnasium.register("ResetsItself/several-v0", OneOfSeveral)
for how in ("first", "final", "buffer", "rendered"):
    gymnasium.register(f"ResetsItself/{how}-v0", ResetsItself, kwargs={"how": how})
gymnasium.register("ResetsItself/nan-v0", BesideNaN)


@pytest.mark.parametrize(
    ("how", "wrap"),
    [*((how, ()) for how in ("first", "buffer", "rendered", "nan", "holding")), ("first", (f"{__name__}:Around",))],
)
def test_the_next_episodes_first_frame_is_not_the_final_one(how: str, wrap: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(EpisodesSetAside, match="the environment resets itself in the same step"):
        collect(stamp_config(tmp_path / "out", env=f"{__name__}:ResetsItself/{how}-v0", wrap=wrap, episodes=1))
    assert not [*tmp_path.rglob("*.h5")]


def test_an_environment_that_begins_a_game_inside_anew_does_not_reset_itself(tmp_path: Path) -> None:
    env = f"{__name__}:ResetsItself/rounds-v0"
    collect(stamp_config(tmp_path / "out", env=env, episodes=1, policy="random", frame_size=16))
    assert open_dataset(tmp_path / "out").episode(0).pixels[:, 0, 0, 0].tolist() == [0, 20, 40, 60]


def test_a_final_observation_in_an_array_for_several_environments_is_seen(tmp_path: Path) -> None:
    with pytest.raises(EpisodesSetAside, match=r"info\['final_obs'\] is another observation than the one returned"):
        collect(stamp_config(tmp_path / "out", env=f"{__name__}:ResetsItself/several-v0", episodes=1))


def test_one_that_gives_the_final_frame_is_recorded(tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "out", env=f"{__name__}:ResetsItself/final-v0", episodes=1))
    collect(stamp_config(tmp_path / "plain", episodes=1))
    resetting, plain = (open_dataset(tmp_path / name).episode(0) for name in ("out", "plain"))
    np.testing.assert_array_equal(resetting.pixels, plain.pixels)


def test_a_recorder_refuses_it_too_and_what_goes_around_it(tmp_path: Path) -> None:
    with Recorder(ResetsItself("first"), tmp_path / "out") as env:
        env.reset()
        for _ in range(env.unwrapped.end - 1):
            env.step(env.action_space.sample())
        with pytest.raises(ValueError, match="the environment resets itself in the same step"):
            env.step(env.action_space.sample())
    with Recorder(StampEnv(), tmp_path / "around") as env:
        env.reset()
        env.unwrapped.step(env.action_space.sample())
        with pytest.raises(ConfigError, match="the environment's step was called past the recorder"):
            env.step(env.action_space.sample())
        env.reset()
        env.step(env.action_space.sample())
    assert StampEnv.step.__module__ == StampEnv.__module__
    assert open_dataset(tmp_path / "around").num_episodes == 1
