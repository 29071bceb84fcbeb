"""Videos, or folders of pictures, with tables of the actions: one episode each.

    FROM/ride_1.mp4      FROM/ride_1.csv       the video of an episode, and its table
    FROM/ride_2/0.png …  FROM/ride_2.parquet   or its frames as pictures

Row t of a table is the action that was chosen on frame t, what it brought, and whether it ended the episode. A whole episode
has one row fewer than frames. If there are as many, no frame follows the action of the last row. This row is left out, and the
episode counts as cut there, unless the row before says that it ended. Any other count is refused.
"""

import functools
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.importing.action_table import END_COLUMNS, EPISODE, ActionColumns
from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.decoding import picture, video_frames, video_shape
from worldmodel_v.importing.episode_files import frame_files, tables, unused_tables, videos
from worldmodel_v.importing.frames import LazyFrames
from worldmodel_v.importing.recording import Lack, Recorded, Recording, named
from worldmodel_v.importing.tables import Table, read_table
from worldmodel_v.records import NO_SEED
from worldmodel_v.settings import local_path


@dataclass(frozen=True, kw_only=True)
class VideoImportConfig(ImportConfig):
    """Videos or folders of PNG or JPEG frames, one for each episode, with actions in CSV, parquet or npz.

    A table stands beside each video, with the same name: ride_1.mp4 and ride_1.csv. Row t is the action on frame t.
    """

    actions: str | None = None
    """Where the tables are, if not beside the videos: a folder, or one table with a column `episode`, from 0."""

    action: tuple[str, ...] = ()
    """Columns of the action; by default `action`, or action_0, action_1, …"""

    reward: str = "reward"
    """The column of rewards, if there is one."""

    terminated: str = "terminated"
    """The column that is 1 where the world ended the episode, else 0, if there is one."""

    truncated: str = "truncated"
    """The column that is 1 where something else ended it, else 0, if there is one."""

    seed: str = "seed"
    """The column of the seed, the same in each row, if there is one."""

    name: ClassVar[str] = "video"
    placement: ClassVar[str] = (
        "row t of a table: the action chosen on frame t, what it brought, whether it ended the episode; with as many rows as "
        "frames, no frame follows the last action"
    )

    def open(self) -> Recording:
        return VideoRecording(self)

    @property
    def options(self) -> dict[str, Any]:
        """Without `actions`: the tables are known by their hashes, wherever they lie."""
        return {name: value for name, value in super().options.items() if name != "actions"} | {"action": [*self.action]}

    def columns(self, table: Table, where: Path, *, is_shared: bool) -> ActionColumns:
        """The columns of a table, which may be that of all episodes; raises ConfigError if one that was named is not there."""
        defaults = {each.name: each.default for each in fields(self)}
        named = {part: getattr(self, part) for part in ("reward", *END_COLUMNS, "seed")}
        parts = {part: (name, name != defaults[part]) for part, name in named.items()}
        index = (EPISODE,) if is_shared else ()
        return ActionColumns.of(table, where, action=self.action, index=index, without=self.without, **parts)


