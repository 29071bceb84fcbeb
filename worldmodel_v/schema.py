"""What a dataset holds, as data: its columns, and the spaces of observation and action.

`dataset.json` holds the schema, which is part of the dataset's hash. Code asks for columns by role and checks shards against
the schema. So a new column needs no change in the writer, the reader, or the training.

Legend: an episode of T actions is T + 1 rows; A action size; n number of discrete actions; H, W frame; Z latent.
"""

import json
import math
import re
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from worldmodel_v.errors import ConfigError
from worldmodel_v.untrusted import is_name, require_types

Role = Literal["observation", "latent", "action", "reward", "terminated", "truncated", "state", "extra", "index"]
"""What a column is for. `observation`: the frames that a VAE learns from; `latent`: what an autoencoder made of them; `state`:
the environment's ground truth; `extra`: anything else that was recorded; `index`: the row's episode and its place there."""

Fill = int | Literal["nan"] | None

ROLLOUTS = "worldmodel_v/rollouts"
LATENTS = "worldmodel_v/latents"

ZSTD: tuple[str, ...] = ("zstd", "fletcher32")
GZIP: tuple[str, ...] = ("shuffle", "gzip", "fletcher32")
PLAIN: tuple[str, ...] = ("fletcher32",)
WINDOW_NAMES = ("mask", "is_first")
"""What windows of latents hold beside the columns."""

OWN_NAMES = (
    *("pixels", "action", "reward", "terminated", "truncated", "ep_idx", "step_idx"),
    *("mu", "logvar", "z", "next_z", "tokens", "next_tokens", *WINDOW_NAMES),
)
"""Names that no column of somebody else may have: those of every dataset, of this package's latents, and of their windows."""

DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
MAX_COLUMNS = 45
"""`ep_len` and `ep_offset` included. HDF5 keeps more names than these in a tree of several nodes, which the readers refuse."""

