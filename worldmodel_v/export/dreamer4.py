"""nicklashansen/dreamer4: the actions and rewards of a task in one `.pt`, beside shards of 2,048 frames.

Its WMDataset takes frames t to t + T with the actions and rewards of rows t + 1 to t + T. So row t holds the action that led to
frame t, and its reward, like its own data; an episode's first row holds NaN, which it takes for no transition. All T + 1 frames
are there. Windows stay inside of an episode, which `episode` numbers. Actions have 16 values there, of which tasks.json says
how many count: the others are 0.

PyTorch's writer ends in an error of its own when the disk is full, so it writes through a file that remembers the cause.

Legend: N rows of all episodes, T actions of an episode, A action size, H, W frame.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.errors import ConfigError
from worldmodel_v.export import notes
from worldmodel_v.export.config import ExportConfig, Written
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.records import Episode
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage.hdf5_file import Disk

SHARD_FRAMES, ACTION_SIZE, FRAME_SIZE = 2048, 16, 128
"""Constants of its code: `SHARD_SIZE` of preprocess_dataset.py, `action_dim` and `img_size` of train_dynamics.py."""

TASK = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Dreamer4Config(ExportConfig):
    """Frames as frames/TASK/TASK_shard0000.pt, and data/TASK.pt (episode, action, reward), for nicklashansen/dreamer4.

    Give OUT/data as --data_dirs, OUT/frames as --frame_dirs and OUT/tasks.json as --tasks_json of its train_dynamics.py.
    """

    task: str | None = None
    """The name of the task, which the files have too. Default: the environment's id, without what is before the last slash."""

    name: ClassVar[str] = "dreamer4"
    reads: ClassVar[tuple[type[Any], ...]] = (RolloutSpec,)
    alignment: ClassVar[str] = (
        "row t: the frame o_t, and action and reward of a_t-1, which led to it; an episode's first row has NaN for both"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task is not None and not TASK.fullmatch(self.task):
            raise ConfigError(field="task", expected="a name for files, of letters, digits, dots and dashes", got=self.task)

    def check(self, source: Source[RolloutSpec]) -> None:
        if source.action_size > ACTION_SIZE:
            raise ConfigError(
                f"dreamer4 has actions of at most {ACTION_SIZE} values, these have {source.action_size}", where=self.data
            )

    def write(self, source: Source[RolloutSpec], folder: Path, progress: Progress) -> Written:
        import torch

        task = self.task or _task_of(source.dataset.spec.env)
        rows: dict[str, np.ndarray] = {
            "episode": np.repeat(np.arange(source.num_episodes), source.num_steps + 1),
            "action": np.zeros((source.num_rows, ACTION_SIZE), np.float32),
            "reward": np.full(source.num_rows, np.nan, np.float32),
        }
        bar = progress.task("export", source.num_episodes, "episodes")
        (folder / "data").mkdir()
        (folder / "frames" / task).mkdir(parents=True)
        filled = _filling(source, rows, bar)
        for number, frames in enumerate(_shards(filled, source)):
            _save({"frames": torch.from_numpy(frames)}, folder / "frames" / task / f"{task}_shard{number:04d}.pt")
        _save({name: torch.from_numpy(part) for name, part in rows.items()}, folder / "data" / f"{task}.pt")
        described = {"instruction": task, "action_dim": source.action_size, "max_episode_steps": int(source.num_steps.max())}
        (folder / "tasks.json").write_text(json.dumps({task: described}, indent=2) + "\n")
        bar.close()
        said = ["terminated, truncated: not held", *notes.not_held(source), *notes.action_vectors(source)]
        return Written(source.num_rows, [*said, *_notes_on_its_code(source, task)], source.episode_ids.tolist())


def _task_of(env: str) -> str:
    return re.sub(r"[^\w.-]+", "-", re.split("[/:]", env)[-1]).lstrip(".-") or "task"


def _filling(source: Source[RolloutSpec], rows: dict[str, np.ndarray], bar: Any) -> Iterator[Episode]:
    """The episodes in order; the action and reward of each are put into its rows, one row later."""
    first = 0
    for episode in source.episodes():
        later = slice(first + 1, first + episode.num_rows)
        rows["action"][first] = np.nan
        rows["action"][later, : source.action_size] = source.actions(episode)
        rows["reward"][later] = episode.reward[:-1]
        first += episode.num_rows
        yield episode
        bar.advance()


def _shards(episodes: Iterator[Episode], source: Source[RolloutSpec]) -> Iterator[np.ndarray]:
    """All frames in order, uint8 (2048, 3, H, W) each and fewer in the last; an array is used again after the next is taken."""
    height, width, channels = source.schema["pixels"].row_shape
    shard, held = np.empty((SHARD_FRAMES, channels, height, width), np.uint8), 0
    for episode in episodes:
        left = episode.pixels.transpose(0, 3, 1, 2)
        while len(left):
            taken = left[: len(shard) - held]
            shard[held : held + len(taken)] = taken
            held, left = held + len(taken), left[len(taken) :]
            if held == len(shard):
                yield shard
                held = 0
    if held:
        yield shard[:held]


def _save(content: dict[str, Any], path: Path) -> None:
    import torch

    with Disk(path, "x") as disk:
        torch.save(content, disk)
        if disk.failure is not None:
            raise disk.failure


def _notes_on_its_code(source: Source[RolloutSpec], task: str) -> list[str]:
    """Constants of its code that this dataset does not meet."""
    said = [f"task_set.py: set TASK_SET to [{task!r}]; a task in it without data is an error there"]
    height, width = source.schema["pixels"].row_shape[:2]
    if (height, width) != (FRAME_SIZE, FRAME_SIZE):
        said.append(
            f"train_dynamics.py: takes {FRAME_SIZE}x{FRAME_SIZE} frames, these are {height}x{width}; "
            + (f"set img_size there to {height}" if height == width else "it takes no others than square ones")
            + f", and H and W of train_tokenizer.py to {height} and {width}"
        )
    return said
