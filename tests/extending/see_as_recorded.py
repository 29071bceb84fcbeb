"""Record, train and encode with another preprocessing; then a controller sees the environment's own frames as recorded ones.

python see_as_recorded.py FOLDER ENV [options of wm-collect]
"""

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np

import worldmodel_v.envs  # noqa: F401  (registers its environments)
from worldmodel_v import Encoder
from worldmodel_v.storage import open_dataset

folder, env_id, options = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
rollouts, vae, latents = (str(folder / name) for name in ("rollouts", "vae", "latents"))


def run(command: str, *arguments: str) -> None:
    """Run one of the commands."""
    subprocess.run([Path(sys.executable).parent / command, *arguments], check=True, capture_output=True)


run("wm-collect", "--out", rollouts, "--env", env_id, "--policy", "random", "--episodes", "4", "--workers", "0", *options)
run("wm-train", "--data", rollouts, "--out", vae, "--steps", "3", "--batch-size", "8", "--holdout-every", "2")
run("wm-encode", "--data", rollouts, "--vae", vae, "--out", latents)

recorded, encoded = open_dataset(Path(rollouts)).episode(0), open_dataset(Path(latents)).episode(0)
env, encoder = gymnasium.make(env_id), Encoder.load(vae)
raw = [env.reset(seed=recorded.seed)[0]]
raw += [env.step(action)[0] for action in recorded.action[:-1]]
found = encoder(np.stack(raw), preprocessed=False)
np.testing.assert_allclose(found.mu, encoded.mu, atol=1e-4)
np.testing.assert_allclose(found.logvar, encoded.logvar, atol=1e-4)