MAX_ROW_BYTES = 64 << 20
MAX_CHOICES = 1 << 16
MAX_ACTION_VALUES = 1 << 16
MAX_RECORDED_BOUNDS = 4096
"""A Box with more values than this, and with bounds that differ between them, is recorded without its bounds."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: an HDF5 dataset of every shard, with one value a row."""

    name: str

    dtype: str
    """One of `DTYPES`."""

    row_shape: tuple[int, ...]
    """The shape of one row: () for a number, (A,) for an action, (H, W, 3) for a frame."""

    role: Role

    fill: Fill = None
    """Marks a missing value: an episode's last action and reward, and the first row of what `reset` does not give. It is
    "nan", or a whole number outside of the space, so it is never a value; None if every row has a value."""

    parts: tuple[str, ...] = ()
    """The names of a row's values, if they have names: the state's factors."""

    num_values: int | None = None
    """For categories such as tokens: the values are 0 to num_values - 1. None for plain numbers."""

    absent: bool = False
    """Whether nobody recorded it, so that every row is the fill; only a reward may be absent, in imported data."""

    filters: tuple[str, ...] = GZIP
    """How chunks are stored, in the order in which the filters are applied."""

    @property
    def fill_value(self) -> float | int | None:
        return math.nan if self.fill == "nan" else self.fill

    @property
    def row_bytes(self) -> int:
        return math.prod(self.row_shape) * np.dtype(self.dtype).itemsize

    def is_fill(self, rows: np.ndarray) -> np.ndarray:
        """bool (N,): which rows hold only the fill."""
        if self.fill is None:
            return np.zeros(len(rows), np.bool_)
        same = np.isnan(rows) if self.fill == "nan" else rows == self.fill
        return same.reshape(len(rows), -1).all(axis=1)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name in ("ep_len", "ep_offset") or not is_name(self.name):
            raise ValueError(f"a column cannot be called {self.name!r:.100}")
        if wrong := [part for part in self.parts if not isinstance(part, str) or not is_name(part)]:
            raise ValueError(f"column {self.name}: a value cannot be called {wrong[0]!r:.100}")
        if self.dtype not in DTYPES:
            raise ValueError(f"column {self.name}: dtype {self.dtype!r:.100}, expected one of {', '.join(DTYPES)}")
        if self.role not in get_args(Role):
            raise ValueError(f"column {self.name}: role {self.role!r:.100}, expected one of {', '.join(get_args(Role))}")
        if any(size < 1 for size in self.row_shape) or self.row_bytes > MAX_ROW_BYTES:
            raise ValueError(f"column {self.name}: a row of shape {self.row_shape}, expected 1 to {MAX_ROW_BYTES} bytes")
        if self.filters not in (ZSTD, GZIP, PLAIN) or (self.filters == ZSTD) != (self.role == "observation"):
            raise ValueError(f"column {self.name}: filters {self.filters!r:.100} for a column of role {self.role}")
        if self.num_values is not None:
            largest = np.iinfo(self.dtype).max if np.dtype(self.dtype).kind in "iu" else 0
            if not 1 <= self.num_values <= largest + 1:
                raise ValueError(f"column {self.name}: {self.dtype} does not hold {self.num_values} different whole numbers")
        if self.absent and (self.role != "reward" or self.fill is None):
            raise ValueError(f"column {self.name}: only a reward may be absent")
        if self.fill == "nan" and np.dtype(self.dtype).kind != "f":
            raise ValueError(f"column {self.name}: NaN does not go into {self.dtype}")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A latent that is drawn again at every read, from the distribution that its columns describe."""

    name: str
    """Its name in windows: `z`."""

    distribution: Literal["normal"]
    """normal: N(mean, exp(logvar)), diagonal; `columns` are mean and logvar."""

    columns: tuple[str, ...]


class ActionSpace:
    """The action space, from its record (see `Schema.action_space`).

    `kind` is "continuous" (a Box of floats), "whole" (a Box of whole numbers, or MultiBinary: the values are quantities) or
    "discrete" (Discrete, MultiDiscrete: each value is a separate choice). Whole numbers lie between `low` and `high`, which are
    int64 of the action's shape.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        """Raises ValueError if a dataset cannot hold actions of this space."""
        try:
            self.kind, self.shape, self.low, self.high = _bounds(record)
        except OverflowError:
            raise ValueError(f"action space {record!r:.200}: whole numbers beyond int64 cannot be recorded") from None
        except KeyError as error:
            raise ValueError(f"action space {record!r:.200} has no {error}") from None
        except TypeError as error:
            raise ValueError(f"action space {record!r:.200}: {error}") from None
        self.record = record

    @property
    def row_shape(self) -> tuple[int, ...]:
        """() for one discrete action, else (A,)."""
        return () if self.kind == "discrete" and self.shape == () else (math.prod(self.shape),)

    @property
    def fill(self) -> Fill:
        """The value in an episode's last row: "nan", or one below the space's smallest number."""
        return "nan" if self.kind == "continuous" else int(self.low.min()) - 1

    @property
    def num_actions(self) -> int | None:
        """n of a single discrete action; None for all others."""
        return int(self.high - self.low) + 1 if self.kind == "discrete" and self.shape == () else None

    @property
    def vector_size(self) -> int:
        """How many values `vectors` gives for an action."""
        return sum(values.stop - values.start for values in self.choices) if self.kind == "discrete" else math.prod(self.shape)

    @property
    def choices(self) -> list[range]:
        """The values of each discrete component."""
        return [range(low, high + 1) for low, high in zip(self.low.ravel().tolist(), self.high.ravel().tolist(), strict=True)]

    def column(self) -> Column:
        """The column of actions from this space."""
        dtype = "float32" if self.kind == "continuous" else "int64"
        return Column(name="action", dtype=dtype, row_shape=self.row_shape, role="action", fill=self.fill)

    def vectors(self, action: np.ndarray) -> np.ndarray:
        """float32 (N, vector_size) of recorded actions: numbers as they are, choices one-hot, zeros for no action.

        Raises ConfigError for more choices than MAX_CHOICES.
        """
        rows = action.reshape(len(action), -1)
        if self.kind == "continuous":
            return np.nan_to_num(rows, nan=0.0)
        if self.kind == "whole":
            return np.where((rows == self.fill).all(axis=1, keepdims=True), 0, rows).astype(np.float32)
        if self.vector_size > MAX_CHOICES:
            raise ConfigError(f"one-hot actions of {self.vector_size} choices: expected at most {MAX_CHOICES}")
        one_hot = [rows[:, [i]] == np.array(choices) for i, choices in enumerate(self.choices)]
        return np.concatenate(one_hot, axis=1).astype(np.float32)


