"""What a dataset holds, as data: spaces of actions, fills, vectors, and schemas that a stranger may have written."""

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from tests.builders import action_space, made_latent_schema, made_rollout_schema, make_episode
from worldmodel_v.autoencoders.gaussian import gaussian_latents
from worldmodel_v.errors import ConfigError, EpisodeFailed
from worldmodel_v.schema import GZIP, ActionSpace, Column, Schema, latent_schema, rollout_schema, space_record

SPACES: dict[str, tuple[gymnasium.Space, str, tuple[int, ...], Any, int]] = {
    "box": (spaces.Box(-1, 1, (3,), np.float32), "continuous", (3,), "nan", 3),
    "box of two axes": (spaces.Box(-np.inf, np.inf, (2, 3), np.float64), "continuous", (6,), "nan", 6),
    "one number": (spaces.Box(0, 1, (), np.float32), "continuous", (1,), "nan", 1),
    "box of whole numbers": (spaces.Box(-4, 10, (2,), np.int32), "whole", (2,), -5, 2),
    "box of bytes": (spaces.Box(0, 255, (2,), np.uint8), "whole", (2,), -1, 2),
    "uneven box": (spaces.Box(np.array([0, -7]), np.array([1, 3]), (2,), np.int64), "whole", (2,), -8, 2),
    "discrete": (spaces.Discrete(5), "discrete", (), -1, 5),
    "discrete from below zero": (spaces.Discrete(3, start=-1), "discrete", (), -2, 3),
    "discrete from seven": (spaces.Discrete(3, start=7), "discrete", (), 6, 3),
    "multi-discrete": (spaces.MultiDiscrete([2, 3]), "discrete", (2,), -1, 5),
    "multi-discrete with starts": (spaces.MultiDiscrete([2, 3], start=[4, -1]), "discrete", (2,), -2, 5),
    "multi-binary": (spaces.MultiBinary(4), "whole", (4,), -1, 4),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_space_of_actions_is_known_by_its_record(name: str) -> None:
    space, kind, row_shape, fill, vector_size = SPACES[name]
    record = json.loads(json.dumps(space_record(space), allow_nan=False))
    actions = ActionSpace(record)
    assert (actions.kind, actions.row_shape, actions.fill, actions.vector_size) == (kind, row_shape, fill, vector_size)
    if kind != "continuous":
        assert fill < np.iinfo(space.dtype).min or not space.contains(np.full(space.shape, fill, space.dtype))


@pytest.mark.parametrize("name", SPACES)
def test_vectors_tell_every_action_from_every_other_and_from_none(name: str) -> None:
    space, kind, row_shape, _, vector_size = SPACES[name]
    actions, column = ActionSpace(space_record(space)), ActionSpace(space_record(space)).column()
    space.seed(0)
    rows = np.stack([np.asarray(space.sample()).reshape(row_shape) for _ in range(50)]).astype(column.dtype)
    vectors = actions.vectors(rows)
    assert (vectors.dtype, vectors.shape) == (np.float32, (50, vector_size))
    assert len(np.unique(vectors, axis=0)) == len(np.unique(rows, axis=0))
    if kind == "discrete":
        assert (vectors.sum(axis=1) == len(actions.choices)).all()
    nothing = np.full((1, *row_shape), column.fill_value, column.dtype)
    assert column.is_fill(nothing).all()
    assert not actions.vectors(nothing).any()


def test_choices_that_no_vector_holds_are_refused() -> None:
    for n in (10**6, 2**62):
        with pytest.raises(ConfigError, match=rf"one-hot actions of {n} choices: expected at most 65536$"):
            ActionSpace({"type": "Discrete", "dtype": "int64", "n": n, "start": 0}).vectors(np.zeros(3, np.int64))


BAD_SPACES: dict[str, object] = {
    "a text": {"type": "Text", "text": "Text(3)"},
    "nothing": {},
    "no actions": {"type": "Discrete", "dtype": "int64", "n": 0, "start": 0},
    "more than int64": {"type": "Discrete", "dtype": "int64", "n": 2**70, "start": 0},
    "the smallest start": {"type": "Discrete", "dtype": "int64", "n": 3, "start": -(2**63)},
    "a shape of texts": {"type": "Box", "dtype": "float32", "shape": ["a"], "low": 0, "high": 1},
    "a huge shape": {"type": "Box", "dtype": "int64", "shape": [10**9], "low": 0, "high": 1},
    "another shape of bounds": {"type": "Box", "dtype": "int64", "shape": [3], "low": [0, 0], "high": 1},
    "an unknown dtype": {"type": "Box", "dtype": "float3", "shape": [3], "low": 0, "high": 1},
    "deep bounds": {"type": "MultiDiscrete", "dtype": "int64", "nvec": [[2], 3], "start": 0},
}


@pytest.mark.parametrize("what", BAD_SPACES)
def test_a_record_that_is_no_space_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match=r"action|space|shape|dimension|inhomogeneous|broadcast"):
        ActionSpace(BAD_SPACES[what])  # type: ignore[arg-type]


