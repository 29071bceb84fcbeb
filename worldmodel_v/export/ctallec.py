"""ctallec/world-models: frames as one `.npz` for each episode, in sub-folders, for data/loaders.py.

Its recorder stores each action with the frame that it led to. Its loader pairs frames t and t + 1 with action, reward and
terminal of row t + 1. So here, too, a row's action, reward and terminal are those that led to its frame. Row 0 has none, and
the loader never reads them there. All T + 1 frames are in the file, so no transition is lost. The loader takes every file in
a sub-folder for an episode, but ignores files at the top, so `source.json` is there.

Its trainer views every batch as 16 windows, also the last one of a buffer (10 or 30 files). So it stops with an error if a
buffer's windows are no multiple of 16. A file of N rows has N - 32 windows. Multiples of 16 rows always fit. Equal multiples of
8 fit if the number of files is even, like the 1,000 rows of its own recorder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.export import notes
from worldmodel_v.export.config import ExportConfig, Written
from worldmodel_v.export.lengths import led_here
from worldmodel_v.export.npz_file import write_npz
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.surface import option

EPISODES_PER_FOLDER = 1000
HELD_OUT_FILES = 600
FRAME_SIZE = 64
ACTION_SIZE = 3
WINDOW_ROWS = 33
BATCH_WINDOWS = 16
WHOLE_BATCH_ROWS = WINDOW_ROWS - 1 + BATCH_WINDOWS
"""The fewest rows of a file whose windows fill batches."""


@dataclass(frozen=True, kw_only=True)
class CtallecConfig(ExportConfig):
    """Frames as FOLDER/rollout_N.npz (observations, actions, rewards, terminals), for ctallec/world-models.

    Give datasets/carracing of its checkout as --out. Its trainmdrnn.py takes frames of 64x64.
    """

    whole_batches: bool = False
    """Cut episodes at their start to multiples of 16 rows, and leave out those below 48; trainmdrnn.py needs full batches."""

    name: ClassVar[str] = "ctallec"
    reads: ClassVar[tuple[type[Any], ...]] = (RolloutSpec,)
    alignment: ClassVar[str] = "row t: the frame o_t, and action, reward and terminal of a_t-1, which led to it; row 0 has none"

    def write(self, source: Source[RolloutSpec], folder: Path, progress: Progress) -> Written:
        rows = self._num_rows(source)
        task = progress.task("export", int((rows > 0).sum()), "episodes")
        for episode, num_rows in zip(source.episodes(rows > 0), rows[rows > 0].tolist(), strict=True):
            sub_folder = folder / f"episodes_{episode.episode_id // EPISODES_PER_FOLDER:04d}"
            sub_folder.mkdir(exist_ok=True)
            arrays = {
                "observations": episode.pixels,
                "actions": led_here(source.actions(episode)),
                "rewards": led_here(episode.reward[:-1]),
                "terminals": led_here(episode.terminated[:-1]),
            }
            last = {name: array[-num_rows:] for name, array in arrays.items()}
            write_npz(sub_folder / f"rollout_{episode.episode_id:06d}.npz", last)
            task.advance()
        task.close()
        said = [*notes.no_truncation(source, "terminals"), *notes.not_held(source), *notes.action_vectors(source)]
        said += [*_notes_on_left_out(source, rows), *_notes_on_its_code(source, rows[rows > 0])]
        return Written(int(rows.sum()), said, source.episode_ids[rows > 0].tolist())

    def check(self, source: Source[RolloutSpec]) -> None:
        if not self._num_rows(source).any():
            raise DatasetNotUsable(
                f"no episode has {WHOLE_BATCH_ROWS} rows (the longest has {source.num_steps.max() + 1})",
                where=self.data,
                remedy=f"leave out {option('whole_batches', True)}",
            )

    def _num_rows(self, source: Source[RolloutSpec]) -> np.ndarray:
        """int64 (E,): the last so many rows of each episode are written; 0 if it is left out."""
        rows = source.num_steps + 1
        if not self.whole_batches:
            return rows
        return np.where(rows >= WHOLE_BATCH_ROWS, rows - rows % BATCH_WINDOWS, 0)


def _fills_batches(rows: np.ndarray) -> bool:
    """Whether the windows of every buffer are a multiple of 16, whichever of these files are in it."""
    alike = len(set(rows.tolist())) == 1 and rows[0] % (BATCH_WINDOWS // 2) == 0 and len(rows) % 2 == 0
    return alike or not (rows % BATCH_WINDOWS).any()


def _notes_on_left_out(source: Source[RolloutSpec], rows: np.ndarray) -> list[str]:
    before = source.num_steps + 1
    said = []
    if short := int((rows == 0).sum()):
        said.append(f"whole batches: {short} of {len(rows)} episodes have fewer than {WHOLE_BATCH_ROWS} rows and are left out")
    if cut := int((before - rows)[rows > 0].sum()):
        said.append(
            f"whole batches: the first rows of {int((before > rows)[rows > 0].sum())} episodes are left out, {cut} of "
            f"{int(before[rows > 0].sum())} rows"
        )
    return said


def _notes_on_its_code(source: Source[RolloutSpec], rows: np.ndarray) -> list[str]:
    """Constants of its code that this dataset does not meet; `rows` are those of each file."""
    said = []
    if len(rows) <= HELD_OUT_FILES:
        said.append(
            f"data/loaders.py: keeps the last {HELD_OUT_FILES} files for testing, which leaves none to train on; "
            f"lower {HELD_OUT_FILES} there"
        )
    height, width = source.schema["pixels"].row_shape[:2]
    if (height, width) != (FRAME_SIZE, FRAME_SIZE):
        said.append(
            f"trainmdrnn.py: takes {FRAME_SIZE}x{FRAME_SIZE} frames, these are {height}x{width}; "
            + (f"set SIZE in utils/misc.py to {height}" if height == width else "it takes no others than square ones")
        )
    if source.action_size != ACTION_SIZE:
        said.append(f"utils/misc.py: set ASIZE to {source.action_size}; it is {ACTION_SIZE} there")
    if not _fills_batches(rows):
        said.append(
            f"trainmdrnn.py: stops with an error in a batch of fewer than {BATCH_WINDOWS} windows, which these lengths give "
            f"({rows.min()} to {rows.max()} rows, each file has its rows - {WINDOW_ROWS - 1} windows); export with "
            f"{option('whole_batches', True)}, which writes multiples of {BATCH_WINDOWS} rows"
        )
    if short := int((rows < WINDOW_ROWS).sum()):
        said.append(
            f"trainmdrnn.py: {short} episodes have fewer than the {WINDOW_ROWS} rows of its window; lower SEQ_LEN there"
        )
    return said
