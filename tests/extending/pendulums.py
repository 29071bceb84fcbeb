"""A simulator with its own loop, which knows nothing of Gymnasium's: `python pendulums.py OUT EPISODES`."""

import sys

import gymnasium
import numpy as np

from worldmodel_v import EpisodeSource
from worldmodel_v.collection import CollectionConfig, collect_source


class Pendulums(EpisodeSource):
    """Each episode is a pendulum that is pushed at random."""

    name = "pendulums"
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    state_names = ("angle", "velocity")
    settings = {"gravity": 9.8}

    def episode(self, number, rng):
        angle, velocity, frames, states, energies = rng.uniform(-1, 1), 0.0, [], [], []
        pushes = rng.uniform(-1, 1, (12 + number % 3, 1)).astype(np.float32)
        for push in (*pushes[:, 0], 0.0):
            frame = np.zeros((16, 24, 3), np.uint8)
            frame[8 + round(6 * np.cos(angle)), 12 + round(6 * np.sin(angle))] = 255
            frames.append(frame)
            states.append((angle, velocity))
            energies.append(velocity**2 / 2 - self.settings["gravity"] * np.cos(angle))
            velocity += 0.1 * (push - self.settings["gravity"] * np.sin(angle))
            angle += 0.1 * velocity
        rewards = -np.abs([state[0] for state in states[1:]])
        rows = {"pixels": np.stack(frames), "action": pushes, "reward": rewards, "terminated": False}
        return {**rows, "state": states, "energy": energies}


if __name__ == "__main__":
    config = CollectionConfig(out=sys.argv[1], episodes=int(sys.argv[2]), workers=0, episodes_per_shard=2)
    print(collect_source(Pendulums(), config).new_episodes, "new episodes")
