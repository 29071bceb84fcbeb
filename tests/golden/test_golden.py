"""Two datasets of a few kilobytes that this version wrote and every later one reads; h5py alone reads them too.

Made once by `python -m tests.golden.test_golden`. Once the format is released, they are never made anew: a change of the
format is a new `format_version`, with a reader for this one.
"""

import json
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (the filter of frames)
import numpy as np
import pytest
import zstandard

from tests.builders import assert_same_record, latent_spec, made_latent_schema, make_episode, make_latents, rollout_spec
from worldmodel_v.data import FrameStream, LatentSequences
from worldmodel_v.records import Episode
from worldmodel_v.spec import Spec
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset, verify

HERE = Path(__file__).parent
HASHES = {"vae_sha256": "a" * 64, "source_sha256": "b" * 64}


def content(kind: str) -> tuple[Spec, list[Episode]]:
    if kind == "rollouts":
        episodes = [make_episode(i, 3 + i, num_factors=2, action_size=0) for i in range(3)]
        return rollout_spec(episodes[0].schema), episodes
    schema = made_latent_schema(num_factors=2)
    return latent_spec(schema), [make_latents(i, 3 + i, num_factors=2) for i in range(3)]


def make(kind: str, path: Path) -> None:
    spec, episodes = content(kind)
    attributes = HASHES if kind == "latents" else {}
    with DatasetWriter(path, spec) as writer:
        writer.commit(0, build_shard(episodes[:2], spec_hash=spec.hash, attributes=attributes))
        writer.commit(1, build_shard(episodes[2:], spec_hash=spec.hash, attributes=attributes))
    (path / ".lock").unlink()


@pytest.mark.parametrize("kind", ["rollouts", "latents"])
def test_this_version_reads_them(kind: str) -> None:
    dataset = open_dataset(HERE / kind)
    assert verify(dataset) == []
    spec, episodes = content(kind)
    assert (dataset.spec_hash, dataset.schema) == (spec.hash, spec.schema)
    for number, episode in enumerate(episodes):
        assert_same_record(dataset.episode(number), episode)


@pytest.mark.skipif(zstandard.ZSTD_VERSION < (1, 5, 7), reason="an earlier zstd compresses to other bytes")
@pytest.mark.parametrize("kind", ["rollouts", "latents"])
def test_this_version_writes_the_same_bytes(kind: str, tmp_path: Path) -> None:
    make(kind, tmp_path / kind)
    for name in ("dataset.json", "index.jsonl", "shards/000000.h5", "shards/000001.h5"):
        assert (tmp_path / kind / name).read_bytes() == (HERE / kind / name).read_bytes(), name


@pytest.mark.parametrize("kind", ["rollouts", "latents"])
def test_h5py_alone_reads_every_column_as_dataset_json_says_it(kind: str) -> None:
    described = json.loads((HERE / kind / "dataset.json").read_text())
    assert described["format_version"] == 1
    _, episodes = content(kind)
    with h5py.File(HERE / kind / "shards" / "000000.h5") as file:
        assert file["ep_len"][:].tolist() == [4, 5]
        assert file["ep_idx"][:].tolist() == [0] * 4 + [1] * 5
        assert file["step_idx"][:].tolist() == [*range(4), *range(5)]
        for column in described["schema"]["columns"]:
            rows = file[column["name"]]
            assert (str(rows.dtype), [*rows.shape[1:]]) == (column["dtype"], column["row_shape"])
            if column["role"] != "index":
                expected = np.concatenate([episode.columns[column["name"]] for episode in episodes[:2]])
                np.testing.assert_array_equal(rows[:], expected)


def test_they_feed_a_training_and_a_dynamics_model() -> None:
    frames, _ = next(iter(FrameStream(open_dataset(HERE / "rollouts"), lambda _: True, batch_size=8, seed=0)))
    assert frames.shape == (8, 8, 8, 3)
    assert LatentSequences(HERE / "latents", length=2)[0]["z"].shape == (2, 4)


if __name__ == "__main__":
    for name in sys.argv[1:] or ("rollouts", "latents"):
        make(name, HERE / name)
