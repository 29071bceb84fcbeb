"""`worldmodel_v/Stamp-v0`: a toy world whose frames say which step and which action they belong to.

Every frame is a grid of four flat squares, one byte value each, so that cropping and area averaging keep the values:

    +-----------+-----------+      step:     t, the number of actions taken so far
    | step      | action    |      action:   the stamp of the action that led here (0 in the first frame)
    +-----------+-----------+      episode:  drawn from the reset seed
    | episode   | return    |      return:   the stamps so far, added up modulo 256
    +-----------+-----------+

The reward of an action is its stamp plus the step at which it was taken, so a shift by one row shows in every column.
"""

from typing import Any

import gymnasium
import numpy as np

NUM_DISCRETE_ACTIONS = 5


class StampEnv(gymnasium.Env):
    """A deterministic environment for exact tests of alignment; see the module's head."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(
        self,
        length: int = 20,
        ending: str = "terminated",
        size: int = 64,
        discrete: bool = False,
        image_observation: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """`length` actions an episode, plus 0 to 3 more by seed; `ending` is "terminated" or "truncated"."""
        self.length, self.ending, self.size, self.render_mode = length, ending, size, render_mode
        self.discrete, self.image_observation = discrete, image_observation
        actions = gymnasium.spaces
        self.action_space = (
            actions.Discrete(NUM_DISCRETE_ACTIONS) if discrete else actions.Box(-1.0, 1.0, shape=(2,), dtype=np.float32)
        )
        image = actions.Box(0, 255, shape=(size, size, 3), dtype=np.uint8)
        self.observation_space = image if image_observation else actions.Box(0, 255, shape=(4,), dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.stamps = [0, 0, int(self.np_random.integers(256)), 0]
        self.end = self.length + int(self.np_random.integers(4))
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        step, _, episode, total = self.stamps
        stamp = action_stamp(action)
        self.stamps = [step + 1, stamp, episode, (total + stamp) % 256]
        ended = step + 1 == self.end
        terminated, truncated = ended and self.ending == "terminated", ended and self.ending == "truncated"
        return self._observation(), float(stamp + step), terminated, truncated, {}

    def render(self) -> np.ndarray:
        half = self.size // 2
        squares = np.array(self.stamps, dtype=np.uint8).reshape(2, 2)
        return np.repeat(np.kron(squares, np.ones((half, half), np.uint8))[:, :, None], 3, axis=2)

    def ground_truth(self) -> dict[str, float]:
        """What the pipeline records as `state`."""
        return dict(zip(("step", "action_stamp", "episode_stamp", "return_stamp"), map(float, self.stamps), strict=True))

    def _observation(self) -> np.ndarray:
        return self.render() if self.image_observation else np.array(self.stamps, dtype=np.float32)


def action_stamp(action: Any) -> int:
    """The byte that stands for an action: its index plus 1, or the first component of [-1, 1] spread over 1 to 201."""
    if np.ndim(action) == 0:
        return int(action) + 1
    return int(np.floor((np.float64(np.ravel(action)[0]) + 1) * 100)) + 1


def read_stamps(frame_HWC: np.ndarray) -> tuple[int, int, int, int]:
    """(step, action, episode, return) as a frame of this environment shows them."""
    quarter, rest = frame_HWC.shape[0] // 4, 3 * frame_HWC.shape[0] // 4
    return tuple(int(frame_HWC[y, x, 0]) for y in (quarter, rest) for x in (quarter, rest))  # type: ignore[return-value]
