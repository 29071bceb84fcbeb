"""Gymnasium's CarRacing-v3 against `worldmodel_v/CarRacing-v3`: the difference of every pixel, in figures and in a picture.

    python benchmarks/fidelity.py [--episodes N] [--picture docs/images/fidelity.png] [--vae DIR]

With --vae, a VAE that wm-train trained on the fast frames is evaluated on both.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import numpy as np
from _machine import describe_machine
from PIL import Image, ImageDraw

from worldmodel_v.envs import FramePreprocessor, ImageEnv, make_image_env
from worldmodel_v.policies import make_policy

POLICIES = ("driver", "driver(noise=0.3)", "random-start(driver(speed=80, curve_speed=60, noise=0.3))", "brownian")
AMPLIFIED = 64
COLUMNS, SCALE, GAP, TITLE_HEIGHT = 8, 2, 6, 20
PAPER, INK = (255, 255, 255), (30, 30, 30)


class Side:
    """One of the two environments, driven by actions from outside."""

    def __init__(self, env_id: str, policy: str, seed: int, continuous: bool, randomize: bool) -> None:
        self.env: ImageEnv = make_image_env(env_id, {"continuous": continuous, "domain_randomize": randomize})
        self.policy = make_policy(policy if continuous else "random", self.env.gym)
        self.frame = self.env.reset(seed)
        moved = self.policy.reset(np.random.default_rng(seed))
        self.frame = self.frame if moved is None else moved


def play(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Episode `number` in both, with the same seed and actions: uint8 (n, 96, 96, 3) of Gymnasium's and of the fast one.

    Every fifth episode has randomised colours, every seventh discrete actions. Raises AssertionError where reward, end or
    ground truth differ.
    """
    policy = POLICIES[number % len(POLICIES)]
    options = (policy, number, number % 7 != 6, number % 5 == 4)
    sides = [Side(env_id, *options) for env_id in ("CarRacing-v3", "worldmodel_v/CarRacing-v3")]
    frames = [[side.frame] for side in sides]
    ended = False
    while not ended:
        action = sides[0].env.record_action(sides[0].policy.act(sides[0].frame))
        outcomes = []
        for side, seen in zip(sides, frames, strict=True):
            side.frame, *outcome = side.env.step(action)
            seen.append(side.frame)
            outcomes.append((*outcome, *side.env.state()))
        assert outcomes[0] == outcomes[1], f"episode {number}, step {len(frames[0])}: {outcomes}"
        ended = outcomes[0][1] or outcomes[0][2] or len(frames[0]) > 1000
    for side in sides:
        side.env.close()
    return np.stack(frames[0]), np.stack(frames[1])


def draw(ours: np.ndarray, theirs: np.ndarray) -> Image.Image:
    """Rows of frames: Gymnasium's, the fast ones, and the absolute difference times `AMPLIFIED`."""
    difference = np.abs(ours.astype(int) - theirs) * AMPLIFIED
    rows = {
        "Gymnasium's CarRacing-v3": theirs,
        "worldmodel_v/CarRacing-v3": ours,
        f"absolute difference, times {AMPLIFIED}": difference.clip(0, 255).astype(np.uint8),
    }
    cell = ours.shape[1] * SCALE
    picture = Image.new("RGB", (len(ours) * (cell + GAP), len(rows) * (cell + TITLE_HEIGHT)), PAPER)
    pen = ImageDraw.Draw(picture)
    for number, (title, frames) in enumerate(rows.items()):
        top = number * (cell + TITLE_HEIGHT)
        pen.text((2, top + 3), title, fill=INK, font_size=13)
        for column, frame in enumerate(frames):
            enlarged = Image.fromarray(frame).resize((cell, cell), Image.Resampling.NEAREST)
            picture.paste(enlarged, (column * (cell + GAP), top + TITLE_HEIGHT))
    return picture


def compare_vae(path: Path, theirs: np.ndarray, ours: np.ndarray) -> None:
    """Print what a VAE scores on both sets of raw frames, cropped and resized as wm-collect does."""
    import torch

    from worldmodel_v.autoencoders.gaussian import load_vae
    from worldmodel_v.evaluation import evaluate

    vae = load_vae(path)
    model, trained_on = vae.model, vae.trained_on
    assert trained_on is not None
    preprocess = FramePreprocessor(ours[0].shape, trained_on.preprocessing)
    for title, frames in (("Gymnasium's frames", theirs), ("fast frames", ours)):
        figures = asdict(evaluate(model, np.stack([preprocess(frame) for frame in frames]), torch.device("cpu")))
        print(f"the VAE on {title}: " + ", ".join(f"{name} {value:.6g}" for name, value in figures.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--picture", type=Path, help="where to write the picture")
    parser.add_argument("--vae", type=Path, help="a directory of wm-train")
    arguments = parser.parse_args()
    print(describe_machine("gymnasium", "pygame-ce", "Box2D", "numpy", "numba"))
    num_frames, num_differing, largest, total = 0, 0, 0, 0
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    sample: list[tuple[np.ndarray, np.ndarray]] = []
    for number in range(arguments.episodes):
        theirs, ours = play(number)
        difference = np.abs(ours.astype(np.int16) - theirs)
        num_frames += len(ours)
        num_differing += int((difference > 0).sum())
        largest, total = max(largest, int(difference.max())), total + int(difference.sum())
        shown.append((theirs[20 + 97 * number % (len(ours) - 20)], ours[20 + 97 * number % (len(ours) - 20)]))
        sample += list(zip(theirs[::10], ours[::10], strict=True))
    values = num_frames * shown[0][0].size
    print(f"{arguments.episodes} episodes, {num_frames} frames; rewards, ends and ground truth equal at every step")
    print(f"values that differ: {num_differing} of {values}; largest difference {largest}, mean {total / values:.6f} levels")
    if arguments.picture:
        theirs, ours = (np.stack(side) for side in zip(*shown[:COLUMNS], strict=True))
        draw(ours, theirs).save(arguments.picture, optimize=True)
    if arguments.vae:
        compare_vae(arguments.vae, *(np.stack(side) for side in zip(*sample, strict=True)))


if __name__ == "__main__":
    main()
