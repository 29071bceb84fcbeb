"""CarRacing's inside: the ground truth behind a frame, and the car put elsewhere on the track."""

import gymnasium
import numpy as np
from gymnasium.envs.box2d.car_dynamics import Car

WHEELS = ("front_left", "front_right", "rear_left", "rear_right")
"""The order of Gymnasium's `car.wheels`."""


def is_car_racing(env: gymnasium.Env) -> bool:
    """Whether an environment is Gymnasium's CarRacing, or derived from it."""
    return any(cls.__name__ == "CarRacing" and cls.__module__.startswith("gymnasium.") for cls in type(env.unwrapped).mro())


def car_racing_state(env: gymnasium.Env) -> dict[str, float]:
    """Position (world units), angle (radians), velocities (units/s, rad/s), steering angle (radians), wheel speeds (rad/s),
    progress (share of the track's tiles visited) and on_road (share of the four wheels on the road)."""
    world = env.unwrapped
    hull = world.car.hull
    wheels = world.car.wheels
    return {
        "position_x": hull.position.x,
        "position_y": hull.position.y,
        "angle": hull.angle,
        "velocity_x": hull.linearVelocity.x,
        "velocity_y": hull.linearVelocity.y,
        "angular_velocity": hull.angularVelocity,
        "steering_angle": wheels[0].joint.angle,
        **{f"wheel_speed_{name}": wheel.omega for name, wheel in zip(WHEELS, wheels, strict=True)},
        "progress": world.tile_visited_count / len(world.track),
        "on_road": float(np.mean([bool(wheel.tiles) for wheel in wheels])),
    }


def move_car_to_tile(env: gymnasium.Env, tile: int) -> np.ndarray:
    """Put a new car on a tile of the track, facing along it, right after a reset; returns the frame from there.

    The frame is uint8 (96, 96, 3). As Gymnasium's own reset does, physics run for one frame without an action, so that
    the wheels touch the road; the tiles they touch count as visited, as those of the start do.
    """
    world = env.unwrapped
    world.car.destroy()
    world.car = Car(world.world, *world.track[tile][1:4])
    return world.step(None)[0]
