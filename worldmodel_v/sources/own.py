"""A user's own source: episodes that no Gymnasium environment plays, such as a simulator with its own loop, or recordings.

Legend: T actions of an episode, H, W frame.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np

from worldmodel_v.code.origin import code_source, held_in_common
from worldmodel_v.envs.actions import require_inside
from worldmodel_v.envs.engines import engines, installed
from worldmodel_v.envs.image_env import require_truth
from worldmodel_v.envs.parts import OBSERVATION, extra_column
from worldmodel_v.envs.picture import plain_array
from worldmodel_v.errors import EnvironmentNotUsable, EpisodeFailed, one_line, retold, shown
from worldmodel_v.preprocessing import FULL, Preprocessing, require_trainable
from worldmodel_v.records import Episode, unchanged, without_loss
from worldmodel_v.schema import OWN_NAMES, Column, Schema, rollout_schema, space_record
from worldmodel_v.sources.base import episode_apart, episode_seeds
from worldmodel_v.spec import RolloutSpec, differences
from worldmodel_v.storage.layout import MAX_ROWS_PER_EPISODE
from worldmodel_v.untrusted import canonical_json, parse_object
from worldmodel_v.words import counted

ROWS = ("pixels", "action", "reward", "terminated", "truncated")


class EpisodeSource(ABC):
    """Subclass it, and give an object of the subclass to `worldmodel_v.collection.collect_source`.

    The object is sent to workers, so it must be picklable. Its class is in a module that they can import, or in the program
    itself.
    """

    name: str
    """The environment's name in the dataset."""

    action_space: gymnasium.Space
    """Where actions come from: Box, Discrete, MultiDiscrete or MultiBinary."""

    policy: str = "own"
    """The policy's name in the dataset."""

    state_names: tuple[str, ...] = ()
    """The names of the values of a row of `state`, if there is one."""

    settings: Mapping[str, Any] = MappingProxyType({})
    """What else determines the episodes, as JSON values. They are recorded, and a dataset is continued only with the same."""

    @abstractmethod
    def episode(self, number: int, rng: np.random.Generator) -> Mapping[str, Any]:
        """Episode `number`, from 0: a function of the number and the generator, which is seeded by it, and of the settings.

        `pixels` uint8 (T + 1, H, W, 3): each frame that was acted on, and the final one; `action` (T, …) of the action space;
        `reward` (T,); `terminated`, True if the last action ended it, False if it was cut there; `truncated` only if it was
        both; `state` float (T + 1, S) if there are names for it; and any further columns, as numbers (T + 1, …) of any shape
        and dtype.
        """


@dataclass(frozen=True)
class OwnSource:
    """An `EpisodeSource` as a `Source`."""

    source: EpisodeSource
    spec: RolloutSpec

    @classmethod
    def of(cls, source: EpisodeSource, *, seed: int, episodes_per_shard: int) -> "OwnSource":
        """Make episode 0, to know what the episodes hold; raises EnvironmentNotUsable if that fails, or ConfigError if
        no architecture trains on its frames."""
        name = type(source).__name__
        _require_source(source, name)
        with retold(lambda error: EnvironmentNotUsable(f"cannot make episode 0: {one_line(error)}", where=name)):
            with episode_apart(seed, 0):
                rows = _rows_of(source, 0, episode_seeds(seed, 0)[1])
            frames = _frames(rows)
            if taken := {*_extra_names(rows)} & {*OWN_NAMES}:
                raise ValueError(f"it gives {min(taken)!r}; datasets and windows of latents have something else of this name")
            extras = tuple(extra_column(name, [_array(name, rows[name])[0]]) for name in _extra_names(rows))
            schema = rollout_schema(
                frame_shape=(frames.shape[1], frames.shape[2]),
                action_space=space_record(source.action_space),
                observation_space={"type": "Box", "dtype": "uint8", "shape": [*frames.shape[1:]], "low": 0, "high": 255},
                state_names=tuple(source.state_names),
                extras=extras,
            )
        height, width = frames.shape[1:3]
        require_trainable(height, width, where=f"{type(source).__name__}: pixels of episode 0")
        preprocessing = Preprocessing(crop=FULL, frame_height=height, frame_width=width)
        spec = RolloutSpec(
            schema=schema,
            env=source.name,
            env_kwargs=copy.deepcopy(dict(source.settings)),
            policy=source.policy,
            seed=seed,
            max_steps=MAX_ROWS_PER_EPISODE - 1,
            **vars(preprocessing),
            episodes_per_shard=episodes_per_shard,
            frames=OBSERVATION,
            gymnasium=gymnasium.__version__,
            env_source=code_source(type(source)) | engines(source),
        )
        own = cls(source, spec)
        try:
            own._record(0, rows)
        except EpisodeFailed as error:
            raise EnvironmentNotUsable(str(error), where=type(source).__name__) from None
        return own

    def check(self) -> None:
        """Raise EnvironmentNotUsable if the class is another one here. One of `__main__` has come with its code."""
        asked = held_in_common(self.spec.env_source)
        here = installed(asked) | held_in_common(code_source(type(self.source)))
        if differing := differences({"env_source": here}, {"env_source": asked}):
            raise EnvironmentNotUsable("; ".join(differing), where=self.spec.env, remedy="install the same on every node")

    def episode(self, episode_id: int) -> Episode:
        """Let the source make it; raises EpisodeFailed, naming episode and seed, if it raises or breaks the contract."""
        seed, rng = episode_seeds(self.spec.seed, episode_id)
        with self._failures(episode_id, seed), episode_apart(self.spec.seed, episode_id):
            rows = _rows_of(self.source, episode_id, rng)
        return self._record(episode_id, rows)

    def beginning(self, episode_id: int, num_steps: int) -> Episode:
        """The whole episode, because only the source knows how to cut it."""
        return self.episode(episode_id)

    @property
    def repeats(self) -> bool:
        """False: nothing is known about a user's own source."""
        return False

    def _record(self, episode_id: int, rows: dict[str, Any]) -> Episode:
        seed = episode_seeds(self.spec.seed, episode_id)[0]
        with self._failures(episode_id, seed):
            columns = _columns(self.spec.schema, rows)
            require_inside(self.source.action_space, self.spec.schema.actions, columns["action"][:-1], whose="action")
        return Episode(schema=self.spec.schema, episode_id=episode_id, seed=seed, policy=self.spec.policy, columns=columns)

    def _failures(self, episode_id: int, seed: int) -> AbstractContextManager[None]:
        """Raises EpisodeFailed for what is raised in the block."""
        said = f"episode {episode_id} (seed {seed}) of {self.spec.env}"
        return retold(lambda error: EpisodeFailed(f"{said}: {one_line(error)}"))