@pytest.mark.parametrize("schema", [made_rollout_schema(num_factors=2), made_latent_schema(action_size=0)])
def test_a_schema_comes_back_from_its_json(schema: Schema) -> None:
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_latents_have_the_autoencoders_columns_in_the_place_of_the_frames() -> None:
    depth = Column(name="observation.depth", dtype="uint16", row_shape=(4, 4), role="extra")
    rollouts = rollout_schema(
        frame_shape=(8, 16), action_space=space_record(spaces.Discrete(2)), observation_space={}, extras=(depth,)
    )
    tokens = Column(name="tokens", dtype="int64", row_shape=(2, 4), role="latent")
    latents = latent_schema(rollouts, (tokens,))
    assert [column.name for column in latents.columns] == ["tokens", *(column.name for column in rollouts.columns[1:])]
    assert (rollouts.format, latents.format) == ("worldmodel_v/rollouts", "worldmodel_v/latents")
    with pytest.raises(ConfigError, match=r"the autoencoder calls a column 'observation.depth', which the rollouts have"):
        latent_schema(rollouts, (Column(name="observation.depth", dtype="int64", row_shape=(2,), role="latent"),))


@pytest.mark.parametrize("name", ["z", "next_z", "mask", "is_first"])
def test_a_column_of_the_name_of_a_part_of_the_windows_is_refused(name: str) -> None:
    column = Column(name=name, dtype="float32", row_shape=(), role="extra")
    rollouts = rollout_schema(
        frame_shape=(8, 16), action_space=space_record(spaces.Discrete(2)), observation_space={}, extras=(column,)
    )
    with pytest.raises(ConfigError, match=f"windows of these latents call a part '{name}', which the rollouts have"):
        latent_schema(rollouts, *gaussian_latents(4, "float32"))


def changed(**changes: object) -> Callable[[dict], None]:
    return lambda content: content["columns"][0].update(changes)


HOSTILE: dict[str, Callable[[dict], object]] = {
    "no columns": lambda content: content.update(columns=[]),
    "columns that are texts": lambda content: content.update(columns=["pixels"]),
    "a part too many": lambda content: content.update(more=1),
    "no action space": lambda content: content.pop("action_space"),
    "a name with a slash": changed(name="a/b"),
    "a name that a terminal obeys": changed(name="\x1b[2J"),
    "a name of the episode table": changed(name="ep_len"),
    "frames of another name": changed(name="frames"),
    "frames of floats": changed(dtype="float32"),
    "frames of four channels": changed(row_shape=[8, 8, 4]),
    "an object dtype": changed(dtype="object"),
    "a row of a terabyte": changed(row_shape=[2**20, 2**20, 3]),
    "a negative row": changed(row_shape=[-8, 8, 3]),
    "a row of truth values": changed(row_shape=[True, 8, 3]),
    "an unknown role": changed(role="observations"),
    "an unknown filter": changed(filters=["lzf"]),
    "frames under gzip": changed(filters=list(GZIP)),
    "a fill that is no number": changed(fill="zero"),
    "two frames": lambda content: content["columns"].append(dict(content["columns"][0], name="more")),
    "two rewards": lambda content: content["columns"].append(dict(content["columns"][2])),
    "another fill of the action": lambda content: content["columns"][1].update(fill=None),
    "a draw of what is not there": lambda content: content.update(
        draws=[{"name": "z", "distribution": "normal", "columns": ["mu", "logvar"]}]
    ),
    "seventy columns": lambda content: content["columns"].extend(
        dict(content["columns"][2], name=f"x{i}", role="extra") for i in range(70)
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_schema_that_no_dataset_has_is_refused(what: str) -> None:
    content = json.loads(json.dumps(made_rollout_schema(num_factors=2).to_json()))
    HOSTILE[what](content)
    with pytest.raises((ValueError, TypeError)):
        Schema.from_json(content)


def test_a_space_of_another_package_is_recorded_the_same_in_every_process() -> None:
    """As MiniGrid's MissionSpace, whose text has a function's address."""

    class MissionSpace(gymnasium.Space):
        def __repr__(self) -> str:
            return f"MissionSpace({object.__repr__(self)}, None)"

    record = space_record(MissionSpace())
    assert record == space_record(MissionSpace())
    assert record["text"].endswith("MissionSpace object>, None)")


@pytest.mark.parametrize("name", SPACES)
def test_a_space_of_a_class_of_its_own_is_recorded_as_what_it_extends(name: str) -> None:
    space = copy.deepcopy(SPACES[name][0])
    expected = space_record(space)
    space.__class__ = type("Named", (type(space),), {})
    assert space_record(space) == expected


def test_a_reward_that_nobody_recorded_is_nan_in_every_row() -> None:
    spaces = {"action_space": action_space(), "observation_space": action_space()}
    schema = rollout_schema(frame_shape=(8, 8), **spaces, has_reward=False)
    assert schema["reward"].absent
    assert Schema.from_json(schema.to_json()) == schema
    assert "absent" not in json.dumps(rollout_schema(frame_shape=(8, 8), **spaces).to_json())
    columns = {**make_episode().columns}
    nothing = dataclasses.replace(make_episode(), schema=schema, columns=columns | {"reward": np.full(6, np.nan, np.float32)})
    assert np.isnan(nothing.episode_return)
    with pytest.raises(EpisodeFailed, match="reward was never recorded, and a row has one"):
        dataclasses.replace(make_episode(), schema=schema)
    with pytest.raises(EpisodeFailed, match="reward is nan in row 0"):
        dataclasses.replace(nothing, schema=make_episode().schema)
    with pytest.raises(ValueError, match="column speed: only a reward may be absent"):
        Column(name="speed", dtype="float32", row_shape=(), role="extra", fill="nan", absent=True)
