"""The record of a training: `metrics.jsonl`, one object a line; numbers and pictures for TensorBoard or another tracker.

A continued run first drops the lines after its checkpoint, so that every step is recorded once. TensorBoard is optional: if
the package is missing, only the JSON lines are written.
"""

import functools
import json
import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from worldmodel_v.autoencoders.artifact import METRICS_NAME
from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.storage import files
from worldmodel_v.storage.index import complete_lines
from worldmodel_v.storage.publish import named_failure, publish, write_line, write_record
from worldmodel_v.storage.reading import readable
from worldmodel_v.training.trackers import Tracking
from worldmodel_v.untrusted import parse_object

TENSORBOARD_FOLDER = "tensorboard"
TAIL_BYTES = 1 << 18
"""More bytes than the lines between two checkpoints take, so the last lines of every group are in this part of the file."""

_BOUNDS = 1e-12 * 1.1 ** np.arange(774)
BINS = np.concatenate([-_BOUNDS[::-1], [0.0], _BOUNDS])
"""Of the histograms, as TensorBoard has them: from 1e-12 to 1e20 and below 0, each a tenth wider than the last."""

MAX_BYTES = 1 << 30
"""Of the whole record: some million lines."""


class MetricsLog:
    """Appends to a training's record; call `close` at the end. All methods raise WriteFailed if the disk fails."""

    def __init__(self, folder: Path, first_step: int, tracking: Tracking | None = None) -> None:
        """Open the record of a run that continues after step `first_step`; `tracking` replaces TensorBoard."""
        self._tracking = tracking
        self._path, self._board_folder = folder / METRICS_NAME, folder / TENSORBOARD_FOLDER
        _drop_lines_after(self._path, first_step)
        with named_failure(self._board_folder):
            self._board = None if tracking else _tensorboard(self._board_folder, first_step)
        try:
            with named_failure(self._path):
                self._file = files.open_stream(self._path, "ab", buffering=0)
        except BaseException:
            if self._board is not None:
                self._board.close()
            raise

    @property
    def draws_curves(self) -> bool:
        """Whether there are curves to look at: a tracker is used, or TensorBoard's package is installed."""
        return self._board is not None or self._tracking is not None

    def write(self, step: int, group: str, values: Mapping[str, float | list[float]]) -> None:
        """Record numbers of one group ("train", "held-out" or "health") at a step; TensorBoard shows a list's histogram."""
        with named_failure(self._path):
            write_line(self._file, json.dumps({"step": step, "group": group, **values}))
        if self._tracking is not None:
            self._tracking.add(step, {f"{group}/{name}": value for name, value in values.items()})
        if self._board is None:
            return
        with named_failure(self._board_folder):
            for name, value in values.items():
                self._board.add(f"{group}/{name}", value, step)

    def pictures(self, step: int, pngs: Mapping[str, bytes]) -> None:
        """Show the pictures of a step, by their names, in TensorBoard or the tracker."""
        for name, png in pngs.items():
            if self._tracking is not None:
                self._tracking.picture(step, name, png)
            if self._board is not None:
                with named_failure(self._board_folder):
                    self._board.picture(f"samples/{name}", png, step)

    def close(self) -> None:
        try:
            with named_failure(self._path):
                self._file.close()
        finally:
            if self._tracking is not None:
                self._tracking.close()
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
            record = _parse(line)
            records[str(record["group"])] = {name: value for name, value in record.items() if type(value) in (int, float)}
    except (ValueError, KeyError) as error:
        raise ModelNotUsable(
            f"not a record of a training ({error})", where=path, remedy="restore it from a copy, or delete it"
        ) from None
    return records


def _tail(path: Path) -> list[bytes]:
    """The last complete lines of a file; none if the file is missing."""
    if not files.exists(path):
        return []
    with readable(path), files.open_stream(path) as file:
        start = max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0)
        file.seek(start)
        content = complete_lines(file.read())
    return content.splitlines()[1 if start else 0 :]


def _drop_lines_after(path: Path, step: int) -> None:
    if not files.exists(path):
        return
    with readable(path):
        lines = complete_lines(files.read_file(path, MAX_BYTES)).splitlines(keepends=True)
    try:
        kept = [line for line in lines if _parse(line)["step"] <= step]
    except (ValueError, KeyError) as error:
        raise ModelNotUsable(
            f"not a record of a training ({error})", where=path, remedy="delete it to continue without the past"
        ) from None
    publish(path, b"".join(kept))


def _parse(line: bytes) -> dict[str, Any]:
    """The record in a line; raises ValueError or KeyError if it has no step, or a number that is not finite."""
    record = parse_object(line)
    if type(record["step"]) is not int:
        raise ValueError(f"its step is {record['step']!r:.100}")
    for name, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    return record


class _Board:
    """A file of events for TensorBoard. Its own writer writes in a thread, which nobody is told of where the disk fails."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Begin a file after step `first_step`: TensorBoard drops later steps of earlier files. Raises ImportError, OSError."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard import summary

        self._event, self._summary, self._summaries = Event, summary, Summary
        files.make_folder(folder)
        name = f"events.out.tfevents.{time.time():020.9f}.{socket.gethostname()}.{os.getpid()}"  # they are read in this order
        self._file = files.open_stream(folder / name, "ab", folder.parent, buffering=0)
        self._writer = RecordWriter(SimpleNamespace(write=functools.partial(write_record, self._file)))
        try:
            self._add(file_version="brain.Event:2")
            self._add(step=first_step + 1, session_log=SessionLog(status=SessionLog.START))
        except BaseException:
            self.close()
            raise

    def add(self, name: str, value: float | list[float], step: int) -> None:
        """Add a number, or the histogram of a list."""
        if isinstance(value, list):
            self._add(step=step, summary=self._summary.histogram(name, np.array(value), BINS))
        else:
            self._add(step=step, summary=self._summary.scalar(name, value))

    def picture(self, name: str, png: bytes, step: int) -> None:
        """Add a picture; its size is read from the PNG's header."""
        width, height = struct.unpack(">II", png[16:24])
        image = self._summaries.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
        self._add(step=step, summary=self._summaries(value=[self._summaries.Value(tag=name, image=image)]))

    def _add(self, **what: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **what).SerializeToString())

    def close(self) -> None:
        self._file.close()


def _tensorboard(folder: Path, first_step: int) -> _Board | None:
    try:
        return _Board(folder, first_step)
    except ImportError:
        return None