def _bounds(
    record: dict[str, Any],
) -> tuple[Literal["continuous", "whole", "discrete"], tuple[int, ...], np.ndarray, np.ndarray]:
    """(kind, shape, smallest, largest) of a recorded action space; a continuous space does not use the last two."""
    nothing = np.zeros((), np.int64)
    if record["type"] == "Box" and np.dtype(record["dtype"]).kind == "f":
        if not {"low", "high"} <= record.keys():
            raise ValueError(f"action space {record!r:.200} has no bounds")
        return "continuous", _shape(record), nothing, nothing
    if record["type"] == "Box":
        low, high = (_whole(record[bound]) for bound in ("low", "high"))
        shape = _shape(record)
        return _whole_numbers("whole", np.broadcast_to(low, shape), np.broadcast_to(high, shape))
    if record["type"] == "MultiBinary":
        shape = _shape(record)
        return _whole_numbers("whole", np.zeros(shape, np.int64), np.ones(shape, np.int64))
    if record["type"] == "Discrete":
        start = _whole(record["start"])
        return _whole_numbers("discrete", start, start + _whole(record["n"]) - 1)
    if record["type"] == "MultiDiscrete":
        start = _whole(record["start"])
        return _whole_numbers("discrete", start, start + _whole(record["nvec"]) - 1)
    raise ValueError(f"actions of a space {record['type']!r:.100}: expected Box, Discrete, MultiDiscrete or MultiBinary")


def _whole(values: Any) -> np.ndarray:
    """int64; raises ValueError for other numbers, OverflowError for those beyond int64."""
    if np.array(values).dtype.kind not in "iuO":
        raise ValueError(f"{values!r:.100}: expected whole numbers")
    return np.array(values, np.int64)


def _shape(record: dict[str, Any]) -> tuple[int, ...]:
    shape = tuple(record["shape"])
    if not all(type(size) is int and size > 0 for size in shape) or math.prod(shape) > MAX_ACTION_VALUES:
        raise ValueError(f"actions of shape {shape!r:.100}: expected 1 to {MAX_ACTION_VALUES} values")
    return shape


