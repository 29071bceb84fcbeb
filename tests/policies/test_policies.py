"""The policies that ship, and how one is found."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, Space
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.policies import POLICIES, BrownianPolicy, RandomPolicy, find_policy, make_policy, policy_weights
from worldmodel_v.storage import open_dataset

FRAME = np.zeros((8, 8, 3), np.uint8)
HERE = "tests.policies.test_policies"


class SpaceOnly(gymnasium.Env):
    """An environment of which only the action space is asked for."""

    def __init__(self, action_space: Space) -> None:
        self.action_space = action_space


class Constant:
    """A policy of a user."""

    def reset(self, rng: np.random.Generator) -> None:
        pass

    def act(self, frame: np.ndarray) -> Any:
        return 1


class WithoutAct:
    def reset(self, rng: np.random.Generator) -> None:
        pass


class WithoutReset:
    def act(self, frame: np.ndarray) -> Any:
        return 1


NOT_CALLABLE = 7


def make_constant(env: gymnasium.Env) -> Constant:
    return Constant()


def make_without_act(env: gymnasium.Env) -> WithoutAct:
    return WithoutAct()


def make_without_reset(env: gymnasium.Env) -> WithoutReset:
    return WithoutReset()


def make_nothing(env: gymnasium.Env) -> None:
    return None


def make_failure(env: gymnasium.Env) -> Constant:
    raise KeyError("no weights")


def make_refusal(env: gymnasium.Env) -> Constant:
    raise PolicyNotUsable("mine: needs a bounded Box")


CAR = Box(np.array([-1, 0, 0], np.float32), np.array([1, 1, 1], np.float32))


def actions(name: str, space: Space, seed: int, count: int) -> np.ndarray:
    policy = make_policy(name, SpaceOnly(space))
    policy.reset(np.random.default_rng(seed))
    return np.array([policy.act(FRAME) for _ in range(count)])


class TestBrownian:
    @settings(max_examples=20, deadline=None)
    @given(
        low=st.floats(-5, 0),
        width=st.floats(0.015625, 5),
        shape=st.sampled_from([(1,), (3,), (2, 2)]),
        seed=st.integers(0, 999),
    )
    def test_actions_stay_within_the_bounds(self, low: float, width: float, shape: tuple[int, ...], seed: int) -> None:
        space = Box(low, low + width, shape, np.float32)
        walk = actions("brownian", space, seed, 200)
        assert walk.shape == (200, *shape)
        assert (walk >= space.low).all()
        assert (walk <= space.high).all()

    def test_car_racings_bounds_are_met_in_every_component(self) -> None:
        walk = actions("brownian", CAR, 0, 2000)
        np.testing.assert_array_equal(walk.min(axis=0), CAR.low)
        np.testing.assert_array_equal(walk.max(axis=0), CAR.high)

    def test_a_step_has_mean_0_and_variance_one_fiftieth(self) -> None:
        count = 40_000
        steps = np.diff(actions("brownian", Box(-1e6, 1e6, (1,), np.float32), 0, count + 1), axis=0)
        assert steps.var() == pytest.approx(1 / 50, rel=5 * np.sqrt(2 / count))
        assert steps.mean() == pytest.approx(0, abs=5 * np.sqrt(1 / 50 / count))

    def test_steps_are_independent_of_each_other(self) -> None:
        steps = np.diff(actions("brownian", Box(-1e6, 1e6, (1,), np.float32), 1, 40_001), axis=0)[:, 0]
        assert abs(np.corrcoef(steps[:-1], steps[1:])[0, 1]) < 5 / np.sqrt(len(steps))

    def test_the_first_action_is_uniform_in_the_space(self) -> None:
        first = np.array([actions("brownian", CAR, seed, 1)[0] for seed in range(2000)])
        for component, low in enumerate(CAR.low):
            counts, _ = np.histogram(first[:, component], bins=4, range=(low, 1))
            assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)

    @pytest.mark.parametrize("space", [Discrete(3), Box(-np.inf, np.inf, (2,), np.float32), Box(0, np.inf, (2,), np.float32)])
    def test_a_space_that_is_no_bounded_box_is_refused(self, space: Space) -> None:
        text = f"policy brownian needs bounded continuous actions, this environment has {space}; use policy='random'"
        with pytest.raises(PolicyNotUsable, match=f"^{re.escape(text)}$"):
            make_policy("brownian", SpaceOnly(space))


class TestRandom:
    def test_every_discrete_action_is_chosen_equally_often(self) -> None:
        counts = np.bincount(actions("random", Discrete(5), 0, 5000), minlength=5)
        assert counts.shape == (5,)
        assert np.abs(counts - 1000).max() < 5 * np.sqrt(5000 * 0.2 * 0.8)

    def test_a_box_is_covered(self) -> None:
        chosen = actions("random", CAR, 0, 2000)
        assert all(CAR.contains(action) for action in chosen.astype(np.float32))
        np.testing.assert_allclose(chosen.mean(axis=0), (CAR.low + CAR.high) / 2, atol=0.07)


class Wavering(StampEnv):
    """Now and then takes another action than it is given, which it draws from its own space, seeded at its reset."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.action_space.seed(seed)
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        return super().step(self.action_space.sample() if self.stamps[0] % 2 else action)


