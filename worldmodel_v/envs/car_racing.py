"""CarRacing's internals: the ground truth behind a frame, and how to move the car to another tile of the track."""

import warnings

import gymnasium
import numpy as np

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # as errors, they crash Box2D's native code
    from gymnasium.envs.box2d.car_dynamics import Car


def is_car_racing(env: gymnasium.Env) -> bool:
    """Whether an environment is Gymnasium's CarRacing or a subclass of it."""
    return any(cls.__name__ == "CarRacing" and cls.__module__.startswith("gymnasium.") for cls in type(env.unwrapped).mro())


def car_racing_state(world: gymnasium.Env) -> tuple[float, ...]:
    """The values of the profile's `state_names`; `world` is the environment without wrappers."""
    hull, wheels = world.car.hull, world.car.wheels
    position, velocity = hull.position, hull.linearVelocity
    return (
        position.x,
        position.y,
        hull.angle,
        velocity.x,
        velocity.y,
        hull.angularVelocity,
        wheels[0].joint.angle,
        *[wheel.omega for wheel in wheels],
        world.tile_visited_count / len(world.track),
        sum([bool(wheel.tiles) for wheel in wheels]) / len(wheels),
    )


def move_car_to_tile(env: gymnasium.Env, tile: int) -> np.ndarray:
    """Put a new car on a tile of the track, facing along it, right after a reset; returns the frame from there.

    The frame is uint8 (96, 96, 3). As in Gymnasium's own reset, physics run for one frame without an action, so that the
    wheels touch the road. The tiles that they touch count as visited, as at the usual start.
    """
    world = env.unwrapped
    world.car.destroy()
    world.car = Car(world.world, *world.track[tile][1:4])
    return world.step(None)[0]
