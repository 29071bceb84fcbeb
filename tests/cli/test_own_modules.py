"""Commands in a directory where files are called as every module of Python and of what is installed: none of them runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import options, run

TRAP = """
open(f"{__file__}.ran", "w").close()
raise SystemExit(f"{__name__} ran")
"""
FRESH = {"PYTHONDONTWRITEBYTECODE": "1"}
"""With this in its environment, a command is no fork of a process that has imported everything already."""

OWN = """
import json
import gymnasium
import torch
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.policies.uniform import RandomPolicy

class Env(StampEnv):
    pass

class Wrapper(gymnasium.Wrapper):
    pass

class Policy(RandomPolicy):
    pass

def optimizer(parameters, *, learning_rate, weight_decay):
    return torch.optim.AdamW(parameters, lr=learning_rate)

gymnasium.register("Own-v0", entry_point=Env)
"""
STAMP = {"env": "worldmodel_v/Stamp-v0", "episodes": 2, "max_steps": 5, "policy": "random"}
OWN_STAMP = {**STAMP, "env": "own:Own-v0", "policy": "own:Policy", "wrap": "own:Wrapper"}
TRAINING = {"steps": 2, "batch_size": 4, "latent_dim": 2, "architecture": "mlp", "holdout_every": 2, "device": "cpu"}


def installed() -> list[str]:
    """The modules of all packages, as a fresh process sees them: setuptools, once it is imported, adds those inside of it."""
    code = "import importlib.metadata as m; print(*m.packages_distributions())"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    folder = tmp_path / "traps"
    folder.mkdir()
    for name in {*sys.stdlib_module_names, *installed(), "worldmodel_v"}:
        if name.isidentifier():
            (folder / f"{name}.py").write_text(TRAP)
    (folder / "own.py").write_text(OWN)
    return folder


def run_among(traps: Path, *words: object, code: int = 0) -> None:
    run(*words, code=code, folder=traps, **FRESH)
    assert not [file.name for file in traps.glob("*.ran")]


def test_looking_at_what_lies_there(traps: Path, stamp_rollouts: Path) -> None:
    (traps / "rollouts").symlink_to(stamp_rollouts)
    run_among(traps, "wm-inspect", "rollouts", "--verify")


def test_a_module_of_ones_own_is_found_there(traps: Path) -> None:
    run_among(traps, "wm-collect", "--workers", 0, "--out", "rollouts", *options(OWN_STAMP))
    run_among(traps, "wm-train", "--data", "rollouts", "--out", "vae", "--optimizer", "own:optimizer", *options(TRAINING))


@pytest.mark.slow
def test_a_module_of_ones_own_is_found_there_by_workers(traps: Path) -> None:
    run_among(traps, "wm-collect", "--workers", 1, "--out", "rollouts", *options(OWN_STAMP))
    training = (*options(TRAINING), "--optimizer", "own:optimizer", "--num-workers", 1)
    run_among(traps, "wm-train", "--data", "rollouts", "--out", "vae", *training)


@pytest.mark.slow
def test_every_other_command(traps: Path, stamp_rollouts: Path, stamp_vae: Path) -> None:
    data, both = ("--data", stamp_rollouts), ("--data", stamp_rollouts, "--vae", stamp_vae)
    run_among(traps, "wm-collect", "--workers", 0, "--out", "alone", *options(STAMP))
    run_among(traps, "wm-collect", "--workers", 1, "--out", "rollouts", *options(STAMP))
    run_among(traps, "wm-train", *data, "--out", "vae", *options(TRAINING))
    run_among(traps, "wm-encode", *both, "--out", "latents", "--workers", 1)
    run_among(traps, "wm-eval", *both, "--out", "evaluation")
    run_among(traps, "wm-export", "npz", *data, "--out", "npz")
    run_among(traps, "wm-export", "minari", *data, "--out", "stranger/minari-v0")
    run_among(traps, "wm-export", "model", *both, "--out", "model")
    (traps / "pipeline.yaml").write_text(
        "collect: {env: worldmodel_v/Stamp-v0, episodes: 4, max_steps: 5, policy: random, workers: 0}\n"
        "train: {steps: 2, batch_size: 4, latent_dim: 2, architecture: mlp, holdout_every: 2, device: cpu}\n"
        "eval: {}\nencode: {workers: 0}\n"
    )
    run_among(traps, "wm-pipeline", "run", "pipeline.yaml", "--out", "all")
    run_among(traps, "wm-pipeline", "submit", "pipeline.yaml", "--out", "/o", "--address", "http://127.0.0.1:1", code=2)
