"""The Parquet files of a LeRobotDataset: rows and episodes in numbered files of at most 100 MB, and the tasks."""

import json
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from worldmodel_v.export.packages import optional
from worldmodel_v.export.parquet import images, nested

MAX_MB, FILES_OF_CHUNK = 100, 1000
"""LeRobot's limits, which info.json names."""

RECORDS_AT_ONCE = 100


class NumberedFiles:
    """chunk-000/file-000.parquet and so on in a folder; a new one begins where a table would make the last one too large."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, -1
        self._file: Any = None
        self._writer: Any = None

    def place(self, num_bytes: int) -> tuple[int, int]:
        """The numbers of the chunk and of the file in it that so many bytes go into."""
        if self._file is None or self._file.tell() + num_bytes > MAX_MB << 20:
            self.close()
            self._number += 1
            chunk, number = divmod(self._number, FILES_OF_CHUNK)
            path = self._folder / f"chunk-{chunk:03d}" / f"file-{number:03d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb")
        return divmod(self._number, FILES_OF_CHUNK)

    def write(self, table: Any) -> None:
        """Write a row group to the last place."""
        if self._writer is None:
            writer = optional("pyarrow.parquet").ParquetWriter
            self._writer = writer(self._file, table.schema, compression="snappy")
        self._writer.write_table(table, row_group_size=len(table))

    def close(self) -> None:
        """Finish the last file."""
        writer, file, self._writer, self._file = self._writer, self._file, None, None
        try:
            if writer is not None:
                writer.close()
        finally:
            if file is not None:
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(*(() if error is None else (Exception,))):  # the files of a failed export are removed
            self.close()


class Records(NumberedFiles):
    """A row for each episode; each says which file it is in."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._waiting: list[dict[str, Any]] = []

    def add(self, record: dict[str, Any]) -> None:
        """Add an episode's row, of JSON values."""
        self._waiting.append(record)
        if len(self._waiting) == RECORDS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        chunk, file = self.place(len(json.dumps(self._waiting)))
        place = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        self.write(optional("pyarrow").Table.from_pylist([record | place for record in self._waiting]))
        self._waiting = []

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._flush()
        super().__exit__(kind, error, trace)


def rows_table(rows: dict[str, np.ndarray], image: str) -> Any:
    """The rows of an episode as an Arrow table, whose metadata describes it to `datasets`; `image` names the frames."""
    arrow = optional("pyarrow")
    arrays = {name: images(arrow, part) if name == image else nested(arrow, part) for name, part in rows.items()}
    features = {name: {"_type": "Image"} if name == image else _feature(part) for name, part in rows.items()}
    return arrow.table(arrays).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(rows: np.ndarray) -> dict[str, Any]:
    """Values of more than one axis are arrays to LeRobot, not lists of lists."""
    shape, dtype = rows.shape[1:], str(rows.dtype)
    if len(shape) > 1:
        return {"shape": list(shape), "dtype": dtype, "_type": f"Array{len(shape)}D"}
    value = {"dtype": dtype, "_type": "Value"}
    return {"feature": value, "length": shape[0], "_type": "Sequence"} if shape else value


def write_tasks(path: Path, task: str) -> None:
    """The table of tasks, of one task: `task_index`, and as the index of pandas, which LeRobot reads it with, the sentence."""
    arrow = optional("pyarrow")
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
        for name, (kind, dtype) in kinds.items()
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": described}
    table = arrow.table({"task_index": [0], "task": [task]}).replace_schema_metadata({"pandas": json.dumps(pandas)})
    with path.open("xb") as file:
        optional("pyarrow.parquet").write_table(table, file)