def _whole_numbers(
    kind: Literal["whole", "discrete"], low: np.ndarray, high: np.ndarray
) -> tuple[Literal["whole", "discrete"], tuple[int, ...], np.ndarray, np.ndarray]:
    if low.shape != high.shape or (low > high).any() or not low.size:
        raise ValueError("an action space without a single action")
    if (low == np.iinfo(np.int64).min).any():
        raise ValueError("an action space of whole numbers that begins at the smallest of all leaves none to say 'no action'")
    return kind, low.shape, low, high


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The columns of a dataset in the file's order, and the spaces that observations and actions come from."""

    columns: tuple[Column, ...]

    draws: tuple[Draw, ...] = ()
    """Which latents are drawn from which columns; the other latent columns are given as they are stored."""

    observation_space: dict[str, Any]
    """As `space_record` gives it."""

    action_space: dict[str, Any]
    """Likewise."""

    def by_role(self, *roles: Role) -> tuple[Column, ...]:
        """The columns of these roles, in the file's order."""
        return tuple(column for column in self.columns if column.role in roles)

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @property
    def format(self) -> str:
        """The dataset's format: LATENTS if it has a latent column, else ROLLOUTS."""
        return LATENTS if self.by_role("latent") else ROLLOUTS

    @property
    def frames(self) -> Column | None:
        """The column of frames; None for latents."""
        return next(iter(self.by_role("observation")), None)

    @property
    def action(self) -> Column:
        return self.by_role("action")[0]

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the ground truth's factors; empty if there is none."""
        return tuple(name for column in self.by_role("state") for name in column.parts)

    @property
    def data_columns(self) -> tuple[Column, ...]:
        """All columns but the index, which follows from the episodes."""
        return tuple(column for column in self.columns if column.role != "index")

    @cached_property
    def actions(self) -> ActionSpace:
        """The space of actions."""
        return ActionSpace(self.action_space)

    def to_json(self) -> dict[str, Any]:
        """As it is recorded, in JSON's own types. A column has `num_values` and `absent` only where they say something."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for column in content["columns"]:
            for name, default in (("num_values", None), ("absent", False)):
                if column[name] == default:
                    del column[name]
        return content

    @classmethod
    def from_json(cls, content: Any) -> "Schema":
        """The schema in an untrusted file; raises ValueError or TypeError if it is no schema."""
        if not isinstance(content, dict) or content.keys() != {each.name for each in fields(cls)}:
            raise ValueError(f"schema: expected an object with {', '.join(each.name for each in fields(cls))}")
        require_types(content, _Recorded)
        columns = tuple(_parsed(Column, item) for item in content["columns"])
        draws = tuple(_parsed(Draw, item) for item in content["draws"])
        spaces = {name: content[name] for name in ("observation_space", "action_space")}
        return cls(columns=columns, draws=draws, **spaces)

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(names) != len(set(names)):
            raise ValueError(f"two columns have one name: {', '.join(names)}"[:200])
        most = MAX_COLUMNS - 2 - len(self.by_role("observation"))  # in the place of frames, latents may have two columns
        if len(names) > most:
            raise ValueError(f"{len(names)} columns, expected at most {most}")
        outcome = tuple(replace(column, absent=False) for column in self.by_role("reward", "terminated", "truncated"))
        if outcome != _OUTCOME or self.by_role("index") != INDEX:
            raise ValueError(
                f"expected the columns {', '.join(column.name for column in (*_OUTCOME, *INDEX))} as every dataset"
            )
        if self.by_role("action") != (self.actions.column(),):
            raise ValueError(f"expected the column {self.actions.column()} for the actions of {self.action_space}"[:400])
        frames, latents, state = self.by_role("observation"), self.by_role("latent"), self.by_role("state")
        expected_frames = [_frames(column.row_shape[:2]) for column in frames]
        if len(frames) + bool(latents) != 1 or [*frames] != expected_frames:
            raise ValueError("expected one column of frames, pixels of uint8 (H, W, 3), or columns of latents")
        if len(state) > 1 or [*state] != [_state(column.parts) for column in state]:
            raise ValueError("expected at most one column of state, float32, with a name for each of its values")
        for draw in self.draws:
            shapes = {column.row_shape for column in latents if column.name in draw.columns}
            if draw.distribution != "normal" or len(draw.columns) != 2 or len(shapes) != 1 or draw.name in names:
                raise ValueError(f"{draw}: expected a normal distribution over two latent columns of one shape")


@dataclass
class _Recorded:
    """The JSON types of a schema's fields."""

    columns: tuple[dict[str, Any], ...]
    draws: tuple[dict[str, Any], ...]
    observation_space: dict[str, Any]
    action_space: dict[str, Any]


Part = TypeVar("Part", Column, Draw)


def _parsed(kind: type[Part], content: dict[str, Any]) -> Part:
    require_types(content, kind)
    fields_: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    return kind(**fields_)


INDEX = (
    Column(name="ep_idx", dtype="int64", row_shape=(), role="index"),
    Column(name="step_idx", dtype="int64", row_shape=(), role="index"),
)
"""A row's episode number, and its place in the episode."""

_OUTCOME = (
    Column(name="reward", dtype="float32", row_shape=(), role="reward", fill="nan"),
    Column(name="terminated", dtype="bool", row_shape=(), role="terminated"),
    Column(name="truncated", dtype="bool", row_shape=(), role="truncated"),
)


def _frames(frame_shape: tuple[int, ...]) -> Column:
    return Column(name="pixels", dtype="uint8", row_shape=(*frame_shape, 3), role="observation", filters=ZSTD)


