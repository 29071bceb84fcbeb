"""Small records made by hand, for tests that need exact content and no environment."""

import dataclasses
import errno
import hashlib
import importlib.util
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import pytest

from worldmodel_v.autoencoders.gaussian import gaussian_latents
from worldmodel_v.progress import Silent
from worldmodel_v.records import Array, Episode
from worldmodel_v.schema import Schema, latent_schema, rollout_schema
from worldmodel_v.spec import LatentSpec, RolloutSpec
from worldmodel_v.storage import build_shard, files

ROLLOUT_SETTINGS = {
    "env": "worldmodel_v/Stamp-v0",
    "env_kwargs": {"length": 3},
    "policy": "random",
    "seed": 7,
    "max_steps": 100,
    "crop": "full",
    "frame_height": 8,
    "frame_width": 8,
    "resize": "area",
    "fit": "stretch",
    "episodes_per_shard": 2,
    "gymnasium": "1.0.0",
    "frames": "observation",
    "policy_weights": {},
}
SLOW_STAMP = """
import time

import gymnasium

from worldmodel_v.envs.stamp import StampEnv


class SlowStamp(StampEnv):
    def step(self, action):
        time.sleep(0.02)
        return super().step(action)


gymnasium.register("SlowStamp-v0", entry_point="slow_stamp:SlowStamp")
"""
"""An environment of the user's own, `slow_stamp.py`: slow enough for something to happen to it in the middle."""


def imported(file: Path, name: str) -> ModuleType:
    """A file's module, imported anew under a name of its own."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def action_space(action_size: int = 2) -> dict[str, object]:
    """The record of the spaces that made actions come from: a Box of floats, or for size 0 five discrete actions."""
    if not action_size:
        return {"type": "Discrete", "dtype": "int64", "n": 5, "start": 0}
    return {"type": "Box", "dtype": "float32", "shape": [action_size], "low": "-inf", "high": "inf"}


def made_rollout_schema(size: int | tuple[int, int] = 8, action_size: int = 2, num_factors: int = 0) -> Schema:
    """What `make_episode` holds."""
    height, width = (size, size) if isinstance(size, int) else size
    return rollout_schema(
        frame_shape=(height, width),
        action_space=action_space(action_size),
        observation_space={"type": "Box", "dtype": "uint8", "shape": [height, width, 3], "low": 0, "high": 255},
        state_names=tuple(f"factor_{i}" for i in range(num_factors)),
    )


def made_latent_schema(latent_dim: int = 4, dtype: str = "float32", action_size: int = 2, num_factors: int = 0) -> Schema:
    """What `make_latents` holds."""
    return latent_schema(made_rollout_schema(8, action_size, num_factors), *gaussian_latents(latent_dim, dtype))


def rollout_spec(schema: Schema | None = None, **changes: object) -> RolloutSpec:
    """The settings of a small rollout dataset, with some of them changed."""
    settings = {**ROLLOUT_SETTINGS, **changes}
    return RolloutSpec(schema=schema or made_rollout_schema((settings["frame_height"], settings["frame_width"])), **settings)


def latent_spec(schema: Schema | None = None, **changes: object) -> LatentSpec:
    """The settings of a small latent dataset, with some of them changed."""
    settings = {
        "vae_sha256": "a" * 64,
        "source_spec_hash": "b" * 64,
        "dtype": "float32",
        "precision": "fp32",
        "source": ROLLOUT_SETTINGS,
    }
    return LatentSpec(schema=schema or made_latent_schema(), **{**settings, **changes})


def shared_columns(
    rng: np.random.Generator, num_steps: int, *, action_size: int = 2, num_factors: int = 0, ending: str = "terminated"
) -> dict[str, Array]:
    """The columns that rollouts and latents share; `action_size` 0 is a discrete action."""
    ended = np.zeros(num_steps + 1, dtype=np.bool_)
    ended[-2] = True
    if action_size:
        action: Array = rng.normal(size=(num_steps + 1, action_size)).astype(np.float32)
        action[-1] = np.nan
    else:
        action = rng.integers(0, 5, num_steps + 1)
        action[-1] = -1
    reward = rng.normal(size=num_steps + 1).astype(np.float32)
    reward[-1] = np.nan
    state = rng.normal(size=(num_steps + 1, num_factors)).astype(np.float32)
    return {
        "action": action,
        "reward": reward,
        "terminated": ended & (ending in ("terminated", "both")),
        "truncated": ended & (ending in ("truncated", "both")),
        **({"state": state} if num_factors else {}),
    }


def make_episode(
    episode_id: int = 0,
    num_steps: int = 5,
    *,
    size: int | tuple[int, int] = 8,
    seed: int | None = None,
    noise: int = 0,
    action_size: int = 2,
    num_factors: int = 0,
    ending: str = "terminated",
) -> Episode:
    """An episode of random content that is a function of its arguments."""
    rng = np.random.default_rng([noise, episode_id, num_steps])
    shape = (size, size) if isinstance(size, int) else size
    pixels = rng.integers(0, 256, (num_steps + 1, *shape, 3), dtype=np.uint8)
    columns = shared_columns(rng, num_steps, action_size=action_size, num_factors=num_factors, ending=ending)
    return Episode(
        schema=made_rollout_schema(shape, action_size, num_factors),
        episode_id=episode_id,
        seed=1000 + episode_id if seed is None else seed,
        columns={"pixels": pixels, **columns},
    )


def make_latents(
    episode_id: int = 0,
    num_steps: int = 5,
    *,
    latent_dim: int = 4,
    dtype: type = np.float32,
    noise: int = 0,
    action_size: int = 2,
    num_factors: int = 0,
    ending: str = "terminated",
) -> Episode:
    """Latents of random content that is a function of the arguments."""
    rng = np.random.default_rng([noise, episode_id, num_steps])
    mu, logvar = rng.normal(size=(2, num_steps + 1, latent_dim)).astype(dtype)
    columns = shared_columns(rng, num_steps, action_size=action_size, num_factors=num_factors, ending=ending)
    return Episode(
        schema=made_latent_schema(latent_dim, np.dtype(dtype).name, action_size, num_factors),
        episode_id=episode_id,
        seed=1000 + episode_id,
        columns={"mu": mu, "logvar": logvar, **columns},
    )


def with_columns(episode: Episode, **changes: Array) -> Episode:
    """The episode with some of its columns exchanged."""
    return dataclasses.replace(episode, columns={**episode.columns, **changes})


def make_shard(first: int = 0, num_episodes: int = 2, *, spec: RolloutSpec | None = None, **settings: object) -> bytes:
    """The image of a rollout shard of short episodes."""
    episodes = [make_episode(first + i, **settings) for i in range(num_episodes)]
    return build_shard(episodes, spec_hash=(spec or rollout_spec(episodes[0].schema)).hash)


def assert_same_record(found: Episode, expected: Episode) -> None:
    """Equality of every field, bit for bit, with NaN equal to NaN."""
    assert found.schema == expected.schema
    assert (found.episode_id, found.seed, found.policy) == (expected.episode_id, expected.seed, expected.policy)
    assert list(found.columns) == list(expected.columns)
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column, err_msg=name, strict=True)


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def digests(dataset: Path) -> dict[str, str]:
    """The SHA-256 of every file that holds content."""
    files = [dataset / "dataset.json", *sorted((dataset / "shards").iterdir())]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def is_open(path: Path) -> bool:
    """Whether this process holds the file open."""
    return str(path) in {os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()}


def run_python(code: str, *arguments: object) -> str:
    """What a fresh interpreter prints for `code`, run in the repository's root; warnings are errors there too."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    finished = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


