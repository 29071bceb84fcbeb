"""hardmaru/WorldModelsExperiments, the paper's code: `carracing/record/SEED.npz` with `obs` and `action`, of extract.py.

Its recorder appends the frame, chooses an action on it, and appends that: row t holds o_t and a_t, as here. It ends without the
frame that the last action led to, after 1,000 actions, and its environment never says that an episode ended. It records no
rewards. The file's name is the seed, of the environment and of its random policy.

Actions are float16, as its recorder rounds them, and the environment received them before this rounding. Frames are 64x64 as
its env.py makes them, in colours of its own: the contrast of each frame is stretched. They are kept as they are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.npz_files import read_arrays
from worldmodel_v.importing.npz_folder import NpzFolder
from worldmodel_v.importing.recording import Recorded, Recording, without_last_action
from worldmodel_v.records import MAX_SEED

ARRAYS = ("obs", "action")


@dataclass(frozen=True, kw_only=True)
class HardmaruImportConfig(ImportConfig):
    """Frames and actions as SEED.npz (obs, action), which extract.py of hardmaru/WorldModelsExperiments records for CarRacing.

    Give carracing/record of its checkout as --from. There are no rewards, no ends of episodes, and no frame after the last
    action, so that this action is left out.
    """

    name: ClassVar[str] = "hardmaru"
    placement: ClassVar[str] = "row t: the frame o_t and the action a_t chosen on it; no frame follows the last action"

    def open(self) -> Recording:
        return _Record(Path(self.from_), self.without)


class _Record(NpzFolder):
    policy = "random network"

    def __init__(self, root: Path, without: tuple[str, ...]) -> None:
        super().__init__(root, required=ARRAYS)
        self.notes = self.left_out(ARRAYS, without)
        seeded = all(path.stem.isdecimal() and int(path.stem) <= MAX_SEED for path in self.files)
        self.lacks = ("final observation", "reward", "termination", *(() if seeded else ("seed",)))

    def episode(self, number: int) -> Recorded:
        """As `Recording` says."""
        path = self.files[number]
        frames, action = read_arrays(path, ARRAYS).values()
        recorded = Recorded(
            frames=frames,
            action=action,
            reward=None,
            terminated=False,
            truncated=True,
            seed=int(path.stem) if path.stem.isdecimal() else None,
        )
        return without_last_action(recorded)
