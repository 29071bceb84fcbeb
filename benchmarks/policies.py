"""What part of CarRacing each policy covers: coverage figures, and a picture of where it drove and what it saw.

python benchmarks/policies.py [--episodes N] [--picture docs/images/policies.png]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import numpy as np
from _machine import describe_machine
from _quickstart import quickstart_policy
from PIL import Image, ImageDraw

from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.coverage import driving
from worldmodel_v.envs import make_image_env
from worldmodel_v.records import Episode
from worldmodel_v.storage import open_dataset

POLICIES = (
    *("random", "brownian", "driver", "driver(noise=0.3)", "random-start(driver(speed=60, noise=0.5))"),
    "random-start(driver(speed=80, curve_speed=60, noise=0.3))",
)
COLUMNS = ("tiles_visited", "full_laps", "off_road", "spinning", "standing")
FRAMES, FRAME_SIZE, GAP, TITLE_HEIGHT = 8, 128, 6, 22
MAP_SIZE = FRAME_SIZE
PAPER, TRACK, PATH, INK = (255, 255, 255), (200, 200, 200), (208, 48, 32), (30, 30, 30)


def drive(policy: str, episodes: int, folder: Path) -> tuple[dict[str, Any], Episode]:
    """The coverage of all episodes of a policy together, and the first episode."""
    collect(CollectConfig(out=folder, policy=policy, episodes=episodes, workers=0, frame_size=FRAME_SIZE))
    dataset = open_dataset(folder)
    figures = driving(dataset)
    weights = [figure["episodes"] for figure in figures]
    means = {name: np.average([figure[name] for figure in figures], weights=weights) for name in COLUMNS}
    speeds = [list(figure["frames_by_speed"].values()) for figure in figures]
    return {**means, "frames_by_speed": np.average(speeds, axis=0, weights=weights)}, dataset.episode(0)


def print_table(figures: dict[str, dict[str, Any]]) -> None:
    print(f"| policy | {' | '.join(name.replace('_', ' ') for name in COLUMNS)} | frames by speed: 0, 1, 10, 20, …, 60 up |")
    print("|---|" + "---|" * (len(COLUMNS) + 1))
    for policy, figure in figures.items():
        shares = " | ".join(f"{100 * figure[name]:.0f}%" for name in COLUMNS)
        print(f"| `{policy}` | {shares} | {' '.join(f'{100 * share:.0f}' for share in figure['frames_by_speed'])} |")


def draw_row(policy: str, episode: Episode) -> Image.Image:
    """A policy's name above a map of its first episode and frames of it, evenly spaced."""
    width = MAP_SIZE + FRAMES * (FRAME_SIZE + GAP)
    row = Image.new("RGB", (width, TITLE_HEIGHT + FRAME_SIZE + GAP), PAPER)
    ImageDraw.Draw(row).text((2, 4), policy, fill=INK, font_size=13)
    row.paste(draw_map(episode), (0, TITLE_HEIGHT))
    for i, step in enumerate(np.linspace(0, episode.num_rows - 1, FRAMES).astype(int)):
        row.paste(Image.fromarray(episode.pixels[step]), (MAP_SIZE + GAP + i * (FRAME_SIZE + GAP), TITLE_HEIGHT))
    return row


def draw_map(episode: Episode) -> Image.Image:
    """The track of an episode's seed from above, and the car's path on it."""
    env = make_image_env("worldmodel_v/CarRacing-v3", {})
    env.reset(episode.seed)
    track = np.array(env.gym.unwrapped.track)[:, 2:4]
    env.close()
    path = episode.state[:, :2]
    low = np.minimum(track.min(axis=0), path.min(axis=0))
    scale = (MAP_SIZE - 12) / (np.maximum(track.max(axis=0), path.max(axis=0)) - low).max()

    def points(places: np.ndarray) -> list[tuple[float, float]]:
        x, y = ((places - low) * scale + 6).T
        return list(zip(x.tolist(), (MAP_SIZE - y).tolist(), strict=True))

    picture = Image.new("RGB", (MAP_SIZE, MAP_SIZE), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.line(points(np.concatenate([track, track[:1]])), fill=TRACK, width=5, joint="curve")
    pen.line(points(path), fill=PATH, width=2)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=24, help="episodes of up to 1,000 steps for each policy")
    parser.add_argument("--picture", type=Path, help="where to write the picture")
    arguments = parser.parse_args()
    print(describe_machine("gymnasium", "Box2D", "numpy"))
    print(f"{arguments.episodes} episodes of up to 1,000 steps for each policy\n")
    mixture = quickstart_policy()
    figures, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for number, policy in enumerate((*POLICIES, mixture)):
            figures[policy], first = drive(policy, arguments.episodes, Path(folder) / str(number))
            if policy != mixture:
                rows.append(draw_row(policy, first))
    print_table(figures)
    if arguments.picture:
        picture = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), PAPER)
        for number, row in enumerate(rows):
            picture.paste(row, (0, number * row.height))
        picture.save(arguments.picture, optimize=True)


if __name__ == "__main__":
    main()
