"""Procgen's games as Gymnasium environments, a level for each seed:

    pip install --no-deps procgen-mirror gym3 gym gym-notices
    PYTHONPATH=examples wm-collect --env procgen_world:Procgen/coinrun-v0 --out runs/coinrun

Procgen speaks the interface of before Gymnasium, and asks for an older NumPy, which it does not need. It begins the next
episode by itself and never shows the frame behind the last action: an episode's last frame here is the one before it.
"""

from typing import Any

import gymnasium
import numpy as np
from procgen import ProcgenGym3Env

GAMES = (
    *("bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot"),
    *("heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot"),
)
LEVELS = 2**31
"""Levels have numbers below; a seed beyond is taken modulo it."""


class Procgen(gymnasium.Env):
    """One game; frames are uint8 (64, 64, 3). Further arguments are Procgen's: `distribution_mode`, `use_backgrounds`, …"""

    metadata: dict[str, Any] = {"render_modes": []}
    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(15)

    def __init__(self, game: str, **arguments: Any) -> None:
        self._make = {"env_name": game, "num": 1, "num_levels": 1, "num_threads": 0, **arguments}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        level = int(self.np_random.integers(LEVELS)) if seed is None else seed % LEVELS
        self._game = ProcgenGym3Env(**self._make, start_level=level, rand_seed=level)
        self._frame = self._game.observe()[1]["rgb"][0]
        return self._frame, {"level": level}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._game.act(np.array([action]))
        reward, observation, is_first = self._game.observe()
        if not is_first[0]:
            self._frame = observation["rgb"][0]
        return self._frame, float(reward[0]), bool(is_first[0]), False, {}


for game in GAMES:
    gymnasium.register(f"Procgen/{game}-v0", entry_point=Procgen, kwargs={"game": game})
