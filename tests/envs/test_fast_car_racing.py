"""``FastCarRacing`` against Gymnasium's ``CarRacing``, with ``==``."""

from __future__ import annotations

import copy
import math
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import gymnasium as gym
import numpy as np
import pygame
import pytest
from gymnasium.envs.box2d.car_dynamics import Car
from gymnasium.envs.box2d.car_racing import PLAYFIELD, CarRacing
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit

from worldmodel_v.collection import CollectConfig
from worldmodel_v.collection.collector import resolve_spec
from worldmodel_v.envs.fast_car_racing import FastCarRacing, kernels, warm_up
from worldmodel_v.envs.fast_car_racing.car import FastCar, make_fast
from worldmodel_v.records import Episode
from worldmodel_v.sources.gym import rollout

Policy = Callable[[CarRacing], np.ndarray | int]
LOOK_AHEAD = 6  # tiles
TURN_SPEED, STRAIGHT_SPEED = 30.0, 55.0


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    warm_up()


def follow_track(env: CarRacing) -> np.ndarray:
    """Drive a whole lap: steer for a point ahead, slow down when it is aside."""
    x, y = env.car.hull.position
    points = np.array(env.track)[:, 2:4]
    nearest = int(((points - (x, y)) ** 2).sum(axis=1).argmin())
    goal_x, goal_y = points[(nearest + LOOK_AHEAD) % len(points)]
    aside = math.atan2(x - goal_x, goal_y - y) - env.car.hull.angle
    aside = (aside + math.pi) % (2 * math.pi) - math.pi
    speed = math.hypot(*env.car.hull.linearVelocity)
    wanted = STRAIGHT_SPEED if abs(aside) < 0.2 else TURN_SPEED
    gas, brake = 0.6 * (speed < wanted), 0.3 * (speed > wanted + 10)
    return np.array([np.clip(-1.2 * aside, -1, 1), gas, brake], dtype=np.float32)


def at_random(seed: int) -> Policy:
    rng = np.random.default_rng(seed)
    return lambda env: rng.uniform([-1, 0, 0], 1).astype(np.float32)


def brownian(seed: int) -> Policy:
    rng = np.random.default_rng(seed)
    action = np.zeros(3)

    def policy(env: CarRacing) -> np.ndarray:
        action[:] = np.clip(action + rng.normal(0, 0.2, 3), [-1, 0, 0], 1)
        return action.astype(np.float32)

    return policy


def northwards(env: CarRacing) -> np.ndarray:
    """Off the road, over the grass and off the field."""
    gas = 0.3 * (math.hypot(*env.car.hull.linearVelocity) < 80)
    return np.array([np.clip(env.car.hull.angle, -1, 1), gas, 0], dtype=np.float32)


def by_buttons(seed: int) -> Policy:
    rng = np.random.default_rng(seed)
    return lambda env: int(rng.choice(5, p=[0.1, 0.2, 0.2, 0.4, 0.1]))


def assert_same_frame(frame: np.ndarray, expected: np.ndarray, where: str) -> None:
    assert (frame.dtype, frame.shape) == (expected.dtype, expected.shape)
    differing = int((frame != expected).sum())
    assert differing == 0, f"{differing} values differ at {where}"


def assert_same_motion(slow: CarRacing, fast: CarRacing) -> None:
    """All that the next step depends on, to the last bit."""
    assert fast.car.fuel_spent == slow.car.fuel_spent
    for body, expected in zip(fast.car.drawlist, slow.car.drawlist, strict=True):
        assert tuple(body.position) == tuple(expected.position)
        assert tuple(body.linearVelocity) == tuple(expected.linearVelocity)
        assert body.angle == expected.angle
        assert body.angularVelocity == expected.angularVelocity
    for wheel, expected in zip(fast.car.wheels, slow.car.wheels, strict=True):
        assert (wheel.omega, wheel.phase, wheel.gas, wheel.brake, wheel.steer) == (
            expected.omega, expected.phase, expected.gas, expected.brake, expected.steer,
        )  # fmt: skip
    marks = [[(p.color, p.grass, p.poly) for p in env.car.particles] for env in (fast, slow)]
    assert marks[0] == marks[1]


