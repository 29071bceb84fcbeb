"""Parts of what an environment shows, by path: which picture is recorded as frames, and what is recorded beside it.

A path names a part of the observation or of `info`: `observation.image`, `observation.0` of a Tuple, `info.speed`. A key may
hold dots itself (`observation.images.top`) or be a whole number. If a path names two parts, that is an error.

The frames are the observation itself if it is a picture, or the one picture in it if it is a Dict or Tuple. They are `render()`
only if the observation has no picture. If the choice is not clear, the error names the candidates, and the user chooses.
"""

import enum
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from worldmodel_v.envs.picture import AUTO, PLAIN, Layout, is_clear, layout_of, why_no_picture
from worldmodel_v.errors import EnvironmentNotUsable, shown
from worldmodel_v.records import unchanged
from worldmodel_v.schema import DTYPES, Column, Fill
from worldmodel_v.surface import option

OBSERVATION, INFO, RENDER = "observation", "info", "render"
SMALLEST_PICTURE = 8
"""An array of two axes, one of them shorter than this, holds numbers and no picture."""

MAX_NAMED = 20
"""Parts of an observation, and of an info, that a message names."""

PART_NAMES = f"{OBSERVATION}, {OBSERVATION}.KEY or {INFO}.KEY"


class Missing(enum.Enum):
    """Marks a part that is absent. As an enum's member, it stays one object in every copy."""

    MISSING = "missing"


MISSING = Missing.MISSING


def part_of(value: Any, path: tuple[str, ...]) -> Any:
    """The part of a nested observation or info at `path`, MISSING if there is none; raises ValueError if there are two."""
    if not path:
        return value
    found = list(_parts_at(value, path))
    if len(found) > 1:
        raise ValueError(f"{'.'.join(path)} names {len(found)} parts; rename one of them in a wrapper")
    return found[0] if found else MISSING


