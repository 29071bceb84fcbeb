"""`driver`: follows CarRacing's track from the environment's own state.

A random policy never leaves the start, so a VAE trained on it never sees the road ahead. This one steers for a point some
tiles ahead, slows down before curves, and with Ornstein-Uhlenbeck noise on steering and pedals strays over kerbs and grass
and comes back. Works on Gymnasium's environment and on every one derived from it.
"""

import math

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from worldmodel_v.envs.car_racing import is_car_racing
from worldmodel_v.errors import PolicyNotUsable

STEERING_GAIN = 1.2
SHARP_TURN = 0.2
"""The angle to the point ahead, in radians, from which on a curve is taken at `curve_speed`."""

NOISE_MEMORY = 0.9
"""How much of the noise is left after one step: a time constant of about 10 steps, a fifth of a second."""

SEARCH_TILES = 40


class DriverPolicy:
    """Drives whole laps without noise; `noise` is the standard deviation of what is added to steering and gas."""

    def __init__(
        self, env: gymnasium.Env, *, speed: float = 50.0, curve_speed: float = 30.0, look_ahead: float = 6.0, noise: float = 0.0
    ) -> None:
        """`speed` and `curve_speed` in world units a second, `look_ahead` in tiles of the track."""
        if not is_car_racing(env) or not isinstance(env.action_space, Box):
            raise PolicyNotUsable(f"policy driver needs CarRacing with continuous actions, got {env.spec and env.spec.id}")
        if min(speed, curve_speed, look_ahead) <= 0 or noise < 0:
            raise PolicyNotUsable("policy driver: speed, curve_speed and look_ahead must be positive, noise at least 0")
        self._world = env.unwrapped
        self._speed, self._curve_speed, self._look_ahead, self._noise = speed, curve_speed, int(look_ahead), noise

    def reset(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._disturbance = np.zeros(2)
        self._points = np.array(self._world.track)[:, 2:4]
        self._tile: int | None = None

    def act(self, frame: np.ndarray) -> np.ndarray:
        hull = self._world.car.hull
        x, y = hull.position
        goal_x, goal_y = self._points[(self._nearest_tile(x, y) + self._look_ahead) % len(self._points)]
        aside = _wrapped(math.atan2(x - goal_x, goal_y - y) - hull.angle)
        speed = math.hypot(*hull.linearVelocity)
        wanted = self._speed if abs(aside) < SHARP_TURN else min(self._speed, self._curve_speed)
        steering = -STEERING_GAIN * aside
        gas, brake = 0.6 * (speed < wanted), 0.3 * (speed > wanted + 10)
        steering_noise, gas_noise = self._next_disturbance()
        action = [np.clip(steering + steering_noise, -1, 1), np.clip(gas + gas_noise, 0, 1), brake]
        return np.array(action, dtype=np.float32)

    def _nearest_tile(self, x: float, y: float) -> int:
        """The tile beside the car; near the one before, so that a neighbouring piece of track is no short cut."""
        if self._tile is None:
            candidates = np.arange(len(self._points))
        else:
            candidates = (self._tile + np.arange(-SEARCH_TILES, SEARCH_TILES)) % len(self._points)
        distances = ((self._points[candidates] - (x, y)) ** 2).sum(axis=1)
        self._tile = int(candidates[distances.argmin()])
        return self._tile

    def _next_disturbance(self) -> np.ndarray:
        """One step of a stationary Ornstein-Uhlenbeck process with standard deviation `noise`."""
        fresh = self._rng.standard_normal(2) * self._noise * math.sqrt(1 - NOISE_MEMORY**2)
        self._disturbance = NOISE_MEMORY * self._disturbance + fresh
        return self._disturbance


def _wrapped(angle: float) -> float:
    """The same angle between -π and π."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
