"""The record of a training: `metrics.jsonl`, one object a line, and the same numbers for TensorBoard.

A continued run first drops the lines behind its checkpoint, so that every step stands there once. TensorBoard is optional:
where the package is missing, the JSON lines are written alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.errors import NotAModel
from worldmodel_v.storage.index import complete_lines
from worldmodel_v.storage.publish import publish

METRICS_NAME = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsLog:
    """Appends to a training's record; use `close` at the end."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open the record of a run that continues behind step `first_step`."""
        self._path = folder / METRICS_NAME
        _drop_lines_after(self._path, first_step)
        self._file = self._path.open("a")
        self._board = _tensorboard(folder / TENSORBOARD_FOLDER, first_step)

    def write(self, step: int, group: str, values: Mapping[str, float | list[float]]) -> None:
        """Record numbers of one group ("train", "held-out" or "health") at a step; TensorBoard shows a list's histogram."""
        self._file.write(json.dumps({"step": step, "group": group, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, list):
                    self._board.add_histogram(f"{group}/{name}", np.array(value), step)
                else:
                    self._board.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _drop_lines_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = complete_lines(path.read_bytes()).decode().splitlines()
    try:
        kept = [line for line in lines if json.loads(line)["step"] <= step]
    except (ValueError, KeyError, TypeError) as error:
        raise NotAModel(f"{path}: not a record of a training ({error}); delete it to continue without the past") from None
    publish(path, "".join(line + "\n" for line in kept).encode())


def _tensorboard(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_step + 1)
