"""`verify` finds what is wrong with a dataset, and names it."""

import hashlib
import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.builders import made_rollout_schema, make_episode, make_shard, rollout_spec
from worldmodel_v.records import Episode
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset, verify
from worldmodel_v.storage.layout import HDF5_VERSIONS

SPEC = rollout_spec(made_rollout_schema(num_factors=2))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three committed shards of two episodes, with state."""
    path = tmp_path / "data"
    with DatasetWriter(path, SPEC) as writer:
        for number in range(3):
            writer.commit(number, make_shard(first=2 * number, num_factors=2))
    return path


def findings(path: Path) -> list[str]:
    return verify(open_dataset(path))


def test_a_sound_dataset_has_no_findings(dataset: Path) -> None:
    assert findings(dataset) == []


def test_datasets_that_the_pipeline_made_have_no_findings(stamp_rollouts: Path, stamp_latents: Path) -> None:
    assert findings(stamp_rollouts) == []
    assert findings(stamp_latents) == []


def test_an_empty_dataset_has_no_findings(tmp_path: Path) -> None:
    DatasetWriter(tmp_path / "data", SPEC).close()
    assert findings(tmp_path / "data") == []


def test_a_flipped_byte_anywhere_is_found_and_named_with_its_shards_path(dataset: Path) -> None:
    path = dataset / "shards/000001.h5"
    image, rng = path.read_bytes(), random.Random(0)
    regions = np.linspace(0, len(image), 61, dtype=int)
    for start, stop in itertools.pairwise(regions):
        damaged = bytearray(image)
        damaged[rng.randrange(start, stop)] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        found = findings(dataset)
        assert len(found) == 1
        assert found[0].startswith(f"{path}: ")


def test_a_change_that_hdf5_cannot_see_is_found_by_its_hash(dataset: Path) -> None:
    path = dataset / "shards/000001.h5"
    image = path.read_bytes()
    with h5py.File(path, "r+") as file:
        file["ep_len"].attrs.modify("seed", file["ep_len"].attrs["seed"] + 1)
    assert path.stat().st_size == len(image)
    digest, recorded = (hashlib.sha256(content).hexdigest()[:12] for content in (path.read_bytes(), image))
    assert findings(dataset) == [f"{path}: SHA-256 is {digest}…, the index says {recorded}…; restore it from a copy"]


@pytest.mark.parametrize("length", [0, 1, 1000])
def test_a_truncated_shard_is_found(dataset: Path, length: int) -> None:
    path = dataset / "shards/000001.h5"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:length])
    (found,) = findings(dataset)
    assert found.startswith(f"{path}: expected {size} bytes as the index says, got {length}; ")


def test_a_missing_shard_is_found_and_so_is_every_other(dataset: Path) -> None:
    for number in (0, 2):
        (dataset / f"shards/{number:06d}.h5").unlink()
    found = findings(dataset)
    assert [line.split(": ")[0] for line in found] == [str(dataset / f"shards/{number:06d}.h5") for number in (0, 2)]
    assert all("the shard is missing" in line for line in found)


def test_a_file_that_nobody_indexed_is_found(dataset: Path) -> None:
    file = dataset / "shards/000007.h5"
    file.write_bytes(b"")
    assert findings(dataset) == [
        f"{file}: is not in the index, so its episodes do not exist; run the same command again to adopt or remove it"
    ]


def test_a_gap_of_episodes_is_found(dataset: Path) -> None:
    lines = (dataset / "index.jsonl").read_bytes().splitlines(keepends=True)
    (dataset / "index.jsonl").write_bytes(lines[0] + lines[2])
    (dataset / "shards/000001.h5").unlink()
    assert findings(dataset) == [
        f"{dataset}: 2 episodes between the committed ones are missing, the first is 2; "
        "run the same command again to complete it"
    ]


def test_a_gap_before_the_first_shard_is_found(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data", SPEC) as writer:
        writer.commit(1, make_shard(first=2, num_factors=2))
    (found,) = findings(tmp_path / "data")
    assert "2 episodes between the committed ones are missing, the first is 0" in found


def test_a_shard_of_other_settings_is_found_even_if_its_hash_is_right(dataset: Path) -> None:
    path = dataset / "shards/000001.h5"
    other = make_shard(first=2, spec=rollout_spec(SPEC.schema, seed=8), num_factors=2)
    put(dataset, 1, other)
    (found,) = findings(dataset)
    assert found.startswith(f"{path}: spec_hash, episodes, rows, first episode are ")


def test_rows_that_break_the_contract_are_found_even_if_the_hash_is_right(dataset: Path) -> None:
    episodes = [make_episode(2, num_factors=2), without_checks(make_episode(3, num_factors=2), reward=np.zeros(6, np.float32))]
    put(dataset, 1, build_shard(episodes, spec_hash=SPEC.hash))
    (found,) = findings(dataset)
    assert found == f"{dataset / 'shards/000001.h5'}: episode 3 (seed 1003): the last row must hold no reward, but nan"


def test_state_without_its_names_is_found_even_if_the_hash_is_right(dataset: Path, tmp_path: Path) -> None:
    path = dataset / "shards/000001.h5"
    with h5py.File(path, "r+") as file:
        del file["state"].attrs["names"]
    put(dataset, 1, path.read_bytes())
    (found,) = findings(dataset)
    assert found.startswith(f"{path}: ")


def test_index_columns_that_count_otherwise_are_found_even_if_the_hash_is_right(dataset: Path) -> None:
    path = dataset / "shards/000001.h5"
    with h5py.File(path, "r+", libver=HDF5_VERSIONS) as file:
        file["step_idx"][3] = 7
    put(dataset, 1, path.read_bytes())
    assert findings(dataset)[0].startswith(f"{path}: step_idx does not count the rows of episode 2; ")


def without_checks(episode: Episode, **changes: np.ndarray) -> Episode:
    """An episode that breaks the contract, as a faulty writer would make it."""
    broken = replace(episode)
    object.__setattr__(broken, "columns", {**episode.columns, **changes})
    return broken


def put(dataset: Path, number: int, image: bytes) -> None:
    """Replace a shard, and what its index line says about its bytes."""
    (dataset / f"shards/{number:06d}.h5").write_bytes(image)
    lines = [json.loads(line) for line in (dataset / "index.jsonl").read_text().splitlines()]
    lines[number] |= {"bytes": len(image), "sha256": hashlib.sha256(image).hexdigest()}
    (dataset / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_while_a_run_is_at_work_what_it_has_not_committed_yet_is_no_finding(dataset: Path) -> None:
    with DatasetWriter(dataset, SPEC) as writer:
        writer.commit(4, make_shard(first=8, num_factors=2))
        (dataset / "shards/000005.h5").write_bytes(b"between its link and its line")
        assert findings(dataset) == []
    first, second = findings(dataset)
    assert first.startswith(f"{dataset}: 2 episodes between the committed ones are missing, the first is 6; ")
    assert second.startswith(f"{dataset}/shards/000005.h5: is not in the index")


def test_what_was_committed_after_the_dataset_was_opened_is_no_finding(dataset: Path) -> None:
    with DatasetWriter(dataset, SPEC) as writer:
        writer.commit(4, make_shard(first=8, num_factors=2))
        before = open_dataset(dataset)
        writer.commit(3, make_shard(first=6, num_factors=2))
    assert verify(before) == []
