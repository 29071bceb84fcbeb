"""What a worker makes of a world: frames per second that it commits, beside the bare environment, for each world installed.

    python benchmarks/worlds.py [--only PONG …] [--seconds N] > docs/benchmarks/worlds.md

The bare environment is made, draws an action before each step as `--policy random` does, is stepped with the recorded one, and
gives the same picture (its observation, or `render()`). A worker does all its work (policy, frames, checks, a shard) in this
process, without Ray, and each shard is committed. They take turns on the same episodes, a second each, as a shard of
`wm-collect` takes seconds too; the ratio is the median of the pairs. Each world has a process of its own, with the environment
variables of a worker. All of it takes about 5 minutes; what it prints is the page.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import gymnasium
import numpy as np
from _machine import answer, describe_machine, in_process

from worldmodel_v.collection import CollectConfig
from worldmodel_v.collection.block import Block, block_collector
from worldmodel_v.collection.collector import resolve_spec
from worldmodel_v.envs.parts import RENDER, part_of
from worldmodel_v.errors import EnvironmentNotUsable
from worldmodel_v.execution.worker import WORKER_ENVIRONMENT
from worldmodel_v.process import output_to_stderr
from worldmodel_v.records import Episode
from worldmodel_v.sources import GymSource
from worldmodel_v.sources.base import episode_apart
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import DatasetWriter, Shard

WORLDS = (
    *("worldmodel_v/CarRacing-v3", "CarRacing-v3", "LunarLander-v3", "Pendulum-v1", "FrozenLake-v1"),
    *("ALE/Pong-v5", "ALE/Breakout-v5", "MiniGrid-Empty-5x5-v0", "HalfCheetah-v5", "dm_control/cartpole-balance-v0"),
    *("VizdoomBasic-v1", "MiniWorld-Hallway-v0", "procgen_world:Procgen/coinrun-v0"),
)
WRAPPERS = {"MiniGrid-Empty-5x5-v0": ("minigrid.wrappers:RGBImgPartialObsWrapper",)}
EXAMPLES = Path(__file__).parents[1] / "examples"
PACKAGES = (
    *("gymnasium", "numpy", "h5py", "hdf5plugin", "Box2D", "pygame-ce", "ale-py", "minigrid", "mujoco", "dm_control"),
    *("vizdoom", "miniworld", "procgen-mirror"),
)
TURN_SECONDS, SHORTEST_TURN, LONGEST_TURN = 1.0, 40, 5000
"""How long a turn lasts, and its least and most frames."""

FEWEST_PAIRS = 5
SEED = 3
HEAD = """# Worlds

What a worker of `wm-collect` makes of a world: frames per second of the bare environment (made, and stepped with random
actions, with the same picture), and of a worker's whole work up to committed shards (64x64, `--policy random`). Both in one
process, in turns of a second on the same episodes, each turn of a worker a shard; the ratio is the median of the pairs, with
the 10th and the 90th percentile. Made by

```sh
python benchmarks/worlds.py > docs/benchmarks/worlds.md
```

