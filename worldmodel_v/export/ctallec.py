"""ctallec/world-models: frames as one `.npz` for each episode, in sub-folders, for data/loaders.py.

Its recorder stores each action with the frame that it led to. Its loader pairs frames t and t + 1 with action, reward and
terminal of row t + 1. So here, too, a row's action, reward and terminal are those that led to its frame. Row 0 has none, and
the loader never reads them there. All T + 1 frames are in the file, so no transition is lost. The loader takes every file in
a sub-folder for an episode, but ignores files at the top, so `source.json` is there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from worldmodel_v.export import notes
from worldmodel_v.export.config import ExportConfig, Written
from worldmodel_v.export.lengths import led_here
from worldmodel_v.export.npz_file import write_npz
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.spec import RolloutSpec

EPISODES_PER_FOLDER = 1000
HELD_OUT_FILES = 600
FRAME_SIZE = 96
WINDOW_ROWS = 33


@dataclass(frozen=True, kw_only=True)
class CtallecConfig(ExportConfig):
    """Frames as FOLDER/rollout_N.npz (observations, actions, rewards, terminals), for ctallec/world-models.

    Give datasets/carracing of its checkout as --out. Its trainmdrnn.py takes frames of 96x96: collect with --frame-size 96.
    """

    name: ClassVar[str] = "ctallec"
    reads: ClassVar[tuple[type[Any], ...]] = (RolloutSpec,)
    alignment: ClassVar[str] = "row t: the frame o_t, and action, reward and terminal of a_t-1, which led to it; row 0 has none"

    def write(self, source: Source[RolloutSpec], folder: Path, progress: Progress) -> Written:
        task = progress.task("export", source.num_episodes, "episodes")
        for episode in source.episodes():
            sub_folder = folder / f"episodes_{episode.episode_id // EPISODES_PER_FOLDER:04d}"
            sub_folder.mkdir(exist_ok=True)
            arrays = {
                "observations": episode.pixels,
                "actions": led_here(source.actions(episode)),
                "rewards": led_here(episode.reward[:-1]),
                "terminals": led_here(episode.terminated[:-1]),
            }
            write_npz(sub_folder / f"rollout_{episode.episode_id:06d}.npz", arrays)
            task.advance()
        task.close()
        said = [*notes.no_truncation(source, "terminals"), *notes.not_held(source), *notes.one_hot_actions(source)]
        return Written(source.num_rows, [*said, *_notes_on_its_code(source)], source.episode_ids.tolist())


def _notes_on_its_code(source: Source[RolloutSpec]) -> list[str]:
    """Constants of its code that this dataset does not meet."""
    said = []
    if source.num_episodes <= HELD_OUT_FILES:
        said.append(
            f"data/loaders.py: keeps the last {HELD_OUT_FILES} files for testing, which leaves none to train on; "
            f"lower {HELD_OUT_FILES} there"
        )
    height, width = source.schema["pixels"].row_shape[:2]
    if (height, width) != (FRAME_SIZE, FRAME_SIZE):
        said.append(
            f"trainmdrnn.py: takes {FRAME_SIZE}x{FRAME_SIZE} frames, these are {height}x{width}; set SIZE in utils/misc.py"
        )
    if short := int((source.num_steps + 1 < WINDOW_ROWS).sum()):
        said.append(
            f"trainmdrnn.py: {short} episodes have fewer than the {WINDOW_ROWS} rows of its window; lower SEQ_LEN there"
        )
    return said
