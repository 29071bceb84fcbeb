"""Small datasets made by hand, to select from."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from tests.builders import latent_spec, make_episode, make_latents, rollout_spec
from worldmodel_v.records import Episode
from worldmodel_v.selection import SelectConfig, SelectReport, select
from worldmodel_v.storage import Dataset, DatasetWriter, build_shard, open_dataset

VAE = "b" * 64
PER_SHARD = 3


def policy_of(noise: int) -> str:
    return f"policy-{noise}"


def write_rollouts(path: Path, num_episodes: int, *, noise: int = 0, per_shard: int = PER_SHARD, **settings: Any) -> Path:
    """Episodes of 4 + number actions; `noise` makes them others, with another seed and policy. Odd ones end truncated."""
    episodes = [
        make_episode(
            number, 4 + number, noise=noise, seed=100 * noise + number, ending="truncated" if number % 2 else "terminated"
        )
        for number in range(num_episodes)
    ]
    settings = {"frame_height": 8, "frame_width": 8, "seed": noise, "policy": policy_of(noise), **settings}
    _write(path, rollout_spec(episodes[0].schema, **settings), episodes, per_shard, policy_of(noise), {})
    return path


def write_latents(
    path: Path, num_episodes: int, *, noise: int = 0, source: dict[str, Any] | None = None, **settings: Any
) -> Path:
    """Latents of such rollouts."""
    episodes = [make_latents(number, 4 + number, noise=noise) for number in range(num_episodes)]
    made_from = {"env": "made up", "policy": policy_of(noise), "seed": noise, "crop": "full"} | (source or {})
    settings = {"vae_sha256": VAE, "source": made_from, "source_spec_hash": f"{noise:064}", **settings}
    attributes = {"vae_sha256": settings["vae_sha256"], "source_sha256": "c" * 64}
    _write(path, latent_spec(episodes[0].schema, **settings), episodes, PER_SHARD, policy_of(noise), attributes)
    return path


def _write(path: Path, spec: Any, episodes: list[Episode], per_shard: int, policy: str, attributes: dict[str, str]) -> None:
    with DatasetWriter(path, spec) as writer:
        for shard, first in enumerate(range(0, len(episodes), per_shard)):
            block = [dataclasses.replace(each, policy=policy) for each in episodes[first : first + per_shard]]
            writer.commit(shard, build_shard(block, spec_hash=spec.hash, attributes=attributes))


def selected(out: Path, *data: Path, **asked: Any) -> SelectReport:
    return select(SelectConfig(data=data, out=out, **asked))


def episodes_of(dataset: Dataset | Path) -> list[Episode]:
    dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    return [shard.episode(position) for _, shard in dataset.shards() for position in range(shard.num_episodes)]


def assert_same_content(found: list[Episode], expected: list[Episode]) -> None:
    """Row by row, bit by bit; the numbers count from 0."""
    assert [each.episode_id for each in found] == [*range(len(expected))]
    for one, other in zip(found, expected, strict=True):
        assert (one.seed, one.policy, one.schema) == (other.seed, other.policy, other.schema)
        for name, rows in other.columns.items():
            np.testing.assert_array_equal(one.columns[name], rows, err_msg=name, strict=True)


def content(out: Path) -> dict[str, bytes]:
    """Every file that is data."""
    return {
        str(file.relative_to(out)): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }
