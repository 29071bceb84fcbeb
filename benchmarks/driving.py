"""What V and M are worth to a driver: the scores of taught controllers that see different things, as a Markdown table.

    python benchmarks/driving.py [--data ROLLOUTS] [--out runs/driving] [--seeds N] [--lessons N] [--arms NAME …]

Every arm has a V, trained by the settings of `pipelines/quickstart.yaml` on the same rollouts, an M, and a controller, which
`examples/teach_controller.py` teaches in equal numbers of lessons and tracks. A seed seeds all three. The score is that of the
100 tracks that no other step has seen; the teacher drives them too. OUT/scores.json holds each return. A run that was stopped
continues.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import numpy as np
import yaml
from _machine import describe_machine
from recipes import RECIPES
from teach_controller import TeachConfig
from train_controller import TEST_TRACKS

from worldmodel_v.envs import make_image_env
from worldmodel_v.policies import policy_maker

ROOT = Path(__file__).parents[1]
UNTRAINED = ["--steps", "1", "--learning-rate", "1e-12"]
TOKENS = {kind: {"autoencoder": kind} for kind in ("fsq", "categorical")}
VAES: dict[str, dict[str, Any]] = RECIPES | TOKENS
OF_VECTORS = ("latent_dim", "beta_warmup_steps")
"""Settings of `pipelines/quickstart.yaml` that autoencoders with tokens do not have."""

PACKAGES = ("torch", "gymnasium", "numba", "numpy")


class Arm(NamedTuple):
    """What a controller sees with."""

    vae: str = "default"
    """A recipe of `benchmarks/recipes.py`, or a kind of tokens."""

    rnn: str | None = "trained"
    """trained, untrained, or None: the controller sees z alone."""


ARMS = {
    "z and h": Arm(),
    "z alone": Arm(rnn=None),
    "z and h of an untrained M": Arm(rnn="untrained"),
    "ha2018's VAE, z and h": Arm(vae="ha2018"),
    "ha2018's VAE, z alone": Arm(vae="ha2018", rnn=None),
    "fsq's tokens alone": Arm(vae="fsq", rnn=None),
    "categorical tokens alone": Arm(vae="categorical", rnn=None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/quickstart/rollouts"))
    parser.add_argument("--out", type=Path, default=Path("runs/driving"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lessons", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    options = parser.parse_args()
    scores = {"the teacher: the environment's own state": [by_the_teacher()]}
    for name in options.arms:
        for seed in range(options.seeds):
            scores.setdefault(name, []).append(drive(ARMS[name], seed, options))
            (options.out / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    print(f"{options.lessons} lessons, {options.seeds} seeds. {describe_machine(*PACKAGES)}\n")
    print(table(scores))


def by_the_teacher() -> dict[str, Any]:
    """What a report of a controller says, of the policy that taught it."""
    make_teacher, returns = policy_maker(TeachConfig.teacher), []
    with make_image_env("worldmodel_v/CarRacing-v3", {}) as env:
        for track in TEST_TRACKS:
            frame = env.reset(track)
            teacher = make_teacher(env.gym)
            teacher.reset(np.random.default_rng(track))
            total, ended = 0.0, False
            while not ended:
                frame, reward, terminated, truncated = env.step(teacher.act(frame))
                total, ended = total + reward, terminated or truncated
            returns.append(total)
    error = float(np.std(returns, ddof=1)) / math.sqrt(len(returns))
    return {"mean": float(np.mean(returns)), "standard_error": error, "returns": returns, "frames": 0}


def drive(arm: Arm, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The report of a controller, which is trained with all that it sees with if it is not there yet."""
    sight = options.out / f"{arm.vae}-{seed}"
    see(sight, arm.vae, seed, options.data)
    rnn = arm.rnn and sight / f"mdn_rnn-{arm.rnn}"
    if rnn and not (rnn / "metrics.json").exists():
        more = UNTRAINED if arm.rnn == "untrained" else []
        example("train_mdn_rnn", "--latents", sight / "latents", "--vae", sight / "vae", "--out", rnn, "--seed", seed, *more)
    out = sight / f"controller-{arm.rnn or 'z'}"
    scores = out / "scores.json"
    if not (scores.exists() and json.loads(scores.read_text())["generations"] == options.lessons):
        seen = ["--vae", sight / "vae", *(["--rnn", rnn] if rnn else [])]
        every = math.gcd(options.lessons, 8)
        course = ["--lessons", options.lessons, "--choose-every", every, "--workers", options.workers, "--seed", seed]
        example("teach_controller", *seen, "--out", out, *course)
    return json.loads(scores.read_text())


def see(sight: Path, recipe: str, seed: int, data: Path) -> None:
    """V and its latents of the rollouts."""
    sight.mkdir(parents=True, exist_ok=True)
    if not (sight / "rollouts").exists():
        (sight / "rollouts").symlink_to(data.absolute())
    stages = yaml.safe_load((ROOT / "pipelines/quickstart.yaml").read_text())
    if recipe in TOKENS:
        stages["train"] = {name: value for name, value in stages["train"].items() if name not in OF_VECTORS}
    stages["train"] |= VAES[recipe] | {"seed": seed}
    file = sight / "pipeline.yaml"
    file.write_text(yaml.safe_dump(stages))
    python("-m", "worldmodel_v", "pipeline", "run", file, "--out", sight)


def example(name: str, *words: object) -> None:
    python(ROOT / "examples" / f"{name}.py", *words)


def python(*words: object) -> None:
    environment = os.environ | {"SDL_VIDEODRIVER": "dummy", "OMP_WAIT_POLICY": "passive"}
    subprocess.run([sys.executable, *map(str, words)], check=True, env=environment)


def table(scores: dict[str, list[dict[str, Any]]]) -> str:
    """A row for each arm."""
    lines = [
        "| what the controller sees | mean | by seed | median | 900 and more | worst | frames |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, reports in scores.items():
        returns = np.array([report["returns"] for report in reports])
        error = returns.std(ddof=1) / math.sqrt(returns.size)
        by_seed = ", ".join(f"{report['mean']:.0f} ± {report['standard_error']:.0f}" for report in reports)
        frames = np.mean([report["frames"] for report in reports]) / 1e6
        learned_from = f"{frames:.2f} M" if frames else "none"
        figures = f"{np.median(returns):.0f} | {(returns >= 900).mean():.0%} | {returns.min():.0f} | {learned_from}"
        lines.append(f"| {name} | {returns.mean():.0f} ± {error:.0f} | {by_seed} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
