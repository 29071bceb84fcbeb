"""How an environment is played: frame skip, wrappers, options of the reset, and its own limit; each recorded."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from tests.conftest import stamp_config
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.collection.collector import resolve_spec
from worldmodel_v.errors import ConfigError, EnvironmentNotUsable, OutputNotUsable, UsageError
from worldmodel_v.sources import GymSource
from worldmodel_v.storage import open_dataset

ENV = "tests/Counter-v0"


class Counter(gymnasium.Env):
    """Counts its steps in its frames; the reward of step t is 2^t, and it ends after `length` of them."""

    metadata: dict[str, Any] = {"render_modes": []}
    action_space = Discrete(3)
    observation_space = Box(0, 255, (32, 32), np.uint8)

    def __init__(self, length: int = 10) -> None:
        self._length = length
        self.received: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self._step, self._offset = 0, (options or {}).pop("offset", 0)
        return self._frame(), {"steps": 0, "last": 0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self._step += 1
        info = {"steps": self._step, "last": int(action)}
        return self._frame(), 2.0 ** (self._step - 1), self._step == self._length, False, info

    def _frame(self) -> np.ndarray:
        """Column 0 is as bright as the step plus the reset's offset; column 1 + t is lit in frame t alone."""
        frame = np.zeros((32, 32), np.uint8)
        frame[:, 0] = self._step + self._offset
        frame[:, 1 + self._step % 31] = 200
        return frame


class Inverted(gymnasium.ObservationWrapper):
    """Light where it was dark."""

    def observation(self, observation: Any) -> Any:
        return 255 - observation


class Brighter(gymnasium.ObservationWrapper):
    """By one."""

    def observation(self, observation: Any) -> Any:
        return observation + 1


def no_env(env: gymnasium.Env) -> int:
    """No wrapper."""
    return 3


gymnasium.register(ENV, entry_point=Counter)
gymnasium.register("tests/Limited-v0", entry_point=Counter, kwargs={"length": 10**9}, max_episode_steps=7)
gymnasium.register("tests/Endless-v0", entry_point=Counter, kwargs={"length": 10**9})


def counter(out: Path, **settings: Any) -> CollectConfig:
    return stamp_config(out, **{"env": ENV, "episodes": 1, "frame_size": 32, **settings})


def episode_of(tmp_path: Path, **settings: Any) -> Any:
    collect(counter(tmp_path / "out", **settings))
    return open_dataset(tmp_path / "out").episode(0)


class TestFrameSkip:
    def test_rewards_are_summed_and_the_skip_stops_at_the_end(self, tmp_path: Path) -> None:
        episode = episode_of(tmp_path, frame_skip=4, record=("info.steps", "info.last"))
        assert episode.pixels[:, 0, 0, 0].tolist() == [0, 4, 8, 10]
        assert episode.reward[:-1].tolist() == [1 + 2 + 4 + 8, 16 + 32 + 64 + 128, 256 + 512]
        assert episode.terminated.tolist() == [False, False, True, False]
        assert episode.columns["info.steps"].tolist() == [0, 4, 8, 10]
        assert episode.columns["info.last"][1:].tolist() == episode.action[:-1].tolist()

    def test_max_pools_the_last_two_frames_and_the_first_stands_alone(self, tmp_path: Path) -> None:
        pixels = episode_of(tmp_path, frame_skip=4, frame_skip_pool="max").pixels
        lit = [(np.flatnonzero(frame[0, 1:, 0] == 200)).tolist() for frame in pixels]
        assert lit == [[0], [3, 4], [7, 8], [9, 10]]
        assert pixels[:, 0, 0, 0].tolist() == [0, 4, 8, 10]

    def test_a_skip_that_ends_with_its_first_step_pools_nothing(self, tmp_path: Path) -> None:
        pixels = episode_of(tmp_path, frame_skip=3, frame_skip_pool="max").pixels
        assert [(np.flatnonzero(frame[0, 1:, 0] == 200)).tolist() for frame in pixels] == [[0], [2, 3], [5, 6], [8, 9], [10]]

    def test_max_steps_counts_recorded_actions(self, tmp_path: Path) -> None:
        episode = episode_of(tmp_path, frame_skip=4, max_steps=2)
        assert episode.pixels[:, 0, 0, 0].tolist() == [0, 4, 8]
        assert episode.truncated.tolist() == [False, True, False]

    def test_it_is_recorded_and_another_does_not_continue(self, tmp_path: Path) -> None:
        collect(counter(tmp_path / "out", frame_skip=4))
        assert json.loads((tmp_path / "out" / "dataset.json").read_text())["spec"]["frame_skip"] == 4
        with pytest.raises(OutputNotUsable, match="frame_skip is 4 there, 1 asked"):
            collect(counter(tmp_path / "out", episodes=2))

    def test_it_does_not_continue_what_was_begun_without(self, tmp_path: Path) -> None:
        collect(counter(tmp_path / "out"))
        with pytest.raises(OutputNotUsable, match="frame_skip is 1 there, 4 asked"):
            collect(counter(tmp_path / "out", frame_skip=4, episodes=2))


