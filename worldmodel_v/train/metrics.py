"""The record of a training: `metrics.jsonl`, one object a line, and the same numbers for TensorBoard.

A continued run first drops the lines after its checkpoint, so that every step is recorded once. TensorBoard is optional: if
the package is missing, only the JSON lines are written.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.storage import files
from worldmodel_v.storage.index import complete_lines
from worldmodel_v.storage.publish import named_failure, publish
from worldmodel_v.storage.reading import readable
from worldmodel_v.untrusted import parse_object

METRICS_NAME = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
TAIL_BYTES = 1 << 18
"""More bytes than the lines between two checkpoints take, so the last lines of every group are in this part of the file."""


MAX_BYTES = 1 << 30
"""Of the whole record: some million lines."""


class MetricsLog:
    """Appends to a training's record; call `close` at the end. All methods raise WriteFailed if the disk fails."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open the record of a run that continues after step `first_step`."""
        self._path, self._board_folder = folder / METRICS_NAME, folder / TENSORBOARD_FOLDER
        _drop_lines_after(self._path, first_step)
        with named_failure(self._board_folder):
            self._board = _tensorboard(self._board_folder, first_step)
        with named_failure(self._path):
            self._file = files.open_stream(self._path, "ab")

    def write(self, step: int, group: str, values: Mapping[str, float | list[float]]) -> None:
        """Record numbers of one group ("train", "held-out" or "health") at a step; TensorBoard shows a list's histogram."""
        with named_failure(self._path):
            self._file.write(f"{json.dumps({'step': step, 'group': group, **values})}\n".encode())
            self._file.flush()
        if self._board is None:
            return
        with named_failure(self._board_folder):
            for name, value in values.items():
                if isinstance(value, list):
                    self._board.add_histogram(f"{group}/{name}", np.array(value), step)
                else:
                    self._board.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        with named_failure(self._path):
            self._file.close()
        if self._board is not None:
            with named_failure(self._board_folder):
                self._board.close()


@readable()
def last_records(folder: Path) -> dict[str, dict[str, int | float]]:
    """The latest numbers of each group, without lists, with their step; raises ModelNotUsable if the record is damaged.

    It may be called while a training appends: it ignores an incomplete last line.
    """
    path = folder / METRICS_NAME
    records: dict[str, dict[str, int | float]] = {}
    try:
        for line in _tail(path):
            record = parse_object(line)
            values = {name: value for name, value in record.items() if type(value) in (int, float)}
            values["step"] = int(record["step"])
            records[str(record["group"])] = values
    except (ValueError, KeyError, TypeError) as error:
        raise ModelNotUsable(
            f"not a record of a training ({error})", where=path, remedy="restore it from a copy, or delete it"
        ) from None
    return records


def _tail(path: Path) -> list[bytes]:
    """The last complete lines of a file; none if the file is missing."""
    if not files.exists(path):
        return []
    with files.open_stream(path) as file:
        start = max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0)
        file.seek(start)
        content = complete_lines(file.read())
    return content.splitlines()[1 if start else 0 :]


def _drop_lines_after(path: Path, step: int) -> None:
    if not files.exists(path):
        return
    with named_failure(path), readable():
        content = files.read_file(path, MAX_BYTES)
    lines = complete_lines(content).decode().splitlines()
    try:
        kept = [line for line in lines if json.loads(line)["step"] <= step]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelNotUsable(
            f"not a record of a training ({error})", where=path, remedy="delete it to continue without the past"
        ) from None
    publish(path, "".join(line + "\n" for line in kept).encode())


def _tensorboard(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    files.make_folder(folder)
    return SummaryWriter(str(folder), purge_step=first_step + 1)
