"""`sb3:FILE`: a policy of Stable-Baselines3 from the zip that its `model.save` wrote, without that package and without pickle.

The network is rebuilt from the names and shapes of its weights (`sb3_network`). Spaces and activation come from the JSON beside
the weights (`sb3_zip`, `sb3_spaces`). Anything unknown is refused by name. Rejected: the package itself, because its loader
runs the code that the pickles of a zip name.
"""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces.utils import flatdim

from worldmodel_v.errors import one_line
from worldmodel_v.policies.acting import OBSERVATION

PREFIX = "sb3:"


class StableBaselinesPolicy:
    """What the saved model's `predict(observation, deterministic=True)` gives, on one CPU thread.

    PPO, A2C, DQN, SAC, TD3 and DDPG, with `MlpPolicy` or `CnnPolicy`. The spaces of the environment must be those of
    the training; pictures with the channels last are transposed as Stable-Baselines3 does it.
    """

    acts_on = OBSERVATION

    def __init__(self, env: gymnasium.Env, file: Path, *, deterministic: float = 1, normalized: float = 0) -> None:
        """`deterministic=0` draws actions from the episode's generator. `normalized=1` says that the observations are already
        normalised as VecNormalize did it in training. Raises PolicyNotUsable."""
        import torch

        from worldmodel_v.policies.sb3_actions import chooser
        from worldmodel_v.policies.sb3_network import Network
        from worldmodel_v.policies.sb3_spaces import encoder, require_same_spaces
        from worldmodel_v.policies.sb3_zip import read_zip

        torch.set_num_threads(1)  # so that a worker and a lone process add up in the same order
        self._torch, self._draws = torch, not deterministic
        saved = read_zip(file)
        require_same_spaces(saved, env, normalized=bool(normalized))
        self._network = Network(saved)
        self._encode = encoder(env.observation_space, saved)
        self._choose = chooser(env.action_space, saved, self._network, draws=self._draws)
        self.reset(np.random.default_rng(0))
        space, num_outputs = env.observation_space, flatdim(env.action_space)
        try:
            self.act(blank := np.zeros(space.shape, space.dtype))
            shape = tuple(self._network(self._encode(blank))[0].shape)
        except Exception as error:  # of any class: what a file says may break torch anywhere
            raise saved.refusal(f"its weights do not fit together: {one_line(error):.300}", "save the model again") from None
        if shape != (1, num_outputs):
            raise saved.refusal(f"its network gives {shape}, expected {(1, num_outputs)}", "save the model again")

    def reset(self, rng: np.random.Generator) -> None:
        self._rng = rng if self._draws else None

    def act(self, observation: Any) -> Any:
        with self._torch.no_grad():
            return self._choose(*self._network(self._encode(observation)), self._rng)