class VideoRecording(Recording):
    """See the module's head."""

    frames = "render"

    def __init__(self, config: VideoImportConfig) -> None:
        """Raises DatasetNotUsable if videos, tables or columns are missing, ConfigError if a column is not there."""
        source = Path(config.from_).absolute()
        place = None if config.actions is None else local_path(config.actions).absolute()
        self._videos = videos(source)
        self._tables = tables(self._videos, place)
        shared = dict.fromkeys(self._tables)
        self.root = Path(os.path.commonpath([str(path) for path in (source, *shared)]))
        self.files = (*(file for video in self._videos for file in frame_files(video)), *shared)
        self.num_episodes = len(self._videos)
        self._without = config.without
        first = read_table(self._tables[0], self._without)
        is_one_file = place is not None and place.is_file()
        self._is_shared = is_one_file and (self.num_episodes > 1 or EPISODE in first)
        self._names, self._columns = tuple(first), config.columns(first, self._tables[0], is_shared=self._is_shared)
        self._is_equal = len(self._columns.actions(self._table(0))) == len(_frames(self._videos[0]))
        unused = [f"{path.name}: left out, no video has its name" for path in unused_tables(shared, place or source)]
        self.lacks, self.notes = self._lacks(), (*self._notes(), *unused)

    def where(self, number: int) -> str:
        return str(self._videos[number])

    def episode(self, number: int) -> Recorded:
        table, where = self._table(number), self._tables[number]
        frames, columns = _frames(self._videos[number]), self._columns
        columns.require_in_order(table, where)
        num_rows, num_steps = len(columns.actions(table)), len(frames) - 1
        if num_rows not in (num_steps, num_steps + 1) or (num_rows > num_steps) != self._is_equal:
            expected = f"{num_steps} or {num_steps + 1} rows of actions in {where}"
            if number:
                how = "as many as frames" if self._is_equal else "one less than frames"
                expected = f"{num_steps + self._is_equal} rows of actions in {where}, {how}, as for {self._videos[0]}"
            raise DatasetNotUsable(f"has {len(frames)} frames", where=self._videos[number], expected=expected, got=num_rows)
        if num_steps < 1:
            raise DatasetNotUsable(where=self._videos[number], expected="at least two frames", got=len(frames))
        if self._is_equal:
            columns.require_no_outcome_alone(table, where)
        terminated, truncated = columns.outcome(table, num_steps, where)
        return Recorded(
            frames=frames,
            action=columns.actions(table)[:num_steps],
            reward=table[columns.reward][:num_steps] if columns.reward else None,
            terminated=terminated,
            truncated=truncated,
            extras=columns.beside_frames(table, num_steps + 1),
            seed=columns.seed_of(table, where),
        )

    def _table(self, number: int) -> Table:
        """The episode's rows; raises DatasetNotUsable if its columns are others than in the first table."""
        path = self._tables[number]
        table = _read(path, path.stat().st_mtime_ns, self._without)
        if tuple(table) != self._names:
            raise DatasetNotUsable("has other columns", where=path, expected=", ".join(self._names), got=", ".join(table))
        self._columns.require_numbers(table, path)
        if not self._is_shared:
            return table
        if EPISODE not in table:
            expected = f"a column {EPISODE}, from 0 in the order of the videos' names"
            raise DatasetNotUsable("is the table of several videos", where=path, expected=expected)
        if not np.isin(table[EPISODE], range(self.num_episodes)).all():
            expected = f"{EPISODE}: 0 to {self.num_episodes - 1}, as there are videos"
            raise DatasetNotUsable(where=path, expected=expected, got=np.unique(table[EPISODE])[[0, -1]].tolist())
        return {name: rows[table[EPISODE] == number] if rows.ndim else rows for name, rows in table.items()}

    def _lacks(self) -> tuple[Lack, ...]:
        columns, seeds, acts_last = self._columns, set[int | None](), False
        for number in range(self.num_episodes):
            table = self._table(number)
            with named(str(self._tables[number])):
                seeds.add(columns.seed_of(table, self._tables[number]))
                acts_last = acts_last or (self._is_equal and columns.acts_last(table, self._tables[number]))
        lacks: list[Lack] = ["final observation"] if acts_last else []
        lacks += ["reward"] if columns.reward is None else []
        lacks += ["termination"] if columns.terminated is None else []
        lacks += ["seed"] if seeds & {None, NO_SEED} else []
        return tuple(lacks)

    def _notes(self) -> tuple[str, ...]:
        extras = ", ".join(self._columns.extras)
        left_out = ", ".join(name for name in self._columns.left_out if name not in self._without)
        notes = [f"{left_out}: left out, it has no number for each row"] if left_out else []
        if extras and not self._is_equal:
            notes.append(f"{extras}: no value beside the final frame, so it is NaN there, and whole numbers are float64")
        return tuple(notes)


@functools.lru_cache(maxsize=1)
def _read(path: Path, changed: int, without: tuple[str, ...]) -> Table:
    """One table may be that of many episodes."""
    return read_table(path, without)


def _frames(video: Path) -> LazyFrames:
    if video.is_file():
        return LazyFrames(video_shape(video), lambda: (frame for _, frame in video_frames(video)), video)
    pictures = frame_files(video)
    shape = (len(pictures), *picture(pictures[0], pictures[0]).shape)
    return LazyFrames(shape, lambda: (picture(path, path) for path in pictures), video)