class TestWrappers:
    def test_they_are_put_around_it_in_their_order(self, tmp_path: Path) -> None:
        inner, outer = (f"{__name__}:{name}" for name in ("Brighter", "Inverted"))
        episode = episode_of(tmp_path, wrap=(inner, outer))
        assert episode.pixels[:, 0, 0, 0].tolist() == [255 - (t + 1) for t in range(11)]
        spec = open_dataset(tmp_path / "out").spec
        assert spec.wrap == (inner, outer)
        assert spec.env_source[f"{__name__.replace('.', '/')}.py"]

    def test_the_layout_is_that_of_the_outermost(self, tmp_path: Path) -> None:
        spec = resolve_spec(stamp_config(tmp_path, wrap=("gymnasium.wrappers:GrayscaleObservation",)))
        assert (spec.layout, spec.env_source) == ("HW", {})

    def test_an_edited_one_is_found_where_episodes_are_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = "import gymnasium\nclass Mine(gymnasium.Wrapper):\n    pass\n"
        (tmp_path / "wrapper_of_a_user.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        try:
            spec = resolve_spec(counter(tmp_path / "out", wrap=("wrapper_of_a_user:Mine",)))
            GymSource(spec).check()
            (tmp_path / "wrapper_of_a_user.py").write_text(text + "# another\n")
            with pytest.raises(EnvironmentNotUsable, match=r"wrapper_of_a_user\.py.*install the same on every node$"):
                GymSource(spec).check()
        finally:
            sys.modules.pop("wrapper_of_a_user", None)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("nowhere:Wrapper", "ModuleNotFoundError: No module named 'nowhere'; expected module:Wrapper on the Python path"),
            ("gymnasium.wrappers:Nothing", "AttributeError: module 'gymnasium.wrappers' has no attribute 'Nothing'; expected"),
            ("gymnasium.wrappers", "expected module:Wrapper on the Python path"),
            ("", "expected module:Wrapper on the Python path"),
            ("gymnasium.wrappers:ResizeObservation", "TypeError: ResizeObservation.__init__() missing"),
            (f"{__name__}:no_env", "expected a gymnasium.Wrapper, it makes a int"),
        ],
    )
    def test_what_is_none_is_refused(self, tmp_path: Path, name: str, text: str) -> None:
        with pytest.raises(EnvironmentNotUsable) as caught:
            collect(counter(tmp_path / "out", wrap=(name,)))
        assert str(caught.value).startswith(f"wrap={name!r}: ")
        assert text in str(caught.value)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            (
                {"wrap": ("gymnasium.wrappers:GrayscaleObservation",)},
                "wrap=('gymnasium.wrappers:GrayscaleObservation',): the policy random-start(random) moves the",
            ),
            ({"frames": "render"}, "frames='render': the policy random-start(random) moves the environment"),
        ],
    )
    def test_a_policy_that_moves_the_environment_past_them_is_refused(
        self, tmp_path: Path, settings: dict[str, Any], text: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            resolve_spec(CollectConfig(out=tmp_path, env="CarRacing-v3", policy="random-start(random)", **settings))
        assert str(caught.value).startswith(text)


def test_a_policy_that_moves_it_in_a_later_episode_is_found_there(tmp_path: Path) -> None:
    wrap = ("gymnasium.wrappers:GrayscaleObservation",)
    spec = resolve_spec(CollectConfig(out=tmp_path, env="CarRacing-v3", policy="random", max_steps=2, wrap=wrap))
    with pytest.raises(ConfigError, match=r"^wrap=.*: the policy random-start\(random\) moves the environment"):
        GymSource(dataclasses.replace(spec, policy="random-start(random)")).episode(1)


def test_every_reset_is_given_the_options(tmp_path: Path) -> None:
    config = counter(tmp_path / "out", episodes=2, reset_options='{"offset": 40}')
    collect(config)
    dataset = open_dataset(config.out)
    assert [int(dataset.episode(number).pixels[0, 0, 0, 0]) for number in range(2)] == [40, 40]
    assert dataset.spec.reset_options == {"offset": 40}


@pytest.mark.parametrize(
    ("env", "settings", "max_steps"),
    [
        *[("tests/Limited-v0", {}, 7), ("tests/Endless-v0", {}, 1000), ("tests/Limited-v0", {"max_steps": 3}, 3)],
        ("tests/Endless-v0", {"env_kwargs": '{"max_episode_steps": 9}'}, 9),
    ],
)
def test_the_environments_own_limit_holds_unless_another_is_asked(
    tmp_path: Path, env: str, settings: dict[str, Any], max_steps: int
) -> None:
    assert resolve_spec(counter(tmp_path, env=env, **settings)).max_steps == max_steps


def test_the_default_settings_are_recorded_as_before(tmp_path: Path) -> None:
    spec = resolve_spec(stamp_config(tmp_path)).settings()
    assert not {"layout", "wrap", "frame_skip", "frame_skip_pool", "reset_options"} & spec.keys()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"frame_skip": 0}, "frame_skip: expected at least 1, got 0"),
        ({"frame_skip": 2, "frame_skip_pool": "mean"}, "frame_skip_pool: expected last or max, got 'mean'"),
        ({"frame_skip_pool": "max"}, "frame_skip_pool='max': needs two frames to take the largest of; give a frame_skip of"),
        ({"layout": "NCHW"}, "layout: expected auto, HWC, HW, CHW, THW, HWT, THWC or TCHW, got 'NCHW'"),
        ({"reset_options": "offset=4"}, "reset_options='offset=4': is not JSON such as '{\"randomize\": false}': "),
        ({"reset_options": "[4]"}, "reset_options='[4]': is not JSON such as "),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        counter(tmp_path, **settings)
    assert str(caught.value).startswith(text)
