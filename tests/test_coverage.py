"""What drivers saw, counted by hand."""

import dataclasses
from pathlib import Path

import numpy as np

from tests.builders import action_space, make_episode, rollout_spec
from worldmodel_v.coverage import driving
from worldmodel_v.records import Episode
from worldmodel_v.schema import rollout_schema
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset

NAMES = ("on_road", "progress", "velocity_x", "velocity_y", "angle")
SCHEMA = rollout_schema(frame_shape=(8, 8), action_space=action_space(), observation_space={}, state_names=NAMES)


def driven(episode_id: int, policy: str, rows: list[tuple[float, float, float, float]], angle: float = 0.0) -> Episode:
    episode = make_episode(episode_id=episode_id, num_steps=len(rows) - 1, num_factors=5)
    state = np.array([(*row, angle) for row in rows], dtype=np.float32)
    return dataclasses.replace(episode, schema=SCHEMA, policy=policy, columns={**episode.columns, "state": state})


def test_each_policy_is_counted_by_itself(tmp_path: Path) -> None:
    spec = rollout_spec(SCHEMA)
    fast = [(1.0, 0.1, 0.0, 0.5), (1.0, 0.2, 30.0, 40.0), (0.25, 0.3, 60.0, 0.0), (0.0, 0.5, 3.0, 4.0)]
    slow = [(1.0, 0.0, 0.0, 0.0), (0.5, 0.1, 0.0, 0.9)]
    episodes = [driven(0, "fast", fast), driven(1, "slow", slow), driven(2, "fast", fast[:2])]
    with DatasetWriter(tmp_path / "out", spec) as writer:
        writer.commit(0, build_shard(episodes, spec_hash=spec.hash))
    first, second = driving(open_dataset(tmp_path / "out"))
    assert {name: first[name] for name in ("policy", "episodes", "tiles_visited")} == {
        "policy": "fast",
        "episodes": 2,
        "tiles_visited": 0.35,
    }
    assert first["off_road"] == round(2 / 6, 3)
    assert first["standing"] == round(2 / 6, 3)
    assert first["spinning"] == round(1 / 6, 3)  # (60, 0) with the nose along y; (3, 4) is slow, (30, 40) 37 degrees off
    assert first["full_laps"] == 0.0
    assert first["frames_by_speed"] == {
        **dict.fromkeys(["10-20", "20-30", "30-40", "40-50"], 0.0),
        **{"0-1": round(2 / 6, 3), "1-10": round(1 / 6, 3), "50-60": round(2 / 6, 3), "over 60": round(1 / 6, 3)},
    }
    assert (second["policy"], second["standing"], second["off_road"]) == ("slow", 1.0, 0.0)


def test_laps_and_spins_are_told_by_progress_and_by_the_nose(tmp_path: Path) -> None:
    spec = rollout_spec(SCHEMA)
    eastward = [(1.0, 0.5, 20.0, 0.0), (1.0, 0.96, 20.0, 0.0)]
    east, west = -np.pi / 2, np.pi / 2
    episodes = [
        driven(0, "ahead", eastward, east),
        driven(1, "back", eastward, west),
        driven(2, "back", eastward[:1] * 2, east),
    ]
    with DatasetWriter(tmp_path / "out", spec) as writer:
        writer.commit(0, build_shard(episodes, spec_hash=spec.hash))
    ahead, back = driving(open_dataset(tmp_path / "out"))
    assert (ahead["spinning"], ahead["full_laps"]) == (0.0, 1.0)
    assert (back["spinning"], back["full_laps"]) == (0.5, 0.5)


def test_a_dataset_without_car_racings_state_has_no_driving(stamp_rollouts: Path) -> None:
    assert driving(open_dataset(stamp_rollouts)) == []
