"""Gymnasium's car, whose wheels turn, grip and slip by the same arithmetic, in the numbers of Python and with fewer calls.

Gymnasium computes each wheel with functions of NumPy, which take longer than the arithmetic, and asks Box2D for each vector
several times. Products, sums and square roots of IEEE 754 are the same in both, so the car moves the same to the last bit.
"""

import hashlib
import inspect
from math import sqrt
from typing import Any

from gymnasium.envs.box2d.car_dynamics import (
    ENGINE_POWER,
    FRICTION_LIMIT,
    SIZE,
    WHEEL_MOMENT_OF_INERTIA,
    Car,
)

KNOWN_PHYSICS = "f07463dc0fef93e738d1ae27878f4f3a76a3fe4751f021ef4b032e2829f12823"
"""SHA-256 of the source of Gymnasium's `Car` whose arithmetic this is: that of 1.4.0."""

GRASS_GRIP = FRICTION_LIMIT * 0.6
STIFFNESS = 205000 * SIZE * SIZE
MOST_GAS_MORE = 0.1
BRAKE_TORQUE = 15
BLOCKING_BRAKE = 0.9


class FastCar(Car):
    """The car of an environment that has been reset becomes one by `make_fast`."""

    def gas(self, gas: float) -> None:
        """Gas for the rear wheels, cut to 0 to 1. It increases by at most 0.1 a step."""
        gas = min(max(float(gas), 0.0), 1.0)
        for wheel in self.wheels[2:4]:
            before = wheel.gas
            wheel.gas = before + min(gas - before, MOST_GAS_MORE)

    def step(self, dt: float) -> None:
        """Turn the wheels for `dt` seconds, and push the car with the forces that they have on the ground."""
        for wheel in self.wheels:
            self._step_wheel(wheel, dt)

    def _step_wheel(self, wheel: Any, dt: float) -> None:
        joint = wheel.joint
        turn = float(wheel.steer) - joint.angle
        joint.motorSpeed = _sign(turn) * min(50.0 * abs(turn), 3.0)

        grip = GRASS_GRIP
        for tile in wheel.tiles:
            grip = max(grip, FRICTION_LIMIT * tile.road_friction)
        rotation, velocity = wheel.transform.q, wheel.linearVelocity
        sin, cos, x, y = rotation.s, rotation.c, velocity.x, velocity.y
        omega = self._driven(wheel, dt)
        wheel.phase += omega * dt

        # the ground's force against slipping, forwards and sideways
        along = (omega * wheel.wheel_rad - (cos * y - sin * x)) * STIFFNESS
        across = -(cos * x + sin * y) * STIFFNESS
        force = sqrt(along * along + across * across)
        self._skid(wheel, force, grip)
        if force > grip:
            along, across = along / force * grip, across / force * grip
        wheel.omega = omega - dt * along * wheel.wheel_rad / WHEEL_MOMENT_OF_INERTIA
        wheel.ApplyForceToCenter((across * cos - along * sin, across * sin + along * cos), True)

    def _driven(self, wheel: Any, dt: float) -> float:
        """The wheel's speed in rad/s after the engine and the brake."""
        gas, brake, omega = float(wheel.gas), float(wheel.brake), wheel.omega
        omega += dt * ENGINE_POWER * gas / WHEEL_MOMENT_OF_INERTIA / (abs(omega) + 5.0)
        self.fuel_spent += dt * ENGINE_POWER * gas
        if brake >= BLOCKING_BRAKE:
            return 0.0
        if brake > 0:
            omega -= _sign(omega) * min(BRAKE_TORQUE * brake, abs(omega))
        return omega

    def _skid(self, wheel: Any, force: float, grip: float) -> None:
        """Begin, lengthen or end the wheel's trace, which `render()` shows."""
        if not force > 2.0 * grip:
            wheel.skid_start = wheel.skid_particle = None
            return
        grass, trace = not wheel.tiles, wheel.skid_particle
        if trace and trace.grass == grass and len(trace.poly) < 30:
            trace.poly.append((wheel.position.x, wheel.position.y))
        elif wheel.skid_start is None:
            wheel.skid_start = wheel.position
        else:
            wheel.skid_particle = self._create_particle(wheel.skid_start, wheel.position, grass)
            wheel.skid_start = None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _source(code: Any) -> str:
    return hashlib.sha256(inspect.getsource(code).encode()).hexdigest()


_IS_KNOWN = _source(Car) == KNOWN_PHYSICS


def make_fast(car: Car) -> None:
    """Let Gymnasium's own car, as it stands, go on as a `FastCar`; a car of another class or release stays what it is."""
    if _IS_KNOWN and type(car) is Car:
        car.__class__ = FastCar
