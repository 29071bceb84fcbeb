"""A dataset as one table of pandas: a row for each recorded row, a column for each number of it.

A number is a column under its name, and a vector one for each of its numbers: `action[0]`, or by the names of its parts,
`state[angle]`. Pictures and grids have no such columns, and are not even read unless they are asked for. Rejected: a column
of lists for a vector, with which pandas neither computes nor plots.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodel_v.errors import PackageMissing
from worldmodel_v.schema import Column, Schema
from worldmodel_v.storage.shard_reader import Shard

if TYPE_CHECKING:
    import pandas

    from worldmodel_v.storage.dataset import Dataset


INDEX = ("episode", "step")
"""What each row is of."""


def to_table(dataset: "Dataset[Any]", arrays: bool) -> "pandas.DataFrame":
    """All rows, in the dataset's order; raises PackageMissing or ShardDamaged."""
    try:
        import pandas
    except ModuleNotFoundError:
        raise PackageMissing("a table needs pandas, which is not installed", remedy="pip install pandas") from None
    tables = [pandas.DataFrame(_columns(shard, arrays)) for _, shard in dataset.shards()]
    if not tables:
        return pandas.DataFrame(columns=[*INDEX, *_names(dataset.schema, arrays)])
    return pandas.concat(tables, ignore_index=True)


def _columns(shard: Shard, arrays: bool) -> dict[str, Any]:
    lengths_E = shard.ep_len.astype(np.int64)
    first_E = np.repeat(shard.ep_offset.astype(np.int64), lengths_E)
    index = [np.repeat(shard.episode_ids, lengths_E), np.arange(shard.num_rows) - first_E]
    numbers = [each for column in _wanted(shard.schema, arrays) for each in _numbers(shard.rows(column.name))]
    return dict(zip([*INDEX, *_names(shard.schema, arrays)], [*index, *numbers], strict=True))


def _wanted(schema: Schema, arrays: bool) -> Iterator[Column]:
    return (column for column in schema.data_columns if arrays or len(column.row_shape) < 2)


def _names(schema: Schema, arrays: bool) -> list[str]:
    """The columns beside `INDEX`; one of a name that is taken has `_` after it."""
    names = [*INDEX]
    for name in (name for column in _wanted(schema, arrays) for name in _names_of(column)):
        while name in names:
            name += "_"
        names.append(name)
    return names[len(INDEX) :]


def _names_of(column: Column) -> list[str]:
    if len(column.row_shape) != 1:
        return [column.name]
    return [f"{column.name}[{part}]" for part in column.parts or range(column.row_shape[0])]


def _numbers(rows: np.ndarray) -> list[Any]:
    """Each number of the rows, (N,); rows that are pictures or grids as they are."""
    return [*rows.T] if rows.ndim == 2 else [rows if rows.ndim == 1 else [*rows]]
