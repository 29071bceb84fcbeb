"""The recorded ground truth of the frames, as named columns that vary.

Legend: N frames, S factors.
"""

from dataclasses import dataclass

import numpy as np

from worldmodel_v.errors import ConfigError
from worldmodel_v.evaluation.sample import Sample

SPEED = "speed"
VELOCITY = ("velocity_x", "velocity_y")
ANGLE = "angle"
"""This factor is in radians and has no end: it is mapped to -π to π, and measured by its cosine and sine."""


@dataclass(frozen=True, kw_only=True)
class Factors:
    """Named ground truth of frames; every factor varies over them."""

    names: tuple[str, ...]

    values: np.ndarray
    """float64 (N, S)"""

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[:, self.names.index(name)]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __len__(self) -> int:
        return len(self.names)


def require_recorded(sample: Sample, asked: tuple[str, ...]) -> None:
    """Raise ConfigError if a requested factor is not recorded."""
    if unknown := [name for name in asked if name not in sample.state_names]:
        recorded = f"the state holds {', '.join(sample.state_names)}" if sample.state_names else "no state is recorded there"
        raise ConfigError(recorded, field="factors", got=unknown[0], remedy="name some of these, or leave it out")


def recorded_factors(sample: Sample, asked: tuple[str, ...]) -> tuple[Factors, list[str]]:
    """The requested factors of the recorded state (all if none is requested) that vary, and the names of those that do not."""
    names = asked or sample.state_names
    columns = sample.state[:, [sample.state_names.index(name) for name in names]].astype(np.float64)
    for column in np.flatnonzero(np.array(names) == ANGLE):
        columns[:, column] = np.angle(np.exp(1j * columns[:, column]))
    varies = [bool(np.isfinite(column).all() and np.ptp(column) > 0) for column in columns.T]
    kept = Factors(names=tuple(np.array(names)[varies].tolist()), values=columns[:, varies])
    return kept, [name for name, keep in zip(names, varies, strict=True) if not keep]


def without_end(name: str, values_N: np.ndarray) -> np.ndarray:
    """What is compared of a factor: of an angle its cosine and sine (N, 2), so that -π is next to π; else the values."""
    return np.column_stack([np.cos(values_N), np.sin(values_N)]) if name == ANGLE else values_N


def with_speed(factors: Factors) -> Factors:
    """Adds `speed`, the length of the velocity, if its components are recorded: a camera that turns with the car shows it."""
    if not all(name in factors for name in VELOCITY) or SPEED in factors:
        return factors
    speed = np.hypot(*(factors[name] for name in VELOCITY))
    if np.ptp(speed) == 0:
        return factors
    return Factors(names=(SPEED, *factors.names), values=np.column_stack([speed, factors.values]))
