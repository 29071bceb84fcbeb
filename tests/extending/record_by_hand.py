"""A loop of one's own around a Gymnasium environment: `python record_by_hand.py OUT EPISODES`."""

import sys

import gymnasium
import numpy as np

import worldmodel_v
import worldmodel_v.envs  # registers the toy world

env = gymnasium.make("worldmodel_v/Stamp-v0", length=6)
with worldmodel_v.Recorder(env, sys.argv[1], frame_size=16, policy="by hand") as env:
    for number in range(int(sys.argv[2])):
        rng = np.random.default_rng(number)
        observation, info = env.reset()
        ended = False
        while not ended:
            observation, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, 2))
            ended = terminated or truncated
    print(env.num_episodes, "episodes")