def assert_same_episode(slow: CarRacing, fast: CarRacing, policy: Policy, steps: int, **reset: object) -> int:
    """Run both side by side; returns how many frames were compared."""
    expected, expected_info = slow.reset(**reset)
    frame, info = fast.reset(**reset)
    assert info == expected_info
    assert_same_frame(frame, expected, "reset")
    for step in range(steps):
        action = policy(slow)
        expected, *expected_rest = slow.step(action)
        frame, *rest = fast.step(action)
        assert_same_frame(frame, expected, f"step {step}")
        assert rest == expected_rest
        assert_same_motion(slow, fast)
        if rest[1]:
            return step + 2
    return steps + 1


@pytest.fixture
def pair() -> Iterator[Callable[..., tuple[CarRacing, CarRacing]]]:
    """A maker of the two environments, which closes them."""
    made: list[CarRacing] = []

    def make(**options: object) -> tuple[CarRacing, CarRacing]:
        made.extend((CarRacing(**options), FastCarRacing(**options)))
        return made[-2], made[-1]

    yield make
    for env in made:
        env.close()


def test_a_whole_lap(pair):
    slow, fast = pair()
    assert_same_episode(slow, fast, follow_track, 1100, seed=3)
    assert slow.tile_visited_count > 0.9 * len(slow.track)


def test_leaving_the_field(pair):
    slow, fast = pair()
    assert_same_episode(slow, fast, northwards, 800, seed=2)
    assert max(map(abs, slow.car.hull.position)) > PLAYFIELD  # so the end was compared


@pytest.mark.parametrize(("name", "seed"), [("random", 11), ("brownian", 12)])
def test_wandering(pair, name, seed):
    policy = {"random": at_random, "brownian": brownian}[name](seed)
    assert_same_episode(*pair(), policy, 250, seed=seed)


def test_actions_out_of_range(pair):
    rng = np.random.default_rng(5)
    wild = lambda env: rng.choice([-np.inf, -3.0, -0.0, 0.2, 0.89, 0.9, 1.5, np.inf], size=3)  # noqa: E731
    assert assert_same_episode(*pair(), wild, 200, seed=8) > 100


def test_a_car_of_ones_own_stays(pair):
    """Only Gymnasium's own car, in the release whose arithmetic is known, is made fast."""

    class OwnCar(Car):
        pass

    _, env = pair()
    env.reset(seed=0)
    assert type(env.car) is FastCar
    env.car.__class__ = OwnCar
    make_fast(env.car)
    assert type(env.car) is OwnCar


def test_buttons(pair):
    assert_same_episode(*pair(continuous=False), by_buttons(5), 250, seed=5)


def test_randomised_colours(pair):
    slow, fast = pair(domain_randomize=True)
    for seed, options in ((7, None), (None, {"randomize": False}), (None, {"randomize": True})):
        assert_same_episode(slow, fast, follow_track, 90, seed=seed, options=options)


def test_an_unseeded_reset_continues_the_stream(pair):
    slow, fast = pair()
    assert_same_episode(slow, fast, follow_track, 5, seed=9)
    assert_same_episode(slow, fast, follow_track, 5)


@pytest.mark.slow
def test_twenty_episodes(pair):
    frames = 0
    for seed in range(100, 120):
        policy = (follow_track, brownian(seed), northwards, at_random(seed))[seed % 4]
        slow, fast = pair(domain_randomize=seed % 3 == 0)
        frames += assert_same_episode(slow, fast, policy, 1000, seed=seed)
    assert frames == 16_141  # what the README says


@pytest.mark.parametrize("mode", ["human", "rgb_array", "state_pixels"])
def test_render_modes(pair, mode):
    slow, fast = pair(render_mode=mode)
    assert slow.render() == fast.render()  # before reset
    assert_same_episode(slow, fast, follow_track, 3, seed=4)
    expected, drawn = slow.render(), fast.render()
    assert np.array_equal(drawn, expected)


def test_render_without_a_mode_warns(pair):
    _, fast = pair()
    fast.spec = gym.spec("CarRacing-v3")
    fast.reset(seed=1)
    with pytest.warns(UserWarning, match="render"):
        assert fast.render() is None


