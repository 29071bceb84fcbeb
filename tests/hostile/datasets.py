"""A dataset whose every hash is right, whatever its shards hold: what a stranger would send."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import h5py

from tests import builders
from tests.builders import made_latent_schema, made_rollout_schema, make_episode, make_latents
from worldmodel_v.spec import LatentSpec, RolloutSpec, Spec
from worldmodel_v.storage import build_shard
from worldmodel_v.storage.layout import HDF5_VERSIONS

NUM_EPISODES, NUM_ROWS = 2, 12


def rollout_spec(**changes: object) -> RolloutSpec:
    """The settings of small rollouts with a state of two factors."""
    return builders.rollout_spec(made_rollout_schema(8, num_factors=2), **changes)


def latent_spec(**changes: object) -> LatentSpec:
    """The settings of small latents with a state of two factors."""
    return builders.latent_spec(made_latent_schema(num_factors=2), **changes)


def sound_shard(spec: Spec) -> bytes:
    """A shard of two episodes of six rows, of the kind that the settings are of."""
    make = make_latents if spec.format.endswith("latents") else make_episode
    attributes = {"vae_sha256": "a" * 64} if spec.format.endswith("latents") else {}
    return build_shard([make(i, num_factors=2) for i in range(NUM_EPISODES)], spec_hash=spec.hash, attributes=attributes)


def put_dataset(path: Path, image: bytes, spec: Spec, **line: object) -> Path:
    """A dataset of one shard, with an index that is right about it but for what `line` changes."""
    (path / "shards").mkdir(parents=True)
    (path / "shards/000000.h5").write_bytes(image)
    (path / "dataset.json").write_text(json.dumps(spec.to_json()))
    about = {"shard": 0, "first_episode": 0, "num_episodes": NUM_EPISODES, "num_rows": NUM_ROWS, "bytes": len(image)}
    entry = {**about, "sha256": hashlib.sha256(image).hexdigest(), **line}
    (path / "index.jsonl").write_text(json.dumps(entry) + "\n")
    return path


def edited_dataset(path: Path, edit: Callable[[h5py.File], object], spec: Spec | None = None) -> Path:
    """A dataset whose shard was edited with HDF5 itself, as a stranger who has it can."""
    spec = spec or rollout_spec()
    path.mkdir()
    draft = path / "draft.h5"
    draft.write_bytes(sound_shard(spec))
    with h5py.File(draft, "r+", libver=HDF5_VERSIONS) as file:
        edit(file)
    image = draft.read_bytes()
    draft.unlink()
    return put_dataset(path, image, spec)


__all__ = ["edited_dataset", "latent_spec", "put_dataset", "rollout_spec", "sound_shard"]