def _parts_at(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    if not path:
        yield value
    elif isinstance(value, Mapping):
        for end in range(1, len(path) + 1):
            for key in _keys(".".join(path[:end])):
                if key in value:
                    yield from _parts_at(value[key], path[end:])
    elif isinstance(value, tuple | list) and path[0].isdecimal() and int(path[0]) < len(value):
        yield from _parts_at(value[int(path[0])], path[1:])


def _keys(name: str) -> tuple[str | int, ...]:
    """The keys of a dictionary that a name may stand for."""
    return (name, int(name)) if name.isdecimal() else (name,)


def leaves(space: Space, path: str = OBSERVATION) -> Iterator[tuple[str, Space]]:
    """Every part of an observation space that is not a Dict or Tuple, with its path."""
    if isinstance(space, spaces.Dict):
        for name, part in space.spaces.items():
            yield from leaves(part, f"{path}.{name}")
    elif isinstance(space, spaces.Tuple):
        for number, part in enumerate(space.spaces):
            yield from leaves(part, f"{path}.{number}")
    else:
        yield path, space


def recorded_leaves(record: dict[str, Any], path: str = OBSERVATION) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of a space's record (see `schema.space_record`)."""
    parts = record.get("spaces")
    if parts is None:
        yield path, record
        return
    for name, part in parts.items() if isinstance(parts, dict) else enumerate(parts):
        yield from recorded_leaves(part, f"{path}.{name}")


def choose_frames(
    env_id: str, observation: Space, render_modes: list[str], asked: str = AUTO, layout: Layout = AUTO
) -> tuple[str, Layout]:
    """The path of the picture that is recorded, or "render", and its axes.

    Raises EnvironmentNotUsable if there is none, or if the choice is not clear.
    """
    parts = _parts_by_path(env_id, observation)
    if asked == RENDER:
        return _rendered(env_id, render_modes, layout, observation)
    if asked != AUTO:
        return asked, _layout_of_named(env_id, parts, asked, layout)
    pictures = [path for path, space in parts.items() if is_clear(space, layout)]
    if len(pictures) == 1:
        return pictures[0], _layout_of_named(env_id, parts, pictures[0], layout)
    if pictures:
        raise EnvironmentNotUsable(
            f"its observation holds {len(pictures)} pictures, {', '.join(pictures)}",
            where=env_id,
            remedy=f"say which with {option('frames')}",
        )
    unclear = [_unclear(path, space, layout) for path, space in parts.items() if _may_be_picture(space)]
    if unclear:
        raise EnvironmentNotUsable(
            f"its observation holds what may be a picture: {', '.join(unclear)}",
            where=env_id,
            remedy=f"or else record the spectator's view with {option('frames', RENDER)}",
        )
    return _rendered(env_id, render_modes, layout, observation, "gives no images: ")


def _parts_by_path(env_id: str, observation: Space) -> dict[str, Space]:
    found = list(leaves(observation))
    paths = [path for path, _ in found]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise EnvironmentNotUsable(
            f"its observation holds {paths.count(twice[0])} parts called {twice[0]}",
            where=env_id,
            remedy="rename one of them in a wrapper",
        )
    return dict(found)


def _layout_of_named(env_id: str, parts: dict[str, Space], path: str, layout: Layout) -> Layout:
    space = parts.get(path)
    if space is None:
        pictures = ", ".join(each for each, part in parts.items() if why_no_picture(part, layout) is None) or "none"
        raise EnvironmentNotUsable(
            f"there is no {path}; pictures in its observation: {pictures}", where=env_id, field="frames", got=path
        )
    if reason := why_no_picture(space, layout):
        raise EnvironmentNotUsable(f"{path} is {space}: {reason}", where=env_id, field="frames", got=path)
    assert isinstance(space, spaces.Box)
    found = layout_of(space, layout)
    assert found is not None  # or there was a reason
    return found


def _unclear(path: str, space: Space, layout: Layout) -> str:
    why = why_no_picture(space, layout) or f"if it is one, say {option('frames', path)}"
    return f"{path} ({space}: {why})"


def _rendered(env_id: str, render_modes: list[str], layout: Layout, observation: Space, so: str = "") -> tuple[str, Layout]:
    if "rgb_array" not in render_modes:
        raise EnvironmentNotUsable(
            f"{so}its observation is {observation} and its render modes are {render_modes}",
            where=env_id,
            expected="an image observation or the render mode rgb_array",
        )
    if layout not in (AUTO, PLAIN):
        raise EnvironmentNotUsable(
            f"{so}its observation is {observation}, and render() gives {PLAIN}",
            where=env_id,
            field="layout",
            got=layout,
            remedy="leave it out",
        )
    return RENDER, PLAIN


def _may_be_picture(space: Space) -> bool:
    if not isinstance(space, spaces.Box):
        return False
    return len(space.shape) >= 3 or (len(space.shape) == 2 and min(space.shape) >= SMALLEST_PICTURE)


def require_paths(record: tuple[str, ...]) -> None:
    """Raise EnvironmentNotUsable unless each path names a part of the observation or of info, and none appears twice."""
    for path in record:
        root, *names = path.split(".")
        if root not in (OBSERVATION, INFO) or not all(names) or (root == INFO and not names):
            raise EnvironmentNotUsable("names no part", field="record", got=path, expected=PART_NAMES)
    if len(set(record)) < len(record):
        raise EnvironmentNotUsable("a part stands twice", field="record", got=record)


def extra_columns(record: Iterable[str], values: Iterable[list[Any]], seen: tuple[Any, Any]) -> tuple[Column, ...]:
    """The columns for the parts that `record` names, from the values of each at the first observations.

    Raises EnvironmentNotUsable if one is missing, and then names the parts of `seen`, an observation and the info beside it.
    """
    columns = []
    for path, found in zip(record, values, strict=True):
        if all(value is MISSING for value in found):
            parts = [*islice(_paths_in(seen[0], OBSERVATION), MAX_NAMED), *islice(_paths_in(seen[1], INFO), MAX_NAMED)]
            expected = f"one of {', '.join(parts)}"
            raise EnvironmentNotUsable("the environment gives no such part", field="record", got=path, expected=expected)
        columns.append(extra_column(path, found))
    return tuple(columns)


def _paths_in(value: Any, path: str) -> Iterator[str]:
    """Every part of a nested observation or info that is no dictionary or tuple, by its path."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _paths_in(part, f"{path}.{key}")
    elif isinstance(value, tuple):
        for number, part in enumerate(value):
            yield from _paths_in(part, f"{path}.{number}")
    else:
        yield path


def extra_column(path: str, values: list[Any]) -> Column:
    """The column for a part, from its values at the first observations, of which there is one; raises EnvironmentNotUsable if
    they are no numbers.

    Python's whole numbers become int64, its other numbers float64; arrays keep their dtype. Where these differ, as in a reset
    that gives 0 and a step that gives 0.5, it is one that holds both. If `reset` does not give the part, its first row has a
    fill.
    """
    present = [value for value in values if value is not MISSING]
    arrays = [_array(value) for value in present]
    array = arrays[0]
    if all(each.dtype.kind in "fiu" for each in arrays):
        array = array.astype(np.result_type(*[each.dtype for each in arrays]))
    if (dtype := array.dtype.name) not in DTYPES:
        expected = f"a number or an array of numbers, as one of {', '.join(DTYPES)}"
        raise EnvironmentNotUsable(f"is {shown(present[0])}", field="record", got=path, expected=expected)
    fill: Fill = None
    if values[0] is MISSING:
        fill = "nan" if array.dtype.kind == "f" else _whole_fill(path, array.dtype)
    try:
        return Column(name=path, dtype=dtype, row_shape=array.shape, role="extra", fill=fill)
    except ValueError as error:
        raise EnvironmentNotUsable(str(error), field="record", got=path) from None


def _array(value: Any) -> np.ndarray:
    """A part as NumPy sees it; None as an object, which is no number, if it sees no array (lists of several lengths)."""
    try:
        return np.asanyarray(value)
    except (ValueError, TypeError, RuntimeError):
        return np.array(None)


def _whole_fill(path: str, dtype: np.dtype) -> int:
    if dtype.kind == "i":
        return int(np.iinfo(dtype).min)
    raise EnvironmentNotUsable(
        f"reset does not give it, and {dtype} has no value to say so",
        field="record",
        got=path,
        remedy="have the environment give it there too",
    )


def extra_rows(column: Column, values: list[Any]) -> np.ndarray:
    """The rows of a part, (T + 1, …), as its column says; raises ValueError, naming the step, if one does not fit exactly."""
    rows = np.empty((len(values), *column.row_shape), column.dtype)
    for step, value in enumerate(values):
        if value is MISSING:
            if step or column.fill is None:
                raise ValueError(f"{column.name} is missing beside the observation of step {step}")
            rows[step] = column.fill_value
            continue
        array = _array(value)
        if array.shape != column.row_shape or array.dtype.kind not in "fiub":
            raise ValueError(
                f"{column.name} in step {step}: expected {column.dtype} {list(column.row_shape)}, got {shown(value)}"
            )
        if (cast := unchanged(array, column.dtype)) is None:
            raise ValueError(
                f"{column.name} in step {step} is {shown(value)}, which {column.dtype} cannot hold; "
                "its type is that of its first value: give that as a float, in a wrapper if need be"
            )
        rows[step] = cast
        if column.fill is not None and column.is_fill(rows[step : step + 1])[0] and column.fill != "nan":
            raise ValueError(f"{column.name} in step {step} is {column.fill}, which says that there is no value")
    return rows
