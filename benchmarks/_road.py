"""Where CarRacing's car is on the road: what a frame shows of the recorded state.

Legend: T rows, N tiles of the track, K variables.

The recorded position and angle are those of the world, which no frame shows, as the camera moves and turns with the car. So
they are turned into the car's place on its track, which the episode's seed makes again: how far it is from the middle of the
road, its direction relative to the road's, and by how much the road turns ahead. Steering angle, speed and yaw rate are as
recorded. Of the steering angle a frame shows two dark pixels, the front tyres; of speed and yaw rate it shows nothing.
"""

from functools import cache

import numpy as np

from worldmodel_v.envs import make_image_env
from worldmodel_v.profiles import CAR_RACING
from worldmodel_v.records import Episode

ROAD = ("offset", "heading", "turn ahead")
"""What most of a frame shows, and what dreams are judged by."""
NAMES = (*ROAD, "steering", "speed", "yaw rate")
HALF_WIDTH = 40 / 6
"""Of the road, in world units."""
AHEAD = 6
"""Tiles of 3.5 world units."""
MAX_OFFSET, MAX_HEADING = 2 * HALF_WIDTH, np.pi / 3


@cache
def track_of(env: str, seed: int) -> np.ndarray:
    """The direction, x and y of each tile: float64 (N, 3)."""
    world = make_image_env(env, {})
    world.reset(seed)
    return np.array([tile[1:4] for tile in world.gym.unwrapped.track])


def road_state(track_N3: np.ndarray, state_TS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The variables `NAMES`, float64 (T, K), and the rows in which the car is near the road and roughly along it, bool (T,).

    A car that drives backwards sees a road that leads the other way.
    """
    column = dict(zip(CAR_RACING.state_names, state_TS.T.astype(np.float64), strict=True))
    beta, x, y = track_N3.T
    tile = np.hypot(column["position_x"][:, None] - x, column["position_y"][:, None] - y).argmin(axis=1)
    backwards = np.cos(column["angle"] - beta[tile]) < 0
    direction = beta[tile] + np.pi * backwards
    offset = (column["position_x"] - x[tile]) * np.cos(direction) + (column["position_y"] - y[tile]) * np.sin(direction)
    ahead = (tile + np.where(backwards, -AHEAD, AHEAD)) % len(track_N3)
    heading, turn = wrapped(column["angle"] - direction), wrapped(beta[ahead] - beta[tile])
    speed = np.hypot(column["velocity_x"], column["velocity_y"])
    values = [offset, heading, turn, column["steering_angle"], speed, column["angular_velocity"]]
    near = (np.abs(offset) <= MAX_OFFSET) & (np.abs(heading) <= MAX_HEADING)
    near[: CAR_RACING.zoom_rows] = False
    return np.stack(values, axis=1), near


def road_of(env: str, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    """`road_state` of a recorded episode."""
    return road_state(track_of(env, episode.seed), episode.columns["state"])


def wrapped(angle: np.ndarray) -> np.ndarray:
    """In [-π, π)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
