"""Parquet: one row for each step with every column, as data frames, the Hugging Face Hub's viewer and `datasets` read it.

Frames are PNG in the Hub's image layout, a struct of `bytes` and `path`. Values with a shape are lists of fixed length, nested
if they have several axes. The schema's metadata says this to `datasets`, so `load_dataset("parquet", …)` gives images. What
belongs to an episode, its seed and policy, is repeated in each of its rows, which the encoding stores once.

`write_parquet` writes the episodes of a shard into one file. It holds one episode and one row group in memory. Rejected: a
whole shard as a row group, because viewers read whole row groups.

Legend: T actions of an episode, N rows.
"""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.errors import ConfigError
from worldmodel_v.export.config import ExportConfig, Written
from worldmodel_v.export.packages import optional
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.records import Episode, index_rows
from worldmodel_v.schema import Column, Schema
from worldmodel_v.spec import LatentSpec, RolloutSpec, Spec
from worldmodel_v.storage.layout import ALIGNMENT

GROUP_BYTES = 8 << 20
"""A row group has as many rows as make this many bytes before compression, and at most GROUP_ROWS."""

GROUP_ROWS = 16_384
SEED, POLICY = "episode_seed", "episode_policy"


@dataclass(frozen=True, kw_only=True)
class ParquetConfig(ExportConfig):
    """Frames or latents as data/SHARD.parquet, a row for each step with all columns; frames are PNG, and nothing is lost.

    Open it with datasets.load_dataset("parquet", data_files="OUT/data/*.parquet"), pandas, Polars or DuckDB.
    """

    name: ClassVar[str] = "parquet"
    reads: ClassVar[tuple[type[Any], ...]] = (RolloutSpec, LatentSpec)
    modules: ClassVar[tuple[str, ...]] = ("pyarrow",)
    alignment: ClassVar[str] = ALIGNMENT

    def check(self, source: Source[Spec]) -> None:
        arrow_schema(source.schema)

    def write(self, source: Source[Spec], folder: Path, progress: Progress) -> Written:
        (folder / "data").mkdir()
        task = progress.task("export", len(source.dataset.entries), "shards")
        for entry, shard in source.dataset.shards():
            episodes = map(shard.episode, range(shard.num_episodes))
            write_parquet(folder / "data" / f"{entry.shard:06d}.parquet", source.schema, episodes)
            task.advance()
        task.close()
        return Written(source.num_rows, [], source.episode_ids.tolist())


def write_parquet(path: Path, schema: Schema, episodes: Iterable[Episode]) -> None:
    """Write episodes of one dataset, such as those of a shard, as one new Parquet file.

    T + 1 rows of an episode, as in the dataset: the last holds the final observation, with the fill for action and reward.
    Raises PackageMissing without pyarrow, ConfigError if a column has the name of one that is added, OSError if the disk fails.
    """
    arrow, arrow_parquet = optional("pyarrow"), optional("pyarrow.parquet")
    stored_as, rows = arrow_schema(schema), rows_of_group(schema)
    waiting = stored_as.empty_table()
    with path.open("xb") as file, arrow_parquet.ParquetWriter(file, stored_as, compression="zstd") as writer:
        for episode in episodes:
            waiting = arrow.concat_tables([waiting, episode_table(episode, stored_as)])
            while len(waiting) > rows:
                writer.write_table(waiting.slice(0, rows))
                waiting = waiting.slice(rows)
        writer.write_table(waiting)


def rows_of_group(schema: Schema) -> int:
    """How many rows a row group has: at least one."""
    return max(1, min(GROUP_ROWS, GROUP_BYTES // sum(column.row_bytes for column in schema.columns)))


def arrow_schema(schema: Schema) -> Any:
    """The Arrow schema of a dataset's columns, in their order, and of the episode's seed and policy; raises ConfigError."""
    arrow = optional("pyarrow")
    if taken := {SEED, POLICY} & {column.name for column in schema.columns}:
        raise ConfigError(
            f"the dataset has a column {min(taken)!r}, which is the name of one that this format adds", where="parquet"
        )
    fields = [_field(arrow, column) for column in schema.columns]
    features = {column.name: _feature(column) for column in schema.columns}
    fields += [arrow.field(SEED, arrow.int64()), arrow.field(POLICY, arrow.string())]
    features |= {SEED: _value("int64"), POLICY: _value("string")}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "alignment": ALIGNMENT}
    return arrow.schema(fields, metadata)


def episode_table(episode: Episode, stored_as: Any) -> Any:
    """The T + 1 rows of an episode as an Arrow table of the schema that `arrow_schema` gave."""
    arrow = optional("pyarrow")
    rows = {**episode.columns, **index_rows(episode.episode_id, episode.num_rows)}
    frames = {column.name for column in episode.schema.by_role("observation")}
    arrays = {name: images(arrow, column) if name in frames else nested(arrow, column) for name, column in rows.items()}
    arrays[SEED] = arrow.repeat(arrow.scalar(episode.seed, arrow.int64()), episode.num_rows)
    arrays[POLICY] = arrow.repeat(arrow.scalar(episode.policy, arrow.string()), episode.num_rows)
    return arrow.table([arrays[name] for name in stored_as.names], schema=stored_as)


def png(frame: np.ndarray) -> bytes:
    """A frame, uint8 (H, W, 3), as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()


def images(arrow: Any, frames: np.ndarray) -> Any:
    """uint8 (N, H, W, 3) as an Arrow array of N PNG files in the Hub's layout."""
    return arrow.array([{"bytes": png(frame), "path": None} for frame in frames], image_type(arrow))


def image_type(arrow: Any) -> Any:
    """The Hub's layout of an image."""
    return arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})


def nested(arrow: Any, rows: np.ndarray) -> Any:
    """(N, …) as an Arrow array of N values, each a number or nested lists of fixed lengths."""
    array = arrow.array(np.ascontiguousarray(rows).ravel())
    for size in reversed(rows.shape[1:]):
        array = arrow.FixedSizeListArray.from_arrays(array, size)
    return array


def _field(arrow: Any, column: Column) -> Any:
    metadata = {"names": json.dumps(column.parts)} if column.parts else None
    if column.role == "observation":
        return arrow.field(column.name, image_type(arrow))
    type_ = arrow.from_numpy_dtype(np.dtype(column.dtype))
    for size in reversed(column.row_shape):
        type_ = arrow.list_(type_, size)
    return arrow.field(column.name, type_, metadata=metadata)


def _feature(column: Column) -> dict[str, Any]:
    """The column as `datasets` describes it in its metadata."""
    if column.role == "observation":
        return {"_type": "Image"}
    feature = _value(column.dtype)
    for size in reversed(column.row_shape):
        feature = {"feature": feature, "length": size, "_type": "Sequence"}
    return feature


def _value(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "_type": "Value"}
