"""A policy that kills its own process once: in the middle of an episode, the first time that any process runs it."""

import os
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from worldmodel_v.policies import RandomPolicy


class DiesOnce(RandomPolicy):
    """Random actions; the environment variable DEADLY_MARKER names the file that says that the death has happened."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._marker = Path(os.environ["DEADLY_MARKER"])
        self._acts = 0

    def act(self, frame: np.ndarray) -> Any:
        self._acts += 1
        if self._acts == 5 and not self._marker.exists():
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().act(frame)