def test_an_unknown_mode_is_refused(pair):
    _, fast = pair()
    fast.reset(seed=1)
    with pytest.raises(AssertionError):
        fast._render("no such mode")


def test_copies_have_the_arguments(pair):
    _, fast = pair(continuous=False, lap_complete_percent=0.5)
    fast.reset(seed=1)
    for twin in (pickle.loads(pickle.dumps(fast)), copy.deepcopy(fast)):
        assert type(twin) is FastCarRacing
        assert (twin.continuous, twin.lap_complete_percent) == (False, 0.5)
        assert np.array_equal(twin.reset(seed=1)[0], fast.reset(seed=1)[0])


def test_close_and_reuse(pair):
    slow, fast = pair(render_mode="human")
    assert_same_episode(slow, fast, follow_track, 2, seed=6)
    slow.close()
    fast.close()
    _, other = pair()
    frame, _ = other.reset(seed=6)
    assert frame.any()
    pygame.font.init()  # Gymnasium's needs it to go on, too
    slow, _ = pair()
    assert_same_frame(frame, slow.reset(seed=6)[0], "reset after close")


def test_scores_survive_pygame_quitting(pair):
    _, fast = pair()
    fast.reset(seed=1)
    for reward in (-4321.0, -4322.0):  # not drawn by any other test
        pygame.quit()
        fast.reward = reward
        assert fast._render("state_pixels").any()


@pytest.mark.parametrize("reward", [-100.4, -0.4, 0.0, 9.5, 921.7, math.nan, -math.inf])
def test_a_score_drawn_with_its_neighbours_is_the_one_drawn_alone(pair, reward):
    slow, fast = pair()
    for env in (slow, fast):
        env.reset(seed=1)
        env.reward = reward
    assert_same_frame(fast._render("state_pixels"), slow._render("state_pixels"), f"{reward}")


def test_two_at_once(pair):
    slow, first = pair()
    _, second = pair()
    second.reset(seed=8)
    first_frame, _ = first.reset(seed=3)
    for _ in range(20):
        second.step(follow_track(second))
    assert_same_frame(first_frame, slow.reset(seed=3)[0], "reset")
    action = follow_track(slow)
    assert_same_frame(first.step(action)[0], slow.step(action)[0], "step")


def test_check_env():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(gym.make("worldmodel_v/CarRacing-v3").unwrapped)


