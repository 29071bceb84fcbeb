"""Damage is never silent: truncated files and flipped bits, through our reader and through plain h5py.

Not silent means an error, or content that is what it was (a bit of padding). Bits are flipped evenly over a file by kind,
from a seed. The dataset is checked the way it is used: opened, every row of every shard read.
"""

import contextlib
import hashlib
import itertools
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (plain h5py needs it to read frames)
import numpy as np
import pytest

from tests.builders import latent_spec, made_latent_schema, made_rollout_schema, make_episode, make_latents, rollout_spec
from worldmodel_v.errors import DatasetNotUsable, ShardDamaged, WorldModelError
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset, verify

KINDS = ("rollouts", "latents")
FILES = ("chunks", "metadata", "dataset.json", "index.jsonl")
FAST_FLIPS, SLOW_FLIPS = 50, 1250
"""For each kind and file; 8 times the second makes 10,000."""

HASHES = {"vae_sha256": "a" * 64, "source_sha256": "b" * 64}


@pytest.fixture(scope="module", params=KINDS)
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three shards of two episodes each, read-only."""
    path = tmp_path_factory.mktemp("sound") / request.param
    rollouts, latents = made_rollout_schema(num_factors=2), made_latent_schema(num_factors=2)
    spec = rollout_spec(rollouts) if request.param == "rollouts" else latent_spec(latents)
    with DatasetWriter(path, spec) as writer:
        for number in range(3):
            ids = (2 * number, 2 * number + 1)
            if request.param == "rollouts":
                image = build_shard([make_episode(i, 70, num_factors=2) for i in ids], spec_hash=spec.hash)
            else:
                episodes = [make_latents(i, 70, num_factors=2) for i in ids]
                image = build_shard(episodes, spec_hash=spec.hash, attributes=HASHES)
            writer.commit(number, image)
    return path


def content(path: Path) -> dict[str, Any]:
    """All that a dataset says, read with this package; NaN compares by its bytes."""
    dataset = open_dataset(path)
    everything: dict[str, Any] = {"spec": dataset.spec.settings(), "format": dataset.format, "hash": dataset.spec_hash}
    for entry in dataset.entries:
        with dataset.open_shard(entry) as shard:
            everything[entry.name] = [
                shard.attributes,
                shard.state_names,
                shard.policies,
                *((name, rows.dtype, rows.shape, rows.tobytes()) for name, rows in _table_and_rows(shard)),
            ]
    return everything


def _table_and_rows(shard: Any) -> Iterator[tuple[str, np.ndarray]]:
    yield from (("id", shard.episode_ids), ("seed", shard.seeds), ("return", shard.returns))
    for name in sorted(shard.columns):
        yield name, shard.rows(name)


def plain_content(path: Path) -> dict[str, Any]:
    """All that a shard says, read with h5py and hdf5plugin alone."""
    with h5py.File(path, "r") as file:
        everything: dict[str, Any] = {name: _plain(value) for name, value in file.attrs.items()}
        for name, column in file.items():
            rows = column[()]
            attributes = {key: _plain(value) for key, value in column.attrs.items()}
            everything[name + "/rows"] = (rows.dtype, rows.shape, rows.tobytes(), attributes)
    return everything


def _plain(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) else value


def chunk_ranges(shard: Path) -> list[tuple[int, int]]:
    """Where the chunks lie, by HDF5's own account: (first byte, one past the last)."""
    ranges: list[tuple[int, int]] = []
    with h5py.File(shard, "r") as file:
        for column in file.values():
            column.id.chunk_iter(lambda chunk: ranges.append((chunk.byte_offset, chunk.byte_offset + chunk.size)))
    return ranges


def positions(path: Path, file: str) -> tuple[Path, np.ndarray]:
    """The file in which bits of this sort are flipped, and the bytes that are of this sort."""
    if file in ("dataset.json", "index.jsonl"):
        return path / file, np.arange((path / file).stat().st_size)
    shard = path / "shards/000001.h5"
    of_chunks = np.zeros(shard.stat().st_size, np.bool_)
    for start, end in chunk_ranges(shard):
        of_chunks[start:end] = True
    return shard, np.flatnonzero(of_chunks if file == "chunks" else ~of_chunks)


