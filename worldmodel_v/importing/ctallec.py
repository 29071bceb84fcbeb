"""ctallec/world-models: `FOLDER/rollout_N.npz` with `observations`, `actions`, `rewards`, `terminals`, of data/carracing.py.

Its recorder does not keep the frame of the reset. It steps, and then appends the frame that the action led to, beside the
action's reward and end. So row t holds what a_t-1 led to, and the action of a row stands one row earlier here:

    its row      observations o_t+1 ∙ actions a_t ∙ rewards r_t ∙ terminals d_t
    a row here   frame o_t ∙ a_t, r_t, d_t (its next row)

The first row's action led from a frame that nobody has, so it is left out with its reward; nothing else is lost. The
recorder draws 1,000 actions before it begins and saves them all. Those after the end were never taken, and are left out.

`terminals` are Gym's `done`, which is also true at CarRacing's limit of 1,000 steps, so they do not tell a time limit from an
end. wm-export ctallec writes the same layout, with an empty first row.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.importing.columns import flags
from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.npz_files import read_arrays
from worldmodel_v.importing.npz_folder import NpzFolder
from worldmodel_v.importing.recording import Recorded, Recording

ARRAYS = ("observations", "actions", "rewards", "terminals")
FIRST_ACTION = "the first action of each episode, with its reward: left out, since the frame that it was chosen on is not there"


@dataclass(frozen=True, kw_only=True)
class CtallecImportConfig(ImportConfig):
    """Episodes as FOLDER/rollout_N.npz (observations, actions, rewards, terminals), which ctallec/world-models records.

    Give datasets/carracing of its checkout as --from. It stores each action with the frame that it led to. The first action's
    own frame is not there, so that this action is left out.
    """

    name: ClassVar[str] = "ctallec"
    placement: ClassVar[str] = "row t: the frame o_t, and action, reward and terminal of a_t-1, which led to it"

    def open(self) -> Recording:
        return _Rollouts(Path(self.from_), self.without)


class _Rollouts(NpzFolder):
    lacks = ("truncation", "seed")

    def __init__(self, root: Path, without: tuple[str, ...]) -> None:
        super().__init__(root, required=ARRAYS, below=True)
        self.notes = (FIRST_ACTION, *self.left_out(ARRAYS, without))

    def episode(self, number: int) -> Recorded:
        """As `Recording` says."""
        frames, actions, rewards, terminals = read_arrays(self.files[number], ARRAYS).values()
        num_rows = len(np.atleast_1d(frames))
        for name, rows in (("rewards", rewards), ("terminals", terminals)):
            if rows.shape[:1] != (num_rows,):
                raise DatasetNotUsable(expected=f"{num_rows} rows of {name}, one for each frame", got=rows.shape)
        if actions.ndim == 0 or len(actions) < num_rows:
            raise DatasetNotUsable(expected=f"at least {num_rows} actions, one for each frame", got=actions.shape)
        ends = np.any(flags("terminals", terminals).reshape(num_rows, -1), axis=1)
        if ends[:-1].any():
            raise DatasetNotUsable(
                f"terminal in row {int(ends.argmax())}, and the episode goes on", expected="one episode a file"
            )
        return Recorded(
            frames=frames,
            action=actions[1:num_rows],
            reward=rewards[1:],
            terminated=bool(ends[-1]),
            truncated=not ends[-1],
        )