class Sayings(Silent):
    """What was told: the warnings as lines, and the facts of every event."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        self.events.append((name, facts))
        if warning:
            self.lines.append(message)

    def say(self, message: str) -> None:
        self.lines.append(message)

    def facts(self, name: str) -> list[dict[str, Any]]:
        """Of every event of this name."""
        return [facts for found, facts in self.events if found == name]


class FullDisk:
    """A disk that is full at one call: the `fail_at`-th (from 1) of one kind raises ENOSPC, all others work.

    Kinds: "open" (for writing), "write" (half of it arrives), "fsync file", "fsync folder", "link", "rename".
    """

    KINDS = ("open", "write", "fsync file", "fsync folder", "link", "rename")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: str, fail_at: int) -> None:
        self._kind, self._fail_at, self._calls = kind, fail_at, 0
        self._real_open, self._real_stream, self._real_fsync = Path.open, files.open_stream, os.fsync
        monkeypatch.setattr(Path, "open", lambda path, mode="r", *rest, **named: self._open(path, mode, *rest, **named))
        monkeypatch.setattr(files, "open_stream", self._open_stream)
        monkeypatch.setattr(os, "fsync", self._fsync)
        monkeypatch.setattr(os, "link", self._counted("link", os.link))
        monkeypatch.setattr(os, "replace", self._counted("rename", os.replace))
        monkeypatch.setattr(Path, "rename", self._counted("rename", Path.rename))

    @property
    def failed(self) -> bool:
        """Whether the call that was to fail has been reached."""
        return self._calls >= self._fail_at

    def count(self, kind: str) -> bool:
        """Count a call of this kind; raises OSError if it is the one that is to fail."""
        if kind == self._kind:
            self._calls += 1
            if self._calls == self._fail_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return True

    def _counted(self, kind: str, real: Callable) -> Callable:
        return lambda *arguments, **named: self.count(kind) and real(*arguments, **named)

    def _fsync(self, descriptor: int) -> None:
        self.count("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        self._real_fsync(descriptor)

    def _open(self, path: Path, mode: str, *rest: object, **named: object) -> object:
        if not set(mode) & set("wax"):
            return self._real_open(path, mode, *rest, **named)
        self.count("open")
        return _FileOnFullDisk(self._real_open(path, mode, *rest, **named), self)

    def _open_stream(self, path: Path, mode: str = "rb", *rest: object, **named: object) -> object:
        if mode == "rb":
            return self._real_stream(path, mode, *rest, **named)
        self.count("open")
        return _FileOnFullDisk(self._real_stream(path, mode, *rest, **named), self)


class _FileOnFullDisk:
    """A file that is open for writing on a `FullDisk`."""

    def __init__(self, file: IO[bytes], disk: FullDisk) -> None:
        self._file, self._disk = file, disk

    def write(self, content: bytes) -> int:
        try:
            self._disk.count("write")
        except OSError:
            self._file.write(content[: len(content) // 2])
            raise
        return self._file.write(content)

    def __enter__(self) -> "_FileOnFullDisk":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)
