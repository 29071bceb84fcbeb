"""What is recorded is what the environment showed, whoever writes into the arrays afterwards."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import tests.collection.kept_views  # noqa: F401  registers the world
from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.records import Episode
from worldmodel_v.sources import Recorder
from worldmodel_v.storage import open_dataset

COUNTED = {"episodes": 0}


def episodes(out: Path, *, rude: bool, rude_policy: bool, wrap: tuple[str, ...] = (), workers: int = 0) -> list[Episode]:
    settings: dict[str, Any] = {
        "env": "tests.collection.kept_views:tests/OneBuffer-v0",
        "env_kwargs": json.dumps({"rude": rude, "counted": COUNTED}),
        "policy": f"tests.collection.kept_views:Drift(rude={int(rude_policy)})",
        **{"record": ("info.steps",), "wrap": wrap, "frame_size": 16, "episodes": 4, "episodes_per_shard": 2},
    }
    collect(stamp_config(out, **settings, workers=workers))
    dataset = open_dataset(out)
    assert dataset.spec.env_kwargs["counted"] == COUNTED
    return [dataset.episode(number) for number in range(dataset.num_episodes)]


def require_same(found: list[Episode], expected: list[Episode]) -> None:
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        for name, column in other.columns.items():
            np.testing.assert_array_equal(one.columns[name], column, err_msg=name)


RUDE = {
    "the environment": {"rude": True, "rude_policy": False},
    "the policy": {"rude": False, "rude_policy": True},
    "a wrapper": {"rude": False, "rude_policy": False, "wrap": ("tests.collection.kept_views:Smudging",)},
    "all": {"rude": True, "rude_policy": True, "wrap": ("tests.collection.kept_views:Smudging",)},
}


@pytest.mark.parametrize("who", RUDE)
def test_who_writes_into_what_was_shown_changes_no_record(tmp_path: Path, who: str) -> None:
    require_same(episodes(tmp_path / "rude", **RUDE[who]), episodes(tmp_path / "polite", rude=False, rude_policy=False))


@pytest.mark.usefixtures("local_ray")
def test_nor_in_workers(tmp_path: Path) -> None:
    found = episodes(tmp_path / "rude", **RUDE["all"], workers=2)
    require_same(found, episodes(tmp_path / "polite", rude=False, rude_policy=False))


def by_hand(out: Path, *, rude: bool) -> Episode:
    env = gymnasium.make("tests/OneBuffer-v0", disable_env_checker=True, rude=rude, counted=dict(COUNTED))
    with Recorder(env, out, frame_size=16, record=("info.steps",)) as recorder:
        action = np.zeros(2, np.float32)
        frame, _ = recorder.reset()
        ended = False
        while not ended:
            if rude:
                frame[:] = 0
            action += np.float32(0.1)
            frame, _, terminated, truncated, _ = recorder.step(action)
            ended = terminated or truncated
    dataset = open_dataset(out)
    assert dataset.spec.env_kwargs["counted"] == COUNTED
    return dataset.episode(0)


def test_nor_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    found, expected = by_hand(tmp_path / "rude", rude=True), by_hand(tmp_path / "polite", rude=False)
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column, err_msg=name)
