"""What the package knows about single worlds and cannot learn from the worlds themselves, all in one place.

This module does not need Gymnasium. Code that needs the running environment, such as reading the state behind a frame, is in
`worldmodel_v.envs.car_racing`.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The facts of one world."""

    sides: tuple[int, int]
    """Height and width of the picture that it gives to its agent."""

    crop: str
    """Which rows and columns of this picture are recorded, unless the user gives another crop."""

    zoom_rows: int
    """How many rows at an episode's start the camera needs to reach its place; these rows are also evaluated separately."""

    action_names: tuple[str, ...]
    """What the numbers of an action are."""

    state_names: tuple[str, ...]
    """The factors of its ground truth."""

    state_units: Mapping[str, str]
    """The units of those that have one, and of the speed."""


CAR_RACING = Profile(
    sides=(96, 96),
    crop="0:84,0:96",  # the paper's: the 84 rows above the indicator panel
    zoom_rows=50,
    action_names=("steering", "gas", "brake"),
    state_names=(
        *("position_x", "position_y", "angle", "velocity_x", "velocity_y", "angular_velocity", "steering_angle"),
        *("wheel_speed_front_left", "wheel_speed_front_right", "wheel_speed_rear_left", "wheel_speed_rear_right"),
        *("progress", "on_road"),
    ),
    state_units={
        **{"speed": "units/s", "velocity_x": "units/s", "velocity_y": "units/s", "angular_velocity": "rad/s"},
        **{"position_x": "units", "position_y": "units", "angle": "rad", "steering_angle": "rad"},
        **{f"wheel_speed_{wheel}": "rad/s" for wheel in ("front_left", "front_right", "rear_left", "rear_right")},
    },
)
"""Its state is position (world units), angle (radians), velocities (units/s, rad/s), steering angle (radians), wheel speeds
(rad/s), progress (share of the track's tiles visited) and on_road (share of the four wheels on the road)."""


def profile_of(env: str) -> Profile | None:
    """The profile of an environment by the name that a dataset records; None if it has none."""
    return CAR_RACING if "CarRacing" in env else None
