"""Several fast CarRacings at once against as many one by one, step by step."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import worldmodel_v.envs  # noqa: F401  (registers it)
from worldmodel_v.envs.fast_car_racing.vector import FastCarRacingVector

ENV_ID = "worldmodel_v/CarRacing-v3"
NUM, STEPS, LIMIT = 3, 30, 11


def made(**options: Any) -> VectorEnv:
    return gymnasium.make_vec(ENV_ID, num_envs=NUM, max_episode_steps=LIMIT, **options)


def actions_of(step: int, space: gymnasium.Space) -> np.ndarray:
    rng = np.random.default_rng(step)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return rng.integers(0, 5, NUM)
    return rng.uniform([-1, 0, 0], 1, (NUM, 3)).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"domain_randomize": True}, {"continuous": False}])
def test_each_is_what_it_is_alone(options: dict[str, Any]) -> None:
    together = made(autoreset_mode=AutoresetMode.DISABLED, **options)
    alone = [gymnasium.make(ENV_ID, max_episode_steps=LIMIT, **options) for _ in range(NUM)]
    frames, infos = together.reset(seed=7)
    expected = [env.reset(seed=7 + number) for number, env in enumerate(alone)]
    np.testing.assert_array_equal(frames, np.stack([frame for frame, _ in expected]))
    assert infos == {}
    for step in range(LIMIT):
        actions = actions_of(step, together.action_space)
        frames, rewards, terminated, truncated, _ = together.step(actions)
        each = [env.step(action) for env, action in zip(alone, actions, strict=True)]
        for found, wanted in zip((frames, rewards, terminated, truncated), zip(*each, strict=True), strict=False):
            np.testing.assert_array_equal(found, np.stack(wanted))
    assert truncated.all()
    mask = np.array([False, True, False])
    frames, _ = together.reset(seed=[1, 50, 1], options={"reset_mask": mask})
    np.testing.assert_array_equal(frames[1], alone[1].reset(seed=50)[0])
    np.testing.assert_array_equal(frames[::2], np.stack([each[0][0], each[2][0]]))
    for env in (together, *alone):
        env.close()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_ends_are_as_in_gymnasiums_vector(mode: AutoresetMode) -> None:
    ours = made(autoreset_mode=mode)
    theirs = made(vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})
    assert isinstance(ours, FastCarRacingVector)
    assert type(theirs) is SyncVectorEnv
    assert ours.metadata == theirs.metadata
    assert ours.metadata["autoreset_mode"] == mode
    for space in ("single_observation_space", "observation_space", "single_action_space", "action_space"):
        assert getattr(ours, space) == getattr(theirs, space)
    np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    num_ends = 0
    for step in range(STEPS):
        actions = actions_of(step, ours.action_space)
        (*found, infos), (*wanted, their_infos) = ours.step(actions), theirs.step(actions)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
        assert infos.keys() == their_infos.keys()
        for frame, other in zip(infos.get("final_obs", []), their_infos.get("final_obs", []), strict=True):
            np.testing.assert_array_equal(frame, other)
        num_ends += int(found[3].sum())
    assert num_ends == STEPS // (LIMIT + (mode == AutoresetMode.NEXT_STEP)) * NUM
    ours.close()
    theirs.close()


def test_observations_are_copies_unless_asked_otherwise() -> None:
    for copy in (True, False):
        env = made(copy=copy)
        first, _ = env.reset(seed=0)
        second, *_ = env.step(actions_of(0, env.action_space))
        assert np.shares_memory(first, second) is not copy
        env.close()


def test_its_spec_makes_it_again() -> None:
    env = gymnasium.make_vec(ENV_ID, num_envs=2)
    assert env.spec is not None
    again = gymnasium.make_vec(env.spec)
    assert isinstance(again, FastCarRacingVector)
    assert again.num_envs == 2
    np.testing.assert_array_equal(env.reset(seed=5)[0], again.reset(seed=5)[0])
    env.close()
    again.close()
