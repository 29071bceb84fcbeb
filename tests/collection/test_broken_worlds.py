"""What an environment or a policy may not give: each is refused before anything is committed, by episode, seed and step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.collection.block import Block, block_collector
from worldmodel_v.collection.collector import resolve_spec
from worldmodel_v.envs import make_image_env
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.errors import EnvironmentNotUsable, EpisodeFailed, EpisodesSetAside
from worldmodel_v.policies import RandomPolicy
from worldmodel_v.sources import GymSource
from worldmodel_v.sources.gym import episode_seeds, rollout
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import open_dataset

BAD_STEP = 3
Step = tuple[Any, Any, Any, Any, dict]

STEPS: dict[str, tuple[Callable[[Step], tuple], str]] = {
    "NaN as reward": (lambda s: (s[0], np.nan, *s[2:]), "reward is nan in row 3"),
    "infinite reward": (lambda s: (s[0], -np.inf, *s[2:]), "reward is -inf in row 3"),
    "a reward beyond float32": (lambda s: (s[0], 1e300, *s[2:]), "reward is inf in row 3"),
    "a whole number that float32 rounds as reward": (
        lambda s: (s[0], 2**24 + 1, *s[2:]),
        "in step 3: ValueError: the reward is 16777217 (int), a whole number that float32 would round",
    ),
    "an array as reward": (
        lambda s: (s[0], np.array([1.0]), *s[2:]),
        "in step 3: TypeError: the reward: expected a number, got array([1.]) (ndarray)",
    ),
    "no reward": (
        lambda s: (s[0], None, *s[2:]),
        "in step 3: TypeError: the reward: expected a number, got None (NoneType)",
    ),
    "a text as reward": (
        lambda s: (s[0], "1.5", *s[2:]),
        "in step 3: TypeError: the reward: expected a number, got '1.5' (str)",
    ),
    "frames of another shape": (
        lambda s: (s[0][:32], *s[1:]),
        "in step 3: ValueError: the frame's shape changed from (64, 64, 3) to (32, 64, 3)",
    ),
    "frames in 0 to 1": (
        lambda s: (s[0] / np.float32(255), *s[1:]),
        "in step 3: ValueError: expected a uint8 frame, got float32",
    ),
    "frames beyond 255": (
        lambda s: (s[0].astype(np.int64) + 300, *s[1:]),
        "in step 3: ValueError: expected a uint8 frame, got int64",
    ),
    "NaN in frames": (lambda s: (s[0] * np.nan, *s[1:]), "in step 3: ValueError: expected a uint8 frame, got float64"),
    "masked frames": (
        lambda s: (np.ma.masked_less(s[0], 300), *s[1:]),
        "in step 3: ValueError: the frame has masked values",
    ),
    "no frame": (
        lambda s: (None, *s[1:]),
        "in step 3: ValueError: expected a uint8 frame, got NoneType, which is no NumPy array",
    ),
    "frames of four channels": (
        lambda s: (s[0][:, :, [0, 0, 0, 0]], *s[1:]),
        "in step 3: ValueError: expected a frame of shape (H, W), (H, W, 1) or (H, W, 3), got (64, 64, 4)",
    ),
    "a number as terminated": (
        lambda s: (s[0], s[1], 0, s[3], s[4]),
        "in step 3: TypeError: terminated: expected True or False, got 0 (int)",
    ),
    "a text as truncated": (
        lambda s: (*s[:3], "no", s[4]),
        "in step 3: TypeError: truncated: expected True or False, got 'no' (str)",
    ),
    "the four values of old Gym": (
        lambda s: (*s[:3], s[4]),
        "in step 3: TypeError: its step gives 4 parts, expected (observation, reward, ",
    ),
}

TRUTHS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another name": (
        lambda truth: {"stride" if name == "step" else name: value for name, value in truth.items()},
        "in step 3: ValueError: the ground truth's names changed from ['step', 'action_stamp', 'episode_stamp', "
        "'return_stamp'] to ['stride', 'action_stamp', 'episode_stamp', 'return_stamp']",
    ),
    "a name more": (
        lambda truth: truth | {"more": 1.0},
        "in step 3: ValueError: the ground truth's names changed from ['step'",
    ),
    "NaN": (lambda truth: truth | {"step": np.nan}, "state (step) is nan in row 3"),
    "a text": (
        lambda truth: truth | {"step": "3"},
        "in step 3: TypeError: the ground truth step: expected a number, got '3' (str)",
    ),
    "nothing": (
        lambda truth: truth | {"step": None},
        "in step 3: TypeError: the ground truth step: expected a number, got None",
    ),
    "a list": (
        lambda truth: list(truth),
        "in step 3: TypeError: the ground truth: expected a dict of numbers by name, got ['step',",
    ),
}


class BrokenStep(StampEnv):
    """The toy world, whose step 3 gives something else."""

    def __init__(self, what: str) -> None:
        super().__init__(length=6)
        self._change = STEPS[what][0]

    def step(self, action: Any) -> Any:
        given = super().step(action)
        return self._change(given) if self.stamps[0] == BAD_STEP + 1 else given


class BrokenTruth(StampEnv):
    """The toy world, whose ground truth is something else before step 3."""

    def __init__(self, what: str) -> None:
        super().__init__(length=6)
        self._change = TRUTHS[what][0]

    def ground_truth(self) -> Any:
        truth = super().ground_truth()
        return self._change(truth) if self.stamps[0] == BAD_STEP else truth


class Numbers(StampEnv):
    """The toy world with numbers as numpy and others give them."""

    def step(self, action: Any) -> Any:
        frame, reward, terminated, truncated, info = super().step(action)
        return frame, np.array(reward, np.float32), np.bool_(terminated), np.array(truncated), info

    def ground_truth(self) -> Any:
        return {name: np.int64(value) for name, value in reversed(super().ground_truth().items())}


class WrongFromTheStart(StampEnv):
    """A world whose first frame, or ground truth, is none."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def reset(self, **options: Any) -> Any:
        frame, info = super().reset(**options)
        return {"float": frame / 255, "small": frame[:8]}.get(self._what, frame), info

    def ground_truth(self) -> Any:
        return {"truth": [1.0], "number": {1: 1.0}, "line": {"a\nb": 1.0}}.get(self._what, {})


