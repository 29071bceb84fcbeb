"""Which environments can be used, which are refused, and what CarRacing tells about itself."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, Text

from worldmodel_v.envs import STAMP_ENV_ID, ImageEnv, make_image_env
from worldmodel_v.envs.actions import require_inside
from worldmodel_v.envs.car_racing import car_racing_state
from worldmodel_v.envs.making import choose_image_env
from worldmodel_v.envs.options import EnvOptions
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.errors import EnvironmentNotUsable


class NumbersEnv(gymnasium.Env):
    """An environment of one step, with any spaces and no pictures."""

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, action_space: gymnasium.Space, observation_space: gymnasium.Space) -> None:
        self.action_space, self.observation_space = action_space, observation_space
        self.received: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.received.append(action)
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), 0.0, True, False, {}


IMAGE = Box(0, 255, (8, 6, 3), np.uint8)
NUMBERS = Box(-1, 1, (4,), np.float32)


@pytest.fixture
def numbers_id() -> Iterator[str]:
    """The id of NumbersEnv, registered for one test."""
    name = "worldmodel_v_tests/Numbers-v0"
    gymnasium.register(name, entry_point=NumbersEnv)
    yield name
    del gymnasium.registry[name]


@pytest.fixture
def car_racing() -> Iterator[ImageEnv]:
    """CarRacing after its reset."""
    env = make_image_env("CarRacing-v3", {})
    env.reset(3)
    yield env
    env.close()


class TestMaking:
    @pytest.mark.parametrize("env_id", ["NoSuchEnv-v0", "not an id", ""])
    def test_an_unknown_environment_is_refused_by_name(self, env_id: str) -> None:
        with pytest.raises(EnvironmentNotUsable) as caught:
            make_image_env(env_id, {})
        assert str(caught.value).startswith(f"environment {env_id!r}: cannot be built: ")
        assert str(caught.value).endswith("`python -m gymnasium.envs.registration` lists the registered ids")
        assert "\n" not in str(caught.value)

    def test_arguments_that_the_environment_does_not_take_are_refused(self) -> None:
        with pytest.raises(EnvironmentNotUsable, match=re.escape("cannot be built with {'wheels': 5}: TypeError: ")):
            make_image_env(STAMP_ENV_ID, {"wheels": 5})

    def test_an_id_behind_a_module_imports_the_module_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "module_of_a_user.py").write_text(
            "import gymnasium\ngymnasium.register('Mine-v0', entry_point='worldmodel_v.envs.stamp:StampEnv')\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        assert "Mine-v0" not in gymnasium.registry
        try:
            env = make_image_env("module_of_a_user:Mine-v0", {"size": 16})
            assert env.reset(0).shape == (16, 16, 3)
            env.close()
        finally:
            gymnasium.registry.pop("Mine-v0", None)

    def test_the_toy_environment_is_found_behind_its_module(self) -> None:
        env = make_image_env(f"worldmodel_v.envs.stamp:{STAMP_ENV_ID}", {})
        assert env.reset(0).shape == (64, 64, 3)

    def test_an_environment_without_images_is_refused(self, numbers_id: str) -> None:
        with pytest.raises(EnvironmentNotUsable) as caught:
            make_image_env(numbers_id, {"action_space": Discrete(2), "observation_space": NUMBERS})
        assert str(caught.value) == (
            f"{numbers_id}: gives no images: its observation is {NUMBERS} and its render modes are []; "
            "expected an image observation or the render mode rgb_array"
        )

    def test_no_render_modes_are_none(self) -> None:
        env = NumbersEnv(Discrete(2), NUMBERS)
        env.metadata = {"render_modes": None}
        with pytest.raises(EnvironmentNotUsable, match=r"world: gives no images: .* and its render modes are \[\]"):
            choose_image_env(env, "world", EnvOptions())

    @pytest.mark.parametrize(
        "space",
        [Box(0, 255, (8,), np.uint8), Box(0, 1, (2, 3), np.float32), Discrete(4)],
    )
    def test_an_observation_that_is_no_image_is_not_taken_for_one(self, numbers_id: str, space: gymnasium.Space) -> None:
        with pytest.raises(EnvironmentNotUsable, match="gives no images"):
            make_image_env(numbers_id, {"action_space": Discrete(2), "observation_space": space})

    @pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 3)])
    def test_an_image_observation_is_the_frame(self, numbers_id: str, shape: tuple[int, ...]) -> None:
        space = Box(0, 255, shape, np.uint8)
        env = make_image_env(numbers_id, {"action_space": Discrete(2), "observation_space": space})
        assert env.reset(0).shape == shape
        assert env.default_crop == "full"
        assert (env.state_names, env.state()) == ((), ())

    def test_actions_that_are_no_numbers_are_refused(self, numbers_id: str) -> None:
        with pytest.raises(EnvironmentNotUsable) as caught:
            make_image_env(numbers_id, {"action_space": Text(3), "observation_space": IMAGE})
        assert str(caught.value) == (
            f"{numbers_id}: actions of a space 'Text': expected Box, Discrete, MultiDiscrete or MultiBinary"
        )

    def test_an_environment_of_numbers_is_rendered(self) -> None:
        env = make_image_env("CartPole-v1", {})
        first = env.reset(1)
        assert (first.shape, first.dtype) == ((400, 600, 3), np.uint8)
        frame, reward, terminated, truncated = env.step(env.record_action(np.int64(1)))
        assert (frame.shape, reward, terminated, truncated) == ((400, 600, 3), 1.0, False, False)
        assert (frame != first).any()
        assert (env.state_names, env.state()) == ((), ())
        env.close()


class TestActions:
    def test_a_recorded_action_does_not_change_when_the_policy_uses_its_array_again(self, numbers_id: str) -> None:
        space = Box(-1, 1, (2,), np.float32)
        env = make_image_env(numbers_id, {"action_space": space, "observation_space": IMAGE})
        used_again = np.array([0.5, -0.5], np.float32)
        recorded = env.record_action(used_again)
        used_again[:] = 0
        assert recorded.tolist() == [0.5, -0.5]

    def test_the_environment_receives_the_recorded_action_in_its_own_dtype_and_shape(self, numbers_id: str) -> None:
        space = Box(-1, 1, (2, 1), np.float64)
        env = make_image_env(numbers_id, {"action_space": space, "observation_space": IMAGE})
        env.reset(0)
        recorded = env.record_action(np.array([[0.1], [0.7]]))
        assert recorded.dtype == np.float32
        assert recorded.shape == (2,)
        env.step(recorded)
        (received,) = env.gym.unwrapped.received
        assert received.dtype == np.float64
        np.testing.assert_array_equal(received, np.array([[0.1], [0.7]], np.float32).astype(np.float64))

    def test_a_discrete_action_is_recorded_as_an_int_and_received_as_the_spaces_integer(self, numbers_id: str) -> None:
        env = make_image_env(numbers_id, {"action_space": Discrete(3), "observation_space": IMAGE})
        env.reset(0)
        recorded = env.record_action(np.int64(2))
        assert type(recorded) is int
        env.step(recorded)
        (received,) = env.gym.unwrapped.received
        assert (type(received), received) == (np.int64, 2)

    @pytest.mark.parametrize("action", [0.0, [0.0], [[0.0, 0.0]], [0.0, 0.0, 0.0]])
    def test_an_action_of_another_shape_is_refused(self, action: Any) -> None:
        env = make_image_env(STAMP_ENV_ID, {})
        text = f"the policy's action has shape {np.shape(action)}, the action space (2,)"
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            env.record_action(action)

    @pytest.mark.parametrize(
        "action", [[0.5 + 1j, 0.0], ["0.5", "0"], np.zeros(2, "m8[s]"), (np.zeros(2), None), {"a": 1}, None, [None, 0.5]]
    )
    def test_what_holds_no_numbers_is_refused(self, action: Any) -> None:
        env = make_image_env(STAMP_ENV_ID, {})
        with pytest.raises(TypeError, match=r"^the policy's action is .*, expected numbers for Box"):
            env.record_action(action)

    @pytest.mark.parametrize("discrete", [False, True])
    def test_masked_values_are_no_action(self, discrete: bool) -> None:
        env = make_image_env(STAMP_ENV_ID, {"discrete": discrete})
        given = np.ma.array(1, mask=True) if discrete else np.ma.array([0.5, 0.5], mask=[False, True])
        with pytest.raises(TypeError, match=r"^the policy's action is .*, of which values are masked; fill them$"):
            env.record_action(given)

    def test_environments_of_old_gym_are_told_what_is_expected(self) -> None:
        old = StampEnv()
        old.reset = lambda **how: {"image": 1, "speed": 2}  # type: ignore[method-assign]
        with pytest.raises(TypeError, match=r"^its reset gives {'image': .* \(dict\), expected \(observation, info\) as"):
            ImageEnv(old).reset(0)
        env = ImageEnv(StampEnv())
        env.reset(0)
        env.gym.step = lambda action: (1, 0.0, False, {})  # type: ignore[method-assign, assignment, return-value]
        with pytest.raises(TypeError, match=r"^its step gives 4 parts, expected \(observation, reward, terminated, "):
            env.step(env.record_action([0.0, 0.0]))

    def test_a_bound_that_float32_rounds_is_received_within_the_space(self) -> None:
        space = Box(np.array([-0.4, 0.0]), np.array([0.1, 1e30]), dtype=np.float64)
        numbers = NumbersEnv(space, IMAGE)
        env = ImageEnv(numbers)
        for given in (space.low, space.high, np.array([-0.4, 0.5])):
            env.step(recorded := env.record_action(given))
            require_inside(space, env.actions, np.stack([recorded]))
            assert space.contains(numbers.received[-1])
            np.testing.assert_array_equal(numbers.received[-1], recorded.astype(np.float64))
            np.testing.assert_allclose(recorded[0], given[0], rtol=1e-6)
        with pytest.raises(ValueError, match="outside Box"):
            require_inside(space, env.actions, np.stack([env.record_action([0.1001, 0.0])]))


class ResetsItself(NumbersEnv):
    """Returns the next episode's first frame with an episode's last reward, as vector environments did before Gymnasium 1.0."""

    def __init__(self, first: int) -> None:
        super().__init__(Discrete(2), IMAGE)
        self.first = first

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        frames = [np.full(IMAGE.shape, value, np.uint8) for value in (self.first, 200)]
        return frames[0], 0.0, True, False, {"final_observation": frames[1]}


def test_the_next_episodes_first_frame_is_not_taken_for_the_final_one() -> None:
    ImageEnv(ResetsItself(first=200)).step(0)
    with pytest.raises(ValueError, match=r"info\['final_observation'\] is another observation than the one returned"):
        ImageEnv(ResetsItself(first=7)).step(0)


def named_state(env: ImageEnv) -> dict[str, float]:
    return dict(zip(env.state_names, env.state(), strict=True))


CAR_RACING_FACTORS = [
    "position_x",
    "position_y",
    "angle",
    "velocity_x",
    "velocity_y",
    "angular_velocity",
    "steering_angle",
    "wheel_speed_front_left",
    "wheel_speed_front_right",
    "wheel_speed_rear_left",
    "wheel_speed_rear_right",
    "progress",
    "on_road",
]


class TestCarRacing:
    def test_the_default_crop_is_the_rows_above_the_indicators(self, car_racing: ImageEnv) -> None:
        assert car_racing.default_crop == "0:84,0:96"
        assert car_racing.reset(3).shape == (96, 96, 3)

    def test_the_ground_truth_is_what_the_simulation_holds(self, car_racing: ImageEnv) -> None:
        for _ in range(60):
            car_racing.step(np.array([0.3, 1.0, 0.0], np.float32))
        world, state = car_racing.gym.unwrapped, named_state(car_racing)
        assert list(state) == CAR_RACING_FACTORS
        hull, wheels = world.car.hull, world.car.wheels
        assert (state["position_x"], state["position_y"]) == tuple(hull.position)
        assert (state["velocity_x"], state["velocity_y"]) == tuple(hull.linearVelocity)
        assert (state["angle"], state["angular_velocity"]) == (hull.angle, hull.angularVelocity)
        assert state["steering_angle"] == wheels[0].joint.angle
        assert [state[name] for name in CAR_RACING_FACTORS[7:11]] == [wheel.omega for wheel in wheels]
        assert state["progress"] == sum(tile.road_visited for tile in world.road) / len(world.road)
        assert state["on_road"] == sum(bool(wheel.tiles) for wheel in wheels) / 4

    def test_the_ground_truth_moves_as_the_car_is_driven(self, car_racing: ImageEnv) -> None:
        before = named_state(car_racing)
        for _ in range(60):
            car_racing.step(np.array([0.3, 1.0, 0.0], np.float32))
        after = named_state(car_racing)
        assert all(isinstance(value, float) for value in after.values())
        assert np.hypot(after["velocity_x"], after["velocity_y"]) > np.hypot(before["velocity_x"], before["velocity_y"]) + 1
        assert after["wheel_speed_rear_left"] > before["wheel_speed_rear_left"]
        assert after["steering_angle"] != 0.0
        assert after["progress"] > before["progress"]
        assert before["on_road"] == 1.0

    def test_the_wheels_are_named_by_where_they_are(self, car_racing: ImageEnv) -> None:
        world = car_racing.gym.unwrapped
        places = [world.car.hull.GetLocalPoint(wheel.position) for wheel in world.car.wheels]
        assert [("front" if y > 0 else "rear", "left" if x < 0 else "right") for x, y in places] == [
            ("front", "left"),
            ("front", "right"),
            ("rear", "left"),
            ("rear", "right"),
        ]

    def test_discrete_actions_are_had_by_its_own_argument(self) -> None:
        env = make_image_env("CarRacing-v3", {"continuous": False})
        assert env.action_space == Discrete(5)
        env.reset(3)
        frame, *_ = env.step(env.record_action(3))
        assert frame.shape == (96, 96, 3)
        assert list(env.state_names) == CAR_RACING_FACTORS
        env.close()

    def test_the_same_seed_and_actions_give_the_same_frames_rewards_and_ground_truth(self) -> None:
        def play() -> list[Any]:
            env = make_image_env("CarRacing-v3", {})
            rows = [(env.reset(5).tobytes(), env.state())]
            for step in range(10):
                frame, *outcome = env.step(np.array([0.1 * step - 0.5, 0.5, 0.0], np.float32))
                rows.append((frame.tobytes(), outcome, env.state()))
            env.close()
            return rows

        assert play() == play()


def test_the_toy_environments_ground_truth_is_read_from_it() -> None:
    env = make_image_env(STAMP_ENV_ID, {})
    env.reset(0)
    env.step(np.array([1.0, 0.0], np.float32))
    assert named_state(env) == env.gym.unwrapped.ground_truth()
    assert named_state(env)["step"] == 1.0


def test_the_state_of_car_racing_is_found_behind_wrappers(car_racing: ImageEnv) -> None:
    wrapped = ImageEnv(gymnasium.Wrapper(car_racing.gym))
    assert wrapped.state() == car_racing.state() == car_racing_state(car_racing.gym.unwrapped)


class Telling(gymnasium.Wrapper):
    """Knows something of the world around which it is."""

    def ground_truth(self) -> dict[str, float]:
        return {"seven": 7.0}


def test_a_wrapper_may_tell_the_ground_truth(car_racing: ImageEnv) -> None:
    for env in (NumbersEnv(Discrete(2), IMAGE), StampEnv(), car_racing.gym):
        wrapped = ImageEnv(gymnasium.Wrapper(Telling(env)))
        wrapped.reset(0)
        assert named_state(wrapped) == {"seven": 7.0}


def test_another_render_mode_is_not_replaced() -> None:
    with pytest.raises(EnvironmentNotUsable, match=r"^Pendulum-v1: the frames are those of render\(\) .* got human; leave"):
        make_image_env("Pendulum-v1", {"render_mode": "human"})
    make_image_env("Pendulum-v1", {"render_mode": "rgb_array"}).close()


def test_warnings_may_be_errors() -> None:
    program = "import worldmodel_v.envs"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)
