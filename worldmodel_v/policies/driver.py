"""`driver`: follows CarRacing's track from the environment's own state.

A random policy never leaves the start, so a VAE trained on it never sees the road ahead. This policy steers towards a point
some tiles ahead and slows down before curves. With Ornstein-Uhlenbeck noise on steering and pedals, it also drives over kerbs
and grass and comes back. It works on Gymnasium's environment and on its subclasses.
"""

import cmath
import math

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from worldmodel_v.envs.car_racing import is_car_racing
from worldmodel_v.errors import PolicyNotUsable

STEERING_GAIN = 1.2
SHARP_TURN = 0.2
"""From this angle to the point ahead on, in radians, the car drives at `curve_speed`."""

NOISE_MEMORY = 0.9
"""The share of the noise that is left after one step: a time constant of about 10 steps, a fifth of a second."""


class DriverPolicy:
    """Drives whole laps without noise; `noise` is the standard deviation of what is added to steering and gas."""

    def __init__(
        self, env: gymnasium.Env, *, speed: float = 50.0, curve_speed: float = 30.0, look_ahead: float = 6.0, noise: float = 0.0
    ) -> None:
        """`speed` and `curve_speed` in world units a second, `look_ahead` in tiles of the track."""
        if not is_car_racing(env) or not isinstance(env.action_space, Box):
            raise PolicyNotUsable(f"policy driver needs CarRacing with continuous actions, got {env.spec and env.spec.id}")
        if min(speed, curve_speed, look_ahead) <= 0 or noise < 0 or look_ahead != int(look_ahead):
            raise PolicyNotUsable(
                "policy driver: speed, curve_speed and look_ahead must be positive, look_ahead whole, noise at least 0"
            )
        self._world = env.unwrapped
        self._speed, self._curve_speed, self._look_ahead, self._noise = speed, curve_speed, int(look_ahead), noise

    def reset(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._disturbance = 0.0, 0.0
        self._track = [complex(x, y) for _, _, x, y in self._world.track]
        here = self._here()
        self._tile = min(range(len(self._track)), key=lambda tile: abs(self._track[tile] - here))

    def act(self, frame: np.ndarray) -> np.ndarray:
        here = self._here()
        self._follow(here)
        goal = self._track[(self._tile + self._look_ahead) % len(self._track)]
        hull = self._world.car.hull
        speed = hull.linearVelocity.length
        aside = _wrapped(cmath.phase((goal - here) / 1j) - hull.angle)
        wanted = self._speed if abs(aside) < SHARP_TURN else min(self._speed, self._curve_speed)
        gas, brake = 0.6 * (speed < wanted), 0.3 * (speed > wanted + 10)
        steering_noise, gas_noise = self._next_disturbance()
        steering = -STEERING_GAIN * aside + steering_noise
        action = (_clipped(steering, -1.0, 1.0), _clipped(gas + gas_noise, 0.0, 1.0), brake)
        return np.array(action, dtype=np.float32)

    def _here(self) -> complex:
        """The car's place as a complex number: a difference, a distance and a direction are one operation each."""
        position = self._world.car.hull.position
        return complex(position.x, position.y)

    def _follow(self, here: complex) -> None:
        """Go along the track from the last tile as long as the next one is nearer to the car.

        So it never jumps to a neighbouring piece of track, even one that is nearer to the car.
        """
        distance = abs(self._track[self._tile] - here)
        for step in (1, -1):
            while (further := abs(self._track[(self._tile + step) % len(self._track)] - here)) < distance:
                self._tile = (self._tile + step) % len(self._track)
                distance = further

    def _next_disturbance(self) -> tuple[float, float]:
        """One step of two stationary Ornstein-Uhlenbeck processes with standard deviation `noise`."""
        scale = self._noise * math.sqrt(1 - NOISE_MEMORY**2)
        steering, gas = (NOISE_MEMORY * value + scale * self._rng.standard_normal() for value in self._disturbance)
        self._disturbance = steering, gas
        return self._disturbance


def _clipped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _wrapped(angle: float) -> float:
    """The same angle between -π and π."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