class Restless(StampEnv):
    """A world whose ground truth has a name more in some episodes."""

    def ground_truth(self) -> dict[str, float]:
        truth = super().ground_truth()
        return truth | {"more": 1.0} if truth["episode_stamp"] % 2 else truth


class WrongAction(RandomPolicy):
    """Acts as it should, but for step 3."""

    def __init__(self, env: gymnasium.Env, action: Any) -> None:
        super().__init__(env)
        self._action, self._acts = action, 0

    def act(self, frame: np.ndarray) -> Any:
        self._acts += 1
        return self._action if self._acts == BAD_STEP + 1 else super().act(frame)


ACTIONS: dict[str, tuple[bool, Any, str]] = {
    "beyond": (
        False,
        [0.5, 1.5],
        "the policy's action in step 3 is [0.5, 1.5], outside Box(-1.0, 1.0, (2,), float32); clip it",
    ),
    "below": (False, [-1.0001, 0], "the policy's action in step 3 is [-1.000100016593933, 0.0], outside Box(-1.0, 1.0, (2,)"),
    "nan": (False, [np.nan, 0], "in step 3: ValueError: cannot convert float NaN to integer"),
    "nan beside": (False, [0, np.nan], "the policy's action in step 3 is [0.0, nan], outside Box(-1.0, 1.0, (2,), float32)"),
    "short": (False, [0.5], "in step 3: ValueError: the policy's action has shape (1,), the action space (2,)"),
    "number beyond": (True, 5, "the policy's action in step 3 is 5, outside Discrete(5); clip it"),
    "negative number": (True, -1, "the policy's action in step 3 is -1, outside Discrete(5); clip it"),
    "fraction": (
        True,
        2.7,
        "in step 3: TypeError: the policy's action is 2.7 (float), expected a whole number for Discrete(5)",
    ),
    "an array": (True, np.array([2]), "in step 3: TypeError: the policy's action is array([2]) (ndarray), expected a whole"),
}


class Unable:
    """A policy that fails on its first frame, as a network for frames of another size."""

    def __init__(self, env: gymnasium.Env) -> None:
        pass

    def reset(self, rng: np.random.Generator) -> None:
        pass

    def act(self, frame: np.ndarray) -> None:
        raise ValueError(f"expected (96, 96, 3), got {frame.shape}")


def wrong_action(env: gymnasium.Env, number: float) -> WrongAction:
    """A policy that takes one of ACTIONS, by its number, since a policy's line holds numbers only."""
    return WrongAction(env, list(ACTIONS.values())[int(number)][1])


for world in (BrokenStep, BrokenTruth, Numbers, WrongFromTheStart, Restless):
    gymnasium.register(f"tests/{world.__name__}-v0", entry_point=world)