def complaint(env_id, misuse):
    """What an environment says to a misuse: its error's type and text, and its warnings."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(Exception) as caught:  # noqa: PT011  (which one is what is compared)
            misuse(env_id)
    texts = [str(caught.value), *(str(warning.message) for warning in warned)]
    return type(caught.value), [text.replace(env_id, "ID").replace("FastCarRacing", "CarRacing") for text in texts]


def started(env_id, **options):
    env = gym.make(env_id, **options)
    env.reset(seed=1)
    return env


@pytest.mark.parametrize(
    "misuse",
    [
        lambda env_id: gym.make(env_id, no_such_option=1),
        lambda env_id: gym.make(env_id, render_mode="telepathy", disable_env_checker=True).reset(seed=1)[0].shape[7],
        lambda env_id: started(env_id, lap_complete_percent="most").step(np.zeros(3, np.float32))[0].shape[7],
        lambda env_id: gym.make(env_id).step(np.zeros(3, np.float32)),
        lambda env_id: gym.make(env_id).reset(seed=-1),
        lambda env_id: started(env_id).step("left"),
        lambda env_id: started(env_id, continuous=False).step(7),
        lambda env_id: started(env_id, continuous=False).step(np.zeros(3, np.float32)),
    ],
    ids=["option", "render mode", "lap share", "unreset", "seed", "text", "no such button", "kind of action"],
)
def test_what_gymnasium_refuses_is_refused_the_same_way(misuse):
    assert complaint("worldmodel_v/CarRacing-v3", misuse) == complaint("CarRacing-v3", misuse)


def test_a_frame_is_not_overwritten_by_the_next(pair):
    _, fast = pair()
    frame, _ = fast.reset(seed=1)
    kept = frame.copy()
    fast.step(np.array([0, 1, 0], dtype=np.float32))
    assert np.array_equal(frame, kept)


def test_in_gymnasiums_wrappers():
    env = TimeLimit(FastCarRacing(), 3)
    env.reset(seed=1)
    assert [env.step(env.action_space.sample())[3] for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("value", [0, 1, 2, 77, 128, 255])
def test_the_filter_takes_two_from_a_uniform_surface(value):
    surface = pygame.Surface((kernels.SURFACE_W, kernels.SURFACE_H))
    surface.fill((value, value, value))
    shrunk = pygame.transform.smoothscale(surface, (kernels.FRAME_W, kernels.FRAME_H))
    assert (pygame.surfarray.array3d(shrunk) == max(value - 2, 0)).all()


@pytest.mark.parametrize("angle", [0.0, 1e-7, -1e-7, 0.3, -2.0, math.pi / 2, math.pi, -7.0, 40.0])
def test_rotation(angle):
    cos, sin = kernels.rotation(angle)
    expected = pygame.math.Vector2(3.0, 5.0).rotate_rad(angle)
    assert (cos * 3.0 - sin * 5.0, sin * 3.0 + cos * 5.0) == tuple(expected)


def test_the_filter_on_noise():
    """The cells' filter against pygame's, which sees the same rows flipped."""
    rng = np.random.default_rng(0)
    noise_WHC = rng.integers(0, 256, (kernels.SURFACE_W, kernels.SURFACE_H, 3), dtype=np.uint8)
    surface = pygame.surfarray.make_surface(noise_WHC)
    shrunk = pygame.transform.smoothscale(surface, (kernels.FRAME_W, kernels.FRAME_H))
    expected_HWC = pygame.surfarray.array3d(shrunk).transpose(1, 0, 2)
    pixels_WH = noise_WHC.astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], dtype=np.uint32)
    pixels_WH = pixels_WH[:, ::-1]
    frame = np.zeros(kernels.FRAME_H * kernels.FRAME_W, dtype=np.uint32)
    for band in range(kernels.FRAME_H):
        if band == kernels.PANEL_BAND:
            continue  # leaves out a row above the panel
        top, bottom = kernels.BAND_TOP[band], kernels.BAND_BOTTOM[band]
        canvas = np.full((kernels.SURFACE_W, kernels.ROWS), 0xFF_FF_FF, dtype=np.uint32)
        canvas[:, 1 : bottom - top + 2] = pixels_WH[:, top : bottom + 1]
        kernels.shrink_cells(canvas.reshape(-1), band, 0, kernels.FRAME_W, frame)
        row = frame.reshape(kernels.FRAME_H, kernels.FRAME_W)[band]
        channels = np.stack([row & 255, row >> 8 & 255, row >> 16 & 255], axis=-1)
        assert (channels == expected_HWC[band]).all()


def test_it_is_registered_with_gymnasiums_limits():
    spec, expected = gym.spec("worldmodel_v/CarRacing-v3"), gym.spec("CarRacing-v3")
    assert (spec.max_episode_steps, spec.reward_threshold) == (expected.max_episode_steps, expected.reward_threshold)
    env = gym.make("worldmodel_v/CarRacing-v3", continuous=False)
    assert type(env.unwrapped) is FastCarRacing
    assert (env.observation_space, env.action_space) == (
        gym.make("CarRacing-v3", continuous=False).observation_space,
        gym.spaces.Discrete(5),
    )
    env.close()


@pytest.mark.parametrize("policy", ["brownian", "random-start(driver(noise=0.3))"])
def test_a_collected_episode_is_the_one_of_gymnasiums_environment(policy):
    def played(env_id: str) -> Episode:
        config = CollectConfig(out=Path("unused"), env=env_id, policy=policy, max_steps=70, workers=0, seed=2)
        return rollout(resolve_spec(config), 0)

    fast, slow = played("worldmodel_v/CarRacing-v3"), played("CarRacing-v3")
    for name, column in slow.columns.items():
        assert np.array_equal(getattr(fast, name), column, equal_nan=column.dtype.kind == "f"), name
    assert fast.policy == slow.policy
