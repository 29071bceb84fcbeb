"""What part of CarRacing the drivers of a dataset saw, by policy, from the recorded `state`."""

import itertools
import math
import re
from collections import defaultdict
from typing import Any

import numpy as np

from worldmodel_v.spec import Spec
from worldmodel_v.storage import Dataset

FACTORS = ("progress", "on_road", "velocity_x", "velocity_y", "angle")
_START_TILE = re.compile(r", tile=\d+")
"""The part of a policy's name that differs between random starts; the policy is the same."""

STANDSTILL = 1.0
"""Below this speed, in world units a second, a car counts as standing."""

SPINNING_ANGLE = math.pi / 4
SPINNING_SPEED = 5.0
"""A car spins when it moves faster than this in a direction more than `SPINNING_ANGLE` off its nose."""

FULL_LAP = 0.95
"""Share of the track's tiles that counts as a lap, as CarRacing's own `lap_complete_percent`."""

SPEED_EDGES = (0.0, 1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0)


def driving(dataset: Dataset[Spec]) -> list[dict[str, Any]]:
    """For each policy: its episodes, the mean share of tiles visited, the share of episodes that were full laps, the shares
    of frames off the road (fewer than two wheels on it), spinning and standing, and the share of frames in each range of
    speed. Empty without CarRacing's `state`."""
    seen: dict[str, list[np.ndarray]] = defaultdict(list)
    for _, shard in dataset.shards():
        if not set(FACTORS) <= set(shard.state_names):
            return []
        columns = [shard.state_names.index(name) for name in FACTORS]
        state = shard.rows("state")[:, columns]
        for policy, start, length in zip(shard.policies, shard.ep_offset, shard.ep_len, strict=True):
            seen[_START_TILE.sub("", policy)].append(state[start : start + length])
    return [{"policy": policy, **_summary(episodes)} for policy, episodes in sorted(seen.items())]


def _summary(episodes: list[np.ndarray]) -> dict[str, Any]:
    _progress, on_road, velocity_x, velocity_y, angle = np.concatenate(episodes).T
    speed = np.hypot(velocity_x, velocity_y)
    nose_x, nose_y = -np.sin(angle), np.cos(angle)
    spinning = (speed > SPINNING_SPEED) & (velocity_x * nose_x + velocity_y * nose_y < speed * math.cos(SPINNING_ANGLE))
    visited = np.array([episode[-1, 0] for episode in episodes])
    counts, _ = np.histogram(speed, bins=[*SPEED_EDGES, np.inf])
    ranges = [f"{low:g}-{high:g}" for low, high in itertools.pairwise(SPEED_EDGES)] + [f"over {SPEED_EDGES[-1]:g}"]
    return {
        "episodes": len(episodes),
        "tiles_visited": round(float(visited.mean()), 3),
        "full_laps": round(float((visited >= FULL_LAP).mean()), 3),
        "off_road": round(float((on_road < 0.5).mean()), 3),
        "spinning": round(float(spinning.mean()), 3),
        "standing": round(float((speed < STANDSTILL).mean()), 3),
        "frames_by_speed": dict(zip(ranges, (counts / len(speed)).round(3).tolist(), strict=True)),
    }