class Legal(gymnasium.spaces.Discrete):
    """Draws from what the environment allows at the moment."""

    def __init__(self, env: Any) -> None:
        super().__init__(9)
        self.env = env

    def sample(self, *_: Any, **__: Any) -> Any:
        return self.env.legal


def test_a_space_that_asks_its_environment_is_told_what_is_there_now() -> None:
    env: Any = SimpleNamespace(legal=0)
    env.action_space = Legal(env)
    policy = RandomPolicy(env)
    policy.reset(np.random.default_rng(0))
    env.legal = 3
    assert policy.act(np.zeros(1)) == 3


gymnasium.register("tests/Wavering-v0", entry_point=Wavering)


def test_an_environment_that_draws_from_its_space_plays_again_without_the_random_policy(tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "out", env="tests/Wavering-v0", policy="random", episodes=1))
    recorded, env = open_dataset(tmp_path / "out").episode(0), gymnasium.make("tests/Wavering-v0")
    env.reset(seed=recorded.seed)
    assert [env.step(action)[1] for action in recorded.action[:-1]] == recorded.reward[:-1].tolist()


@pytest.mark.parametrize("name", ["random", "brownian"])
class TestSeeding:
    def test_the_same_generator_gives_the_same_actions(self, name: str) -> None:
        np.testing.assert_array_equal(actions(name, CAR, 3, 50), actions(name, CAR, 3, 50))

    def test_another_generator_gives_other_actions(self, name: str) -> None:
        assert (actions(name, CAR, 3, 50) != actions(name, CAR, 4, 50)).any()

    def test_a_reset_forgets_the_episode_before(self, name: str) -> None:
        policy = make_policy(name, SpaceOnly(CAR))
        policy.reset(np.random.default_rng(9))
        for _ in range(17):
            policy.act(FRAME)
        policy.reset(np.random.default_rng(3))
        np.testing.assert_array_equal([policy.act(FRAME) for _ in range(50)], actions(name, CAR, 3, 50))


