"""What is special about a world and cannot be asked of the world itself: all of it that the package knows, in one place.

Nothing here needs Gymnasium. What needs the running environment, such as reading the state behind a frame, is in
`worldmodel_v.envs.car_racing`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The facts of one world."""

    sides: tuple[int, int]
    """Height and width of the picture that it gives to its agent."""

    crop: str
    """Which rows and columns of this picture are recorded, unless another crop is asked for."""

    zoom_rows: int
    """In how many rows from an episode's start the camera has not reached its place: they are also evaluated apart."""

    state_names: tuple[str, ...]
    """The factors of its ground truth."""


CAR_RACING = Profile(
    sides=(96, 96),
    crop="0:84,0:96",  # the paper's: the 84 rows above the indicator panel
    zoom_rows=50,
    state_names=(
        *("position_x", "position_y", "angle", "velocity_x", "velocity_y", "angular_velocity", "steering_angle"),
        *("wheel_speed_front_left", "wheel_speed_front_right", "wheel_speed_rear_left", "wheel_speed_rear_right"),
        *("progress", "on_road"),
    ),
)
"""Its state is position (world units), angle (radians), velocities (units/s, rad/s), steering angle (radians), wheel speeds
(rad/s), progress (share of the track's tiles visited) and on_road (share of the four wheels on the road)."""


def profile_of(env: str) -> Profile | None:
    """The profile of an environment by the name that a dataset records; None where nothing is special."""
    return CAR_RACING if "CarRacing" in env else None