def flips(path: Path, file: str, number: int) -> Iterator[Path]:
    """Flip one bit after another, spread evenly; the file is as it was after each."""
    target, bytes_of_this_sort = positions(path, file)
    original, chance = target.read_bytes(), random.Random(f"{path.name} {file}")
    strata = np.linspace(0, 8 * len(bytes_of_this_sort), number + 1).astype(int)
    for start, end in itertools.pairwise(strata):
        bit = chance.randrange(start, max(end, start + 1))
        damaged = bytearray(original)
        damaged[bytes_of_this_sort[bit // 8]] ^= 1 << bit % 8
        target.write_bytes(damaged)
        yield target
    target.write_bytes(original)


def silent_flips(sound: Path, folder: Path, file: str, number: int) -> tuple[int, int]:
    """(how many of the flips were silent, how many changed nothing), through our reader."""
    path = folder / sound.name
    shutil.copytree(sound, path)
    expected = content(path)
    silent = harmless = 0
    for _ in flips(path, file, number):
        with contextlib.suppress(WorldModelError):
            same = content(path) == expected
            harmless += same
            silent += not same
    assert content(path) == expected
    return silent, harmless


@pytest.mark.parametrize("file", FILES)
def test_no_flipped_bit_is_silent(sound: Path, tmp_path: Path, file: str) -> None:
    silent, harmless = silent_flips(sound, tmp_path, file, FAST_FLIPS)
    assert silent == 0
    assert harmless <= FAST_FLIPS // 2


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_none_of_ten_thousand_flipped_bits_is_silent(sound: Path, tmp_path: Path, file: str) -> None:
    assert silent_flips(sound, tmp_path, file, SLOW_FLIPS)[0] == 0


def silent_plain_flips(sound: Path, folder: Path, file: str, number: int) -> int:
    """How many of the flips were silent through plain h5py."""
    path = folder / sound.name
    shutil.copytree(sound, path)
    expected = plain_content(path / "shards/000001.h5")
    silent = 0
    for shard in flips(path, file, number):
        with contextlib.suppress(OSError, RuntimeError, KeyError, ValueError, TypeError):
            silent += plain_content(shard) != expected
    return silent


@pytest.mark.parametrize("file", ["chunks", "metadata"])
def test_no_flipped_bit_is_silent_through_plain_h5py(sound: Path, tmp_path: Path, file: str) -> None:
    assert silent_plain_flips(sound, tmp_path, file, FAST_FLIPS) == 0


@pytest.mark.slow
@pytest.mark.parametrize("file", ["chunks", "metadata"])
def test_none_of_thousands_of_flipped_bits_is_silent_through_plain_h5py(sound: Path, tmp_path: Path, file: str) -> None:
    assert silent_plain_flips(sound, tmp_path, file, 2 * SLOW_FLIPS) == 0


CUTS = {"nothing left": 0, "one byte": 1, "half": 0.5, "all but one byte": -1}


@pytest.mark.parametrize("cut", CUTS)
def test_a_truncated_shard_is_an_error_for_us_and_for_plain_h5py(sound: Path, tmp_path: Path, cut: str) -> None:
    path = tmp_path / sound.name
    shutil.copytree(sound, path)
    shard = path / "shards/000001.h5"
    image = shard.read_bytes()
    length = {"half": len(image) // 2, "all but one byte": len(image) - 1}.get(cut, int(CUTS[cut]))
    shard.write_bytes(image[:length])
    with pytest.raises(ShardDamaged, match=re.escape(str(shard))):
        content(path)
    with pytest.raises(OSError, match=r"truncated|signature|unable to|Unable to"):
        plain_content(shard)
    line = json.loads((path / "index.jsonl").read_text().splitlines()[1])
    line |= {"bytes": length, "sha256": hashlib.sha256(image[:length]).hexdigest()}
    lines = (path / "index.jsonl").read_text().splitlines()
    (path / "index.jsonl").write_text("\n".join([lines[0], json.dumps(line), lines[2]]) + "\n")
    with pytest.raises(ShardDamaged, match=re.escape(str(shard))):
        content(path)


@pytest.mark.parametrize("length", [0, 1, 0.5, 0.99])
def test_a_truncated_description_is_an_error(sound: Path, tmp_path: Path, length: float) -> None:
    path = tmp_path / sound.name
    shutil.copytree(sound, path)
    whole = (path / "dataset.json").read_bytes()
    (path / "dataset.json").write_bytes(whole[: int(length if length == 1 else length * len(whole))])
    with pytest.raises(DatasetNotUsable, match=re.escape(str(path / "dataset.json"))):
        open_dataset(path)


def test_what_only_a_hash_can_tell_is_found_by_verification(sound: Path, tmp_path: Path) -> None:
    """A flipped digit of a line's SHA-256 changes no row, so reading goes on; verification tells."""
    path = tmp_path / sound.name
    shutil.copytree(sound, path)
    text = (path / "index.jsonl").read_text()
    digits = json.loads(text.splitlines()[1])["sha256"]
    (path / "index.jsonl").write_text(text.replace(digits, digits[:-1] + ("0" if digits[-1] != "0" else "1")))
    (finding,) = verify(open_dataset(path))
    assert "SHA-256 is" in finding
