"""The seam: what somebody else recorded, opened, whatever its format.

Legend: T actions of an episode, H, W frame, C channels (1 or 3), S factors of the ground truth.

A format gives what stands in its files and says what it lacks. It invents nothing: rows that the files do not have are marked
as missing (`importing.columns`), or left out, and the user is told.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import gymnasium
import numpy as np

from worldmodel_v.envs.parts import OBSERVATION
from worldmodel_v.errors import ConfigError, DatasetNotUsable, UsageError, WorldModelError, one_line, retold
from worldmodel_v.importing.frames import LazyFrames
from worldmodel_v.surface import option

Lack = Literal["final observation", "reward", "termination", "truncation", "seed"]

LACKS: dict[Lack, str] = {
    "final observation": "no frame follows the last action of some or all episodes, so this action is left out with what it "
    "brought, and such an episode ends one action earlier, as cut there (truncated)",
    "reward": "no rewards, so they are NaN in every row",
    "termination": "not whether the world ended an episode, so each is taken for cut at its end (truncated)",
    "truncation": "not whether an end was the world's or a time limit's, so each is taken for the world's (terminated)",
    "seed": "no seed of some or all episodes, so it is -1 there",
}
"""What a recording may lack, and what an import does about it, in words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """One episode as somebody else recorded it: T actions, at least one, and T + 1 frames."""

    frames: np.ndarray | LazyFrames
    """uint8 (T + 1, H, W, C) or (T + 1, H, W): each frame that was acted on, and the final one; the same size everywhere."""

    action: np.ndarray
    """(T, …), of the action space: action t was chosen on frame t."""

    reward: np.ndarray | None
    """(T,): what each action brought; None if the recording lacks it."""

    terminated: bool
    """Whether the world ended the episode with the last action."""

    truncated: bool
    """Whether something else ended it there; if neither is said, it was."""

    state: np.ndarray | None = None
    """(T + 1, S): the ground truth, if the recording has `state_names`."""

    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(T + 1, …) each: further columns of numbers, the same in each episode."""

    seed: int | None = None
    """What the environment was reset with."""

    policy: str | None = None
    """Who acted, if it is another than the recording's `policy`."""


class Recording(ABC):
    """Somebody else's recording, opened. It is sent to workers, so it is picklable and holds no open file."""

    root: Path
    """The directory, or the file, that the user named."""

    files: tuple[Path, ...]
    """Every file that is read, below `root` (or `root` itself)."""

    num_episodes: int

    action_space: gymnasium.Space | None = None
    """Where actions come from, if the recording says so; never a guess from the values."""

    observation_space: gymnasium.Space | None = None
    """The environment's own, if the recording says so."""

    env: str | None = None
    """The environment's name, if the recording says so."""

    policy: str = "recorded"

    frames: str = OBSERVATION
    """What the frames are: `observation`, a part of it by its path (`observation.image`), or `render`."""

    licence: str | None = None
    """As the recording names it."""

    lacks: tuple[Lack, ...] = ()
    """What it never has."""

    state_names: tuple[str, ...] = ()

    notes: tuple[str, ...] = ()
    """What else the user should know, such as what is left out: a sentence each."""

    settings: Mapping[str, Any] = MappingProxyType({})
    """What the recording says about itself and belongs into `dataset.json`, as JSON values."""

    @abstractmethod
    def episode(self, number: int) -> Recorded:
        """Episode `number`, from 0; raises DatasetNotUsable if its file is not as it should be."""

    def where(self, number: int) -> str:
        """Where episode `number` stands, for a message."""
        return f"{self.root}: episode {number}"


@contextmanager
def reading(where: object) -> Iterator[None]:
    """Raise DatasetNotUsable, in a line, for whatever a library raises about a file of a stranger."""
    with retold(lambda error: DatasetNotUsable(f"cannot be read: {one_line(error)}", where=where, remedy=REMEDY)):
        yield


@contextmanager
def named(where: str) -> Iterator[None]:
    """Around the reading of an episode: an error about its data names it, and is the user's to mend (`UsageError`)."""
    try:
        yield
    except ConfigError:
        raise
    except WorldModelError as error:
        if error.where is not None:
            raise
        told = type(error) if isinstance(error, UsageError) else DatasetNotUsable
        raise told(error.what, **error.parts | {"where": where}) from None


def further(names: Iterable[str], without: Collection[str], where: object) -> tuple[str, ...]:
    """A recording's further columns but those that the user leaves out; raises ConfigError if one of these is none of them."""
    columns = [*names]
    if unknown := [name for name in without if name not in columns]:
        raise ConfigError(
            "there is no such further column",
            where=where,
            field="without",
            got=unknown[0],
            expected=", ".join(map(str, columns)) or "nothing",
        )
    return tuple(name for name in columns if name not in without)


def leave_out(name: str) -> str:
    """What to do about a column that no dataset can hold."""
    return f"if it is a further column, leave it out with {option('without', name)}"


REMEDY = "restore it from a copy"


def without_last_action(recorded: Recorded) -> Recorded:
    """An episode of T frames and T actions, whose final observation nobody recorded, as one of T - 1 actions, cut there.

    Raises DatasetNotUsable if nothing is left.
    """
    if len(recorded.action) < 2:
        raise DatasetNotUsable(expected="at least two frames, since no frame follows the last action", got=len(recorded.frames))
    return Recorded(
        **vars(recorded)
        | {
            "action": recorded.action[:-1],
            "reward": None if recorded.reward is None else recorded.reward[:-1],
            "terminated": False,
            "truncated": True,
        }
    )