def _state(names: tuple[str, ...]) -> Column:
    return Column(name="state", dtype="float32", row_shape=(len(names),), role="state", parts=names)


def rollout_schema(
    *,
    frame_shape: tuple[int, int],
    action_space: dict[str, Any],
    observation_space: dict[str, Any],
    state_names: tuple[str, ...] = (),
    extras: tuple[Column, ...] = (),
    has_reward: bool = True,
) -> Schema:
    """The schema of rollouts: frames of (H, W), actions of a recorded space, the ground truth's factors, further columns."""
    reward, *ends = _OUTCOME
    state = [_state(state_names)] if state_names else []
    columns = (
        _frames(frame_shape),
        ActionSpace(action_space).column(),
        replace(reward, absent=not has_reward),
        *ends,
        *state,
        *extras,
        *INDEX,
    )
    return Schema(columns=columns, observation_space=observation_space, action_space=action_space)


def latent_schema(rollouts: Schema, latents: tuple[Column, ...], draws: tuple[Draw, ...] = ()) -> Schema:
    """The schema of latents: an autoencoder's columns replace the frames; all other columns stay as they are.

    Raises ConfigError if a column of the rollouts has the name of one of these, or of a part of their windows.
    """
    kept = tuple(column for column in rollouts.columns if column.role != "observation")
    own = {column.name for column in latents}
    parts = (own | {draw.name for draw in draws}) - {name for draw in draws for name in draw.columns}
    in_windows = {*WINDOW_NAMES, *parts, *(f"next_{name}" for name in parts)}
    for names, what in ((own, "the autoencoder calls a column"), (in_windows, "windows of these latents call a part")):
        if taken := names & {column.name for column in kept}:
            raise ConfigError(f"{what} {min(taken)!r}, which the rollouts have; give it another name")
    columns = (*latents, *kept)
    spaces = {"observation_space": rollouts.observation_space, "action_space": rollouts.action_space}
    return Schema(columns=columns, draws=draws, **spaces)


RECORDED_SPACES = ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple")
"""Spaces of which the parts are recorded."""

ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def space_record(space: Any) -> dict[str, Any]:
    """A Gymnasium space as JSON, with Gymnasium's names for its parts; an infinite bound is "inf" or "-inf".

    A subclass is recorded as the space of Gymnasium that it extends. Spaces that have no numbers of their own (Sequence, Graph,
    Text, …) are recorded by their class and text. Memory addresses are removed from the text, because they differ in each
    process.
    """
    names = [cls.__name__ for cls in type(space).mro()]
    kind = next((name for name in names if name in RECORDED_SPACES), names[0])
    if kind == "Box":
        bounds = {name: _bound(getattr(space, name)) for name in ("low", "high")}
        return {"type": kind, "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
    if kind == "Discrete":
        return {"type": kind, "dtype": str(space.dtype), "n": int(space.n), "start": int(space.start)}
    if kind == "MultiDiscrete":
        parts = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
        return {"type": kind, "dtype": str(space.dtype), **parts}
    if kind == "MultiBinary":
        return {"type": kind, "dtype": str(space.dtype), "shape": list(space.shape)}
    if kind == "Dict":
        return {"type": kind, "spaces": {str(name): space_record(part) for name, part in space.spaces.items()}}
    if kind == "Tuple":
        return {"type": kind, "spaces": [space_record(part) for part in space.spaces]}
    return {"type": kind, "text": ADDRESS.sub("", " ".join(repr(space).split()))[:1000]}


def _bound(values: np.ndarray) -> Any:
    """A bound as one number if all its values are equal, else as nested lists."""
    if values.size and (values == values.flat[0]).all():
        return _number(values.flat[0].item())
    if values.size > MAX_RECORDED_BOUNDS:
        return None
    return _numbers(values.tolist())


def _numbers(values: Any) -> Any:
    return [_numbers(value) for value in values] if isinstance(values, list) else _number(values)


def _number(value: float | int | bool) -> Any:
    return int(value) if isinstance(value, bool) else value if math.isfinite(value) else str(value)