"""


@dataclass(frozen=True)
class Turns:
    """The bare environment and a worker on the same episodes."""

    spec: RolloutSpec
    writer: DatasetWriter
    collect_block: Any
    numbers: Any

    def work(self, episodes: int) -> tuple[float, list[Episode]]:
        """Seconds until a block of the first episodes is committed as the next shard, and the episodes."""
        start = time.perf_counter()
        image = self.collect_block(Block(0, 0, episodes))
        self.writer.commit(next(self.numbers), image)
        spent = time.perf_counter() - start
        with Shard.from_bytes(image, self.spec.schema) as shard:
            return spent, [shard.episode(i) for i in range(shard.num_episodes)]

    def bare(self, episodes: list[Episode]) -> float:
        """Seconds of the bare environment for them."""
        return sum(self._play(episode) for episode in episodes)

    def _play(self, episode: Episode) -> float:
        spec, path = self.spec, tuple(self.spec.frames.split(".")[1:])
        more = {"render_mode": "rgb_array"} if spec.frames == RENDER else {}
        actions = episode.action[: episode.num_steps]
        with episode_apart(spec.seed, episode.episode_id):
            start = time.perf_counter()
            env = gymnasium.make(spec.env.rpartition(":")[2], disable_env_checker=True, **more)
            for name in spec.wrap:
                module, _, attribute = name.partition(":")
                env = getattr(importlib.import_module(module), attribute)(env)
            is_discrete, dtype = isinstance(env.action_space, gymnasium.spaces.Discrete), env.action_space.dtype
            given = actions.tolist() if is_discrete else [*actions.astype(dtype)]
            observation, _ = env.reset(seed=episode.seed)
            seen = env.render() if more else part_of(observation, path)
            for action in given:
                env.action_space.sample()
                observation = env.step(action)[0]
                seen = env.render() if more else part_of(observation, path)
            env.close()
            assert isinstance(seen, np.ndarray)
            return time.perf_counter() - start


def measure(world: str, seconds: float) -> dict[str, Any]:
    """Frames per second of both and their ratios; says so where the world is not installed."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), output_to_stderr():  # some leave files here
        config = CollectConfig(out=Path(folder) / "out", env=world, policy="random", seed=SEED, wrap=WRAPPERS.get(world, ()))
        try:
            spec = resolve_spec(config)
        except EnvironmentNotUsable as error:
            return {"missing": str(error).splitlines()[0]}
        with DatasetWriter(config.out, spec) as writer:
            return _in_turns(spec, writer, seconds)


def _in_turns(spec: RolloutSpec, writer: DatasetWriter, seconds: float) -> dict[str, Any]:
    numbers = itertools.count()
    trial = Turns(spec, writer, block_collector(GymSource(dataclasses.replace(spec, max_steps=SHORTEST_TURN))), numbers)
    trial.work(1)  # whatever is done once in a process
    turns, count, spent, episodes = trial, 1, *trial.work(1)
    for _ in range(2):  # a short turn pays for a shard too, so its frames per second are fewer than a long one's
        frames = int(np.clip(TURN_SECONDS * _num_rows(episodes) / spent, SHORTEST_TURN, LONGEST_TURN))
        collect_block = block_collector(GymSource(dataclasses.replace(spec, max_steps=frames)))
        turns = dataclasses.replace(trial, collect_block=collect_block)
        count = max(1, frames // _num_rows(turns.work(1)[1]))
        spent, episodes = turns.work(count)
    turns.bare(episodes)
    rows, pairs = _num_rows(episodes), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(pairs) < FEWEST_PAIRS:
        if len(pairs) % 2:
            worked = turns.work(count)[0]
            pairs.append((turns.bare(episodes), worked))
        else:
            pairs.append((turns.bare(episodes), turns.work(count)[0]))
    low, ratio, high = np.percentile([bare / worked for bare, worked in pairs], [10, 50, 90])
    bare, worked = (rows / statistics.median(times) for times in zip(*pairs, strict=True))
    return {"frames": rows, "pairs": len(pairs), "bare": bare, "worked": worked, "ratio": ratio, "low": low, "high": high}


def _num_rows(episodes: list[Episode]) -> int:
    return sum(episode.num_rows for episode in episodes)


def row(world: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    name = world.rpartition(":")[2]
    if "missing" in found:
        return f"| `{name}` | not measured: {found['missing']} | | | |"
    ratio = f"{found['ratio']:.2f} ({found['low']:.2f}..{found['high']:.2f})"
    return (
        f"| `{name}` | {found['bare']:,.0f} | {found['worked']:,.0f} | {ratio} | {found['pairs']} of {found['frames']} frames |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[""], help="worlds whose names hold one of these")
    parser.add_argument("--seconds", type=float, default=16, help="how long the turns of a world go on")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.append(str(EXAMPLES))
    if arguments.call:
        answer(arguments.call, {"measure": measure})
        return
    chosen = [world for world in WORLDS if any(word.lower() in world.lower() for word in arguments.only)]
    lines = []
    os.environ.update(WORKER_ENVIRONMENT)
    for world in chosen:
        lines.append(row(world, in_process(__file__, "measure", world=world, seconds=arguments.seconds)))
        print(lines[-1], file=sys.stderr)
    print(HEAD + describe_machine(*PACKAGES).replace("\n", "  \n"))
    print("\n| world | bare, frames/s | a worker, frames/s | a worker over bare | turns |\n|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