def _require_source(source: Any, where: str) -> None:
    """Raise EnvironmentNotUsable unless it is a source, and what it says of itself can be recorded."""
    if not isinstance(source, EpisodeSource):
        raise EnvironmentNotUsable(where="collect_source", expected="an object of a subclass of EpisodeSource", got=where)
    for field in ("name", "policy"):
        text = getattr(source, field, None)
        if not isinstance(text, str) or not text or not text.isprintable():
            raise EnvironmentNotUsable(where=where, field=field, expected="a printable text", got=text)
    names = source.state_names
    if isinstance(names, str) or not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise EnvironmentNotUsable(where=where, field="state_names", expected="a list of texts", got=names)
    try:
        parse_object(canonical_json(dict(source.settings)))
    except (TypeError, ValueError, RecursionError) as error:
        raise EnvironmentNotUsable(f"are no JSON values: {error}", where=where, field="settings", got=source.settings) from None


def _rows_of(source: EpisodeSource, number: int, rng: np.random.Generator) -> dict[str, Any]:
    given = source.episode(number, rng)
    if not isinstance(given, Mapping):
        raise TypeError(f"its episode returns {shown(given)}, expected a dictionary of columns")
    if wrong := [name for name in given if not isinstance(name, str)]:
        raise TypeError(f"it gives {shown(wrong[0])}, which is no name of a column")
    return dict(given)


def _array(name: str, values: Any) -> np.ndarray:
    """A column as NumPy sees it; raises ValueError, naming it, if it has no rows."""
    try:
        array = np.asanyarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name}: no array can be made of it: {one_line(error)}") from None
    if not array.shape or not len(array):
        raise ValueError(f"{name}: expected rows, got {shown(values)}")
    return array


def _extra_names(rows: Mapping[str, Any]) -> list[str]:
    return [name for name in rows if name not in (*ROWS, "state")]


def _require_given(rows: Mapping[str, Any], names: Iterable[str]) -> None:
    if absent := [name for name in names if name not in rows]:
        raise ValueError(f"it gives no {', '.join(absent)}")


def _frames(rows: Mapping[str, Any]) -> np.ndarray:
    _require_given(rows, ("pixels",))
    frames = plain_array(np.asanyarray(rows["pixels"]))
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"pixels: expected uint8 (T + 1, H, W, 3), got {frames.dtype} {frames.shape}")
    return frames


def _columns(schema: Schema, given: dict[str, Any]) -> dict[str, np.ndarray]:
    """The columns of an episode, (T + 1, …) each, from what a source gives; raises ValueError if they do not fit."""
    _require_given(given, (column.name for column in schema.data_columns if column.role != "truncated"))
    given = {**given, "pixels": _frames(given)}
    terminated = require_truth("terminated", given.pop("terminated"))
    truncated = require_truth("truncated", given.pop("truncated", False)) or not terminated
    given = {name: _array(name, values) for name, values in given.items()}
    num_steps = len(given["action"])
    ended = np.zeros(num_steps + 1, np.bool_)
    ended[num_steps - 1] = True
    never = np.zeros_like(ended)
    given |= {"terminated": ended if terminated else never, "truncated": ended if truncated else never}
    for column in schema.data_columns:
        expected = num_steps if column.role in ("action", "reward") else num_steps + 1
        if (shape := given[column.name].shape)[0] != expected:
            actions = counted(num_steps, "action")
            raise ValueError(f"{column.name}: expected {expected} rows beside {actions}, got the shape {shape}")
    for column in schema.by_role("action", "reward"):
        rows = _exactly(column, given[column.name])
        if column.role == "action" and rows.shape[1:] == schema.actions.shape:
            rows = rows.reshape(len(rows), *column.row_shape)
        given[column.name] = np.concatenate([rows, np.full((1, *rows.shape[1:]), column.fill_value, column.dtype)])
    if unknown := given.keys() - {column.name for column in schema.data_columns}:
        raise ValueError(f"it gives {', '.join(sorted(unknown))}, which episode 0 does not have")
    return {column.name: _exactly(column, given[column.name]) for column in schema.data_columns}


def _exactly(column: Column, values: np.ndarray) -> np.ndarray:
    """Values in the dtype of their column: whole numbers never changed, nor further columns, whose dtype is that of episode 0;
    other floats rounded. Raises ValueError."""
    cast = unchanged(values, column.dtype) if column.role == "extra" else without_loss(values, column.dtype)
    if cast is None:
        raise ValueError(f"{column.name}: {values.dtype} values that {column.dtype} cannot hold")
    return cast