class TestFinding:
    def test_the_policies_that_ship_are_found_by_name(self) -> None:
        assert list(POLICIES) == ["random", "brownian", "driver", "random-start", "mixture"]
        assert find_policy("random") is RandomPolicy
        assert find_policy("brownian") is BrownianPolicy

    def test_a_users_policy_is_found_by_module_and_factory(self) -> None:
        policy = make_policy(f"{HERE}:make_constant", SpaceOnly(CAR))
        assert type(policy).__name__ == "Constant"
        assert policy.act(FRAME) == 1

    @pytest.mark.parametrize("name", ["", "Random", "greedy"])
    def test_an_unknown_name_is_refused(self, name: str) -> None:
        known = "random, brownian, driver, random-start, mixture, checkpoint:MODULE:FACTORY:FILE, onnx:FILE, sb3:FILE"
        text = f"unknown policy {name!r}: expected one of {known}, or module:factory"
        with pytest.raises(PolicyNotUsable, match=f"^{re.escape(text)}$"):
            find_policy(name)

    def test_a_missing_module_is_refused(self) -> None:
        text = (
            "policy 'no_such_module:make' cannot be loaded: No module named 'no_such_module'; "
            "expected module:factory on the Python path"
        )
        with pytest.raises(PolicyNotUsable, match=f"^{re.escape(text)}$"):
            find_policy("no_such_module:make")

    def test_a_module_that_imports_what_is_not_installed_is_refused_by_that_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "policy_on_a_library.py").write_text("import no_such_library\n")
        monkeypatch.syspath_prepend(tmp_path)
        text = "cannot be loaded: policy_on_a_library imports no_such_library, which is not installed"
        with pytest.raises(PolicyNotUsable, match=text):
            find_policy("policy_on_a_library:make")

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("random-start", "policy random-start drives with one policy, as in random-start(driver); got 0"),
            ("mixture", "policy mixture needs policies with positive weights, as in mixture(4*driver, 1*random)"),
        ],
    )
    def test_a_policy_of_others_without_one_is_refused_with_an_example(self, name: str, text: str) -> None:
        with pytest.raises(PolicyNotUsable, match=f"^{re.escape(text)}$"):
            make_policy(name, SpaceOnly(CAR))

    def test_a_checkpoint_without_a_file_is_refused_by_its_form(self) -> None:
        with pytest.raises(PolicyNotUsable, match=r"^policy checkpoint:a:make: expected checkpoint:MODULE:FACTORY:FILE$"):
            policy_weights("checkpoint:a:make")

    @pytest.mark.parametrize("name", [f"{HERE}:no_such_factory", f"{HERE}:", ":make", ".relative:make", ":"])
    def test_a_missing_factory_or_module_name_is_refused(self, name: str) -> None:
        with pytest.raises(PolicyNotUsable, match=f"^policy {re.escape(repr(name))} cannot be loaded: "):
            find_policy(name)

    @pytest.mark.parametrize("content", ["raise RuntimeError('broken')", "def make(:", "1 / 0"])
    def test_a_module_that_fails_to_import_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
    ) -> None:
        (tmp_path / "broken_policy.py").write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(PolicyNotUsable, match=r"^policy 'broken_policy:make' cannot be loaded: "):
            find_policy("broken_policy:make")

    def test_a_factory_that_is_not_callable_is_refused(self) -> None:
        name = f"{HERE}:NOT_CALLABLE"
        text = f"policy {name!r}: NOT_CALLABLE is not callable; expected a factory(env) that returns a Policy"
        with pytest.raises(PolicyNotUsable, match=f"^{re.escape(text)}$"):
            find_policy(name)

    @pytest.mark.parametrize(
        ("factory", "made", "method"),
        [
            ("make_without_act", "WithoutAct", "act"),
            ("make_without_reset", "WithoutReset", "reset"),
            ("make_nothing", "NoneType", "reset"),
        ],
    )
    def test_a_policy_that_lacks_a_method_is_refused(self, factory: str, made: str, method: str) -> None:
        name = f"{HERE}:{factory}"
        text = f"policy {name!r}: {made} has no method {method}; see worldmodel_v.policies.Policy"
        with pytest.raises(PolicyNotUsable, match=f"^{re.escape(text)}$"):
            make_policy(name, SpaceOnly(CAR))

    def test_a_factory_that_fails_is_refused_with_its_error(self) -> None:
        with pytest.raises(PolicyNotUsable, match=r"make_failure' cannot be built: KeyError: 'no weights'$"):
            make_policy(f"{HERE}:make_failure", SpaceOnly(CAR))

    def test_a_factory_may_refuse_in_its_own_words(self) -> None:
        with pytest.raises(PolicyNotUsable, match=r"^mine: needs a bounded Box$"):
            make_policy(f"{HERE}:make_refusal", SpaceOnly(CAR))
