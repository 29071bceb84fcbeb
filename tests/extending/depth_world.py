"""A world with a depth image beside its picture, and a speed in its info, for `wm-collect --env depth_world:Depth-v0`."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Depth(gymnasium.Env):
    """20 actions along a corridor."""

    metadata = {"render_modes": []}
    action_space = spaces.Discrete(3, start=-1)
    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (16, 16, 3), np.uint8),
            "depth": spaces.Box(0, np.inf, (4, 5), np.float32),
        }
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.speed = 0, float(self.np_random.uniform())
        return self._see(), {}

    def step(self, action):
        self.t, self.speed = self.t + 1, self.speed + 0.5 * int(action)
        return self._see(), float(action), self.t == 20, False, {"speed": self.speed, "lap": {"number": self.t // 7}}

    def _see(self):
        image = np.full((16, 16, 3), 10 * self.t, np.uint8)
        image[self.t % 16] = 255
        return {"image": image, "depth": np.full((4, 5), self.t + self.speed, np.float32)}


gymnasium.register("Depth-v0", entry_point="depth_world:Depth")