def require_refused(tmp_path: Path, text: str, **settings: Any) -> None:
    """No episode is committed, and each is named with its seed."""
    config = stamp_config(tmp_path / "out", **{"episodes": 1, **settings})
    with pytest.raises(EpisodesSetAside) as caught:
        collect(config)
    (episode,) = open_dataset(config.out).set_aside()
    assert text in episode.reason
    assert f"episode 0 (seed {episode.seed}, tried 4 times): {episode.reason}" in str(caught.value)
    assert open_dataset(config.out).num_episodes == 0
    assert list((config.out / "shards").iterdir()) == []


@pytest.mark.parametrize("what", STEPS)
def test_a_step_that_gives_something_else_fails_its_episode(tmp_path: Path, what: str) -> None:
    require_refused(tmp_path, STEPS[what][1], env="tests/BrokenStep-v0", env_kwargs=f'{{"what": "{what}"}}')


@pytest.mark.parametrize("what", TRUTHS)
def test_a_ground_truth_that_changes_fails_its_episode(tmp_path: Path, what: str) -> None:
    require_refused(tmp_path, TRUTHS[what][1], env="tests/BrokenTruth-v0", env_kwargs=f'{{"what": "{what}"}}')


@pytest.mark.parametrize("what", ACTIONS)
def test_an_action_outside_its_space_fails_its_episode(tmp_path: Path, what: str) -> None:
    is_discrete, _, text = ACTIONS[what]
    policy = f"tests.collection.test_broken_worlds:wrong_action(number={list(ACTIONS).index(what)})"
    kwargs = f'{{"discrete": {str(is_discrete).lower()}}}'
    require_refused(tmp_path, text, env_kwargs=kwargs, policy=policy)


def test_a_policy_that_cannot_act_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = stamp_config(tmp_path / "out", policy="tests.collection.test_broken_worlds:Unable")
    with pytest.raises(
        EnvironmentNotUsable, match=r"cannot begin an episode: ValueError: expected \(96, 96, 3\), got \(64, 64, 3\)"
    ):
        collect(config)
    assert not config.out.exists()


def test_numbers_of_a_library_are_numbers(tmp_path: Path) -> None:
    expected = rollout(resolve_spec(stamp_config(tmp_path)), 0)
    found = rollout(resolve_spec(stamp_config(tmp_path, env="tests/Numbers-v0")), 0)
    for name in ("pixels", "action", "reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)
    np.testing.assert_array_equal(found.state, expected.state[:, ::-1], strict=True)  # type: ignore[index]


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("float", "cannot begin an episode: ValueError: expected a uint8 frame, got float64"),
        ("small", "cannot begin an episode: ValueError: the frame has shape (8, 64, 3), the observation space (64, 64, 3)"),
        ("truth", "cannot begin an episode: TypeError: the ground truth: expected a dict of numbers by name, got [1.0] (list)"),
        ("number", "cannot begin an episode: ValueError: column state: a value cannot be called 1"),
        ("line", r"cannot begin an episode: ValueError: column state: a value cannot be called 'a\nb'"),
    ],
)
def test_what_is_wrong_from_the_start_is_refused_before_anything_is_written(tmp_path: Path, what: str, text: str) -> None:
    config = stamp_config(tmp_path / "out", env="tests/WrongFromTheStart-v0", env_kwargs=f'{{"what": "{what}"}}')
    with pytest.raises(EnvironmentNotUsable) as caught:
        collect(config)
    assert text in str(caught.value)
    assert not config.out.exists()


def test_an_episode_whose_ground_truth_has_other_names_than_the_first_fails(tmp_path: Path) -> None:
    spec = resolve_spec(stamp_config(tmp_path, env="tests/Restless-v0"))
    others = [episode for episode in range(8) if _has_other_names(spec, episode)]
    other, collect_block = others[0], block_collector(GymSource(spec))
    expected = (
        rf"episode {other} \(seed \d+\) of tests/Restless-v0: the environment's ground truth is \['step', .*\], in episode 0"
    )
    with pytest.raises(EpisodeFailed, match=expected):
        collect_block(Block(0, other, 1))
    config = stamp_config(tmp_path / "out", env="tests/Restless-v0", episodes_per_shard=1)
    with pytest.raises(EpisodesSetAside):
        collect(config)
    dataset = open_dataset(config.out)
    assert {entry.first_episode for entry in dataset.entries} == {*range(8)} - {*others} != {*range(8)}
    assert [note.episode for note in dataset.set_aside()] == others


def _has_other_names(spec: RolloutSpec, episode: int) -> bool:
    env = make_image_env(spec.env, spec.env_kwargs)
    env.reset(episode_seeds(spec.seed, episode)[0])
    return env.state_names != spec.schema.state_names
