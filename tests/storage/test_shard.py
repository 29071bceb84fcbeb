"""Shards: what is written is what is read, by us and by plain h5py, and damage is never silent."""

import dataclasses
import hashlib
import io
import pickle
import random
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import (
    assert_same_record,
    made_latent_schema,
    made_rollout_schema,
    make_episode,
    make_latents,
    make_shard,
    run_python,
)
from worldmodel_v.autoencoders.gaussian import gaussian_latents
from worldmodel_v.errors import ShardDamaged
from worldmodel_v.records import Episode
from worldmodel_v.schema import Column, Schema, latent_schema
from worldmodel_v.storage import Shard, build_shard, layout, shard_writer
from worldmodel_v.storage.checksum import fletcher32
from worldmodel_v.storage.layout import HDF5_VERSIONS
from worldmodel_v.storage.store import LocalFile

SPEC_HASH = "c" * 64
PLAIN, WITH_STATE = made_rollout_schema(), made_rollout_schema(num_factors=2)

LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=4)
SHARED = st.fixed_dictionaries(
    {
        "action_size": st.integers(0, 3),
        "num_factors": st.integers(0, 3),
        "ending": st.sampled_from(["terminated", "truncated", "both"]),
        "noise": st.integers(0, 2**32 - 1),
    }
)


def assert_round_trip(records: list) -> None:
    with Shard.from_bytes(build_shard(records, spec_hash=SPEC_HASH), records[0].schema) as shard:
        assert shard.num_episodes == len(records)
        assert shard.num_rows == sum(record.num_rows for record in records)
        assert shard.returns.tolist() == [record.episode_return for record in records]
        for position, record in enumerate(records):
            assert_same_record(shard.episode(position), record)


class TestRoundTrip:
    @settings(max_examples=30, deadline=None)
    @given(lengths=LENGTHS, shared=SHARED, size=st.integers(1, 9), first=st.integers(0, 10**6))
    def test_episodes_come_back_as_they_were(self, lengths: list[int], shared: dict, size: int, first: int) -> None:
        assert_round_trip([make_episode(first + i, length, size=size, **shared) for i, length in enumerate(lengths)])

    @settings(max_examples=30, deadline=None)
    @given(lengths=LENGTHS, shared=SHARED, latent_dim=st.integers(1, 9), dtype=st.sampled_from([np.float32, np.float16]))
    def test_latents_come_back_as_they_were(self, lengths: list[int], shared: dict, latent_dim: int, dtype: type) -> None:
        records = [make_latents(i, length, latent_dim=latent_dim, dtype=dtype, **shared) for i, length in enumerate(lengths)]
        assert_round_trip(records)

    def test_the_largest_seed_of_32_bits_comes_back(self) -> None:
        with Shard.from_bytes(build_shard([make_episode(seed=2**32 - 1)], spec_hash=SPEC_HASH), PLAIN) as shard:
            assert shard.episode(0).seed == 2**32 - 1

    def test_further_attributes_come_back(self) -> None:
        attributes = {"vae_sha256": "a" * 64, "source_sha256": "b" * 64}
        with Shard.from_bytes(
            build_shard([make_latents()], spec_hash=SPEC_HASH, attributes=attributes), made_latent_schema()
        ) as shard:
            found = shard.attributes
        assert {name: found[name] for name in attributes} == attributes

    @settings(max_examples=40, deadline=None)
    @given(bounds=st.lists(st.integers(0, 200), min_size=2, max_size=2, unique=True).map(sorted))
    def test_frames_are_read_across_the_borders_of_chunks(self, bounds: list[int]) -> None:
        start, stop = bounds
        episode = make_episode(num_steps=199, size=4)
        with Shard.from_bytes(build_shard([episode], spec_hash=SPEC_HASH), episode.schema) as shard:
            np.testing.assert_array_equal(shard.rows("pixels", start, stop), episode.pixels[start:stop], strict=True)

    @settings(max_examples=30, deadline=None)
    @given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=12), seed=st.integers(0, 2**32 - 1))
    def test_the_bytes_are_those_of_episodes_that_are_written_one_by_one(self, lengths: list[int], seed: int) -> None:
        episodes = [make_episode(i, length, size=8, num_factors=1, noise=seed) for i, length in enumerate(lengths)]
        found = build_shard(episodes, spec_hash=SPEC_HASH)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shard_writer, "_joined", lambda parts, num_rows: parts)
            assert build_shard(episodes, spec_hash=SPEC_HASH) == found

    def test_every_chunk_of_frames_is_whole_but_the_last(self) -> None:
        episode = make_episode(num_steps=129, size=4)
        with Shard.from_bytes(build_shard([episode], spec_hash=SPEC_HASH), episode.schema) as shard:
            chunks = [shard.pixel_chunk(number) for number in range(shard.num_pixel_chunks)]
        assert [len(chunk) for chunk in chunks] == [64, 64, 2]
        np.testing.assert_array_equal(np.concatenate(chunks), episode.pixels)

    @pytest.mark.parametrize("rows", [64, 80])
    def test_frames_are_decompressed_into_the_memory_that_is_given(self, rows: int) -> None:
        episode, out = make_episode(num_steps=129, size=4), np.full((rows, 4, 4, 3), 7, np.uint8)
        with Shard.from_bytes(build_shard([episode], spec_hash=SPEC_HASH), episode.schema) as shard:
            for number in range(3):
                chunk = shard.pixel_chunk(number, out)
                assert np.shares_memory(chunk, out)
                np.testing.assert_array_equal(chunk, episode.pixels[64 * number : 64 * number + 64])
        assert (out[64:] == 7).all()

    def test_chunks_are_read_from_their_places_without_hdf5(self, tmp_path: Path) -> None:
        path, episode = tmp_path / "000000.h5", make_episode(num_steps=200, size=4)
        path.write_bytes(build_shard([episode], spec_hash=SPEC_HASH))
        with Shard.open(path, episode.schema) as shard:
            pixels, places = shard.pixel_layout, shard.pixel_places()
        assert (places.dtype, places.shape) == (np.int64, (4, 2))
        file = LocalFile(path)
        chunks = [pixels.decode(i, file.read(*place)) for i, place in enumerate(places.tolist())]
        file.close()
        np.testing.assert_array_equal(np.concatenate(chunks), episode.pixels)

    def test_a_chunk_that_does_not_say_its_size_is_read_all_the_same(self, tmp_path: Path) -> None:
        path, episode = tmp_path / "000000.h5", make_episode()
        path.write_bytes(build_shard([episode], spec_hash=SPEC_HASH))
        store_chunk(path, zstandard.ZstdCompressor(write_content_size=False).compress(episode.pixels.tobytes()))
        with Shard.open(path, episode.schema) as shard:
            np.testing.assert_array_equal(shard.rows("pixels"), episode.pixels)


def _latents_of(episode: Episode) -> Episode:
    """A latent sequence with the episode's other columns."""
    mu = logvar = np.zeros((episode.num_rows, 4), np.float32)
    others = {name: rows for name, rows in episode.columns.items() if name != "pixels"}
    schema = latent_schema(episode.schema, *gaussian_latents(4, "float32"))
    return dataclasses.replace(episode, schema=schema, columns={"mu": mu, "logvar": logvar, **others})


@pytest.mark.parametrize(("make", "most"), [(make_episode, 42), (make_latents, 43)])
def test_the_most_columns_that_a_schema_takes_are_read_back(make: Callable[[], Episode], most: int) -> None:
    """HDF5 keeps more names than these in a tree of several nodes, which is refused."""
    episode = make()
    names = [f"extra_{number}" for number in range(most - len(episode.schema.columns))]
    extras = tuple(Column(name=name, dtype="float32", row_shape=(), role="extra") for name in names)
    schema = dataclasses.replace(episode.schema, columns=(*episode.schema.columns, *extras))
    rows = {name: np.zeros(episode.num_rows, np.float32) for name in names}
    assert_round_trip([dataclasses.replace(episode, schema=schema, columns={**episode.columns, **rows})])
    with pytest.raises(ValueError, match=f"{most + 1} columns, expected at most {most}"):
        dataclasses.replace(schema, columns=(*schema.columns, dataclasses.replace(extras[0], name="more")))


class TestSameBytes:
    def test_the_same_episodes_give_the_same_bytes(self) -> None:
        assert make_shard(num_steps=70, num_factors=2) == make_shard(num_steps=70, num_factors=2)

    def test_another_process_gives_the_same_bytes(self) -> None:
        code = (
            "import hashlib; from tests.builders import make_shard; "
            "print(hashlib.sha256(make_shard(num_steps=70, num_factors=2)).hexdigest())"
        )
        assert run_python(code) == hashlib.sha256(make_shard(num_steps=70, num_factors=2)).hexdigest()

    @pytest.mark.parametrize(("rows_of_a_chunk", "taken_over"), [(4096, True), (16, True), (5, False)])
    def test_latents_are_the_same_whether_columns_are_taken_from_the_rollouts_or_written(
        self, monkeypatch: pytest.MonkeyPatch, rows_of_a_chunk: int, taken_over: bool
    ) -> None:
        episodes = [make_episode(i, 20 + i, num_factors=2) for i in range(3)]
        latents = [_latents_of(episode) for episode in episodes]
        monkeypatch.setattr(layout, "ROW_CHUNK_ROWS", rows_of_a_chunk)
        rollouts = build_shard(episodes, spec_hash=SPEC_HASH)
        if not taken_over:  # the rollouts' own chunks are of another length
            monkeypatch.setattr(layout, "ROW_CHUNK_ROWS", 16)
        written = build_shard(latents, spec_hash=SPEC_HASH)
        with Shard.from_bytes(rollouts, episodes[0].schema) as source:
            read = []
            stored = source.stored
            monkeypatch.setattr(source, "stored", lambda name, number: read.append(name) or stored(name, number))
            assert build_shard(latents, spec_hash=SPEC_HASH, source=source) == written
        shared = {"action", "reward", "terminated", "truncated", "state", "ep_idx", "step_idx"}
        assert set(read) == (shared if taken_over else set())

    def test_other_pixels_give_other_bytes(self) -> None:
        assert make_shard(noise=0) != make_shard(noise=1)


def filters_of(column: h5py.Dataset) -> list[int]:
    creation = column.id.get_create_plist()
    return [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]


class TestLayoutOnDisk:
    def test_rollouts_are_laid_out_as_the_format_says(self) -> None:
        episodes = [make_episode(5, 80, num_factors=2), make_episode(6, 20, num_factors=2)]
        with h5py.File(io.BytesIO(build_shard(episodes, spec_hash=SPEC_HASH)), "r") as file:
            assert sorted(file) == [
                "action",
                "ep_idx",
                "ep_len",
                "ep_offset",
                "pixels",
                "reward",
                "state",
                "step_idx",
                "terminated",
                "truncated",
            ]
            assert all(isinstance(file.get(name, getlink=True), h5py.HardLink) for name in file)
            assert all(isinstance(column, h5py.Dataset) for column in file.values())
            assert file["pixels"].chunks == (64, 8, 8, 3)
            assert filters_of(file["pixels"]) == [32015, h5py.h5z.FILTER_FLETCHER32]
            assert {name: column.dtype for name, column in file.items()} == {
                "pixels": np.uint8,
                "action": np.float32,
                "reward": np.float32,
                "terminated": np.bool_,
                "truncated": np.bool_,
                "state": np.float32,
                "ep_idx": np.int64,
                "step_idx": np.int64,
                "ep_len": np.int32,
                "ep_offset": np.int64,
            }
            assert file["ep_len"][:].tolist() == [81, 21]
            assert file["ep_offset"][:].tolist() == [0, 81]
            assert file["ep_idx"][:].tolist() == [5] * 81 + [6] * 21
            assert file["step_idx"][:].tolist() == [*range(81), *range(21)]
            assert file["ep_len"].attrs["episode_id"].tolist() == [5, 6]
            assert file["ep_len"].attrs["seed"].tolist() == [1005, 1006]
            assert file["ep_len"].attrs["return"].tolist() == [episode.episode_return for episode in episodes]
            assert list(file["state"].attrs["names"]) == [b"factor_0", b"factor_1"]
            assert file.attrs["format"] == b"worldmodel_v/rollouts"
            assert file.attrs["format_version"] == 1
            assert file.attrs["spec_hash"] == SPEC_HASH.encode()
            assert file.attrs["alignment"].startswith(b"Row t holds the observation o_t, the action a_t chosen on it")

    def test_latents_use_only_filters_that_are_built_into_hdf5(self) -> None:
        built_in = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
        image = build_shard([make_latents(num_factors=1)], spec_hash=SPEC_HASH)
        with h5py.File(io.BytesIO(image), "r") as file:
            assert file.attrs["format"] == b"worldmodel_v/latents"
            assert {"mu", "logvar"} <= set(file)
            assert "pixels" not in file
            for column in file.values():
                assert set(filters_of(column)) <= built_in
                assert filters_of(column)[-1] == h5py.h5z.FILTER_FLETCHER32

    def test_the_superblock_is_the_checksummed_one_of_version_3(self) -> None:
        image = make_shard()
        assert image[:8] == b"\x89HDF\r\n\x1a\n"
        assert image[8] == 3

    def test_latents_are_read_by_plain_h5py_in_a_process_without_plugins(self, tmp_path: Path) -> None:
        path, latents = tmp_path / "latents.h5", make_latents(num_steps=30)
        path.write_bytes(build_shard([latents], spec_hash=SPEC_HASH))
        code = (
            "import sys, h5py; mu = h5py.File(sys.argv[1])['mu'][:]; "
            "assert 'hdf5plugin' not in sys.modules; print(mu.dtype, mu.shape, mu.tobytes().hex())"
        )
        assert run_python(code, path) == f"float32 (31, 4) {latents.mu.tobytes().hex()}"

    def test_pixels_are_read_by_h5py_with_the_plugin_in_a_process_without_us(self, tmp_path: Path) -> None:
        path, episode = tmp_path / "rollouts.h5", make_episode(num_steps=150)
        path.write_bytes(build_shard([episode], spec_hash=SPEC_HASH))
        code = (
            "import hashlib, sys, h5py, hdf5plugin; pixels = h5py.File(sys.argv[1])['pixels'][:]; "
            "print(pixels.dtype, pixels.shape, hashlib.sha256(pixels.tobytes()).hexdigest())"
        )
        assert run_python(code, path) == f"uint8 (151, 8, 8, 3) {hashlib.sha256(episode.pixels.tobytes()).hexdigest()}"


def test_an_open_shard_refuses_to_be_pickled() -> None:
    with (
        Shard.from_bytes(make_shard(), PLAIN) as shard,
        pytest.raises(TypeError, match=r"^an open Shard cannot be pickled; send its path and open it in the other process$"),
    ):
        pickle.dumps(shard)


def everything_in(shard: Shard) -> dict[str, object]:
    """All that a shard's columns and episode table hold, in a form that compares NaN by its bytes."""
    table = {name: getattr(shard, name).tobytes() for name in ("episode_ids", "seeds", "returns", "ep_len", "ep_offset")}
    columns = {name: (shard.columns[name], shard.rows(name).tobytes()) for name in shard.columns}
    return {**table, **columns, "format": shard.attributes["format"]}


def flipped(image: bytes, position: int, mask: int) -> bytes:
    return image[:position] + bytes([image[position] ^ mask]) + image[position + 1 :]


class TestDamage:
    def test_a_flipped_byte_anywhere_is_refused_or_changes_no_value(self, tmp_path: Path) -> None:
        path, image = tmp_path / "000000.h5", make_shard(num_steps=80, num_factors=2)
        with Shard.from_bytes(image, WITH_STATE) as shard:
            expected = everything_in(shard)
        rng, refused = random.Random(0), []
        for _ in range(250):
            path.write_bytes(flipped(image, rng.randrange(len(image)), rng.randrange(1, 256)))
            try:
                with Shard.open(path, WITH_STATE, len(image)) as shard:
                    assert everything_in(shard) == expected
            except ShardDamaged as error:
                refused.append(str(error))
        assert len(refused) > 150
        assert all(message.startswith(f"{path}: ") for message in refused)

    def test_a_flipped_byte_in_a_latent_shard_is_refused_or_changes_no_value(self, tmp_path: Path) -> None:
        path, image = tmp_path / "000000.h5", build_shard([make_latents(num_steps=90)], spec_hash=SPEC_HASH)
        with Shard.from_bytes(image, made_latent_schema()) as shard:
            expected = everything_in(shard)
        rng = random.Random(1)
        for _ in range(150):
            path.write_bytes(flipped(image, rng.randrange(len(image)), rng.randrange(1, 256)))
            try:
                with Shard.open(path, made_latent_schema(), len(image)) as shard:
                    assert everything_in(shard) == expected
            except ShardDamaged:
                pass

    @pytest.mark.parametrize(
        "text",
        [b"factor_0", b"Row t holds", b"c" * 64, b"worldmodel_v/rollouts"],
        ids=["state names", "alignment", "spec hash", "format"],
    )
    def test_a_flipped_byte_in_a_text_is_never_silent(self, text: bytes) -> None:
        image = build_shard([make_episode(num_factors=2)], spec_hash=SPEC_HASH)
        with pytest.raises(ShardDamaged):
            Shard.from_bytes(flipped(image, image.index(text) + 3, 1), WITH_STATE).close()

    def test_a_flipped_byte_in_a_compressed_chunk_of_frames_always_raises(self) -> None:
        image = make_shard(num_steps=80)
        with h5py.File(io.BytesIO(image), "r") as file:
            chunks = [file["pixels"].id.get_chunk_info(i) for i in range(file["pixels"].id.get_num_chunks())]
        positions = [chunk.byte_offset + i for chunk in chunks for i in range(chunk.size)]
        rng = random.Random(2)
        for position in rng.sample(positions, 200):
            with (
                Shard.from_bytes(flipped(image, position, rng.randrange(1, 256)), PLAIN) as shard,
                pytest.raises(ShardDamaged, match=r"pixel chunk \d+ \(rows from \d+\) fails its checksum"),
            ):
                shard.rows("pixels")

    def test_plain_h5py_refuses_a_flipped_byte_in_a_chunk_of_frames(self) -> None:
        image = make_shard(num_steps=80)
        with h5py.File(io.BytesIO(image), "r") as file:
            chunk = file["pixels"].id.get_chunk_info(1)
        for position in random.Random(3).sample(range(chunk.byte_offset, chunk.byte_offset + chunk.size), 50):
            with h5py.File(io.BytesIO(flipped(image, position, 0x10)), "r") as file, pytest.raises(OSError, match="filter"):
                file["pixels"][64:128]

    @pytest.mark.parametrize("with_size", [False, True])
    @pytest.mark.parametrize("cut", ["nothing left", "one byte", "half", "one byte short"])
    def test_a_truncated_shard_is_refused(self, tmp_path: Path, cut: str, with_size: bool) -> None:
        path, image = tmp_path / "000000.h5", make_shard(num_steps=80)
        length = {"nothing left": 0, "one byte": 1, "half": len(image) // 2, "one byte short": len(image) - 1}[cut]
        path.write_bytes(image[:length])
        with pytest.raises(ShardDamaged, match=re.escape(str(path))):
            Shard.open(path, PLAIN, len(image) if with_size else None)
        with pytest.raises(ShardDamaged):
            Shard.from_bytes(image[:length], PLAIN)

    def test_a_missing_shard_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ShardDamaged, match=re.escape(f"{tmp_path / 'x.h5'}: the shard is missing; restore it from a copy")):
            Shard.open(tmp_path / "x.h5", PLAIN)

    def test_a_shard_of_another_size_than_the_index_says_is_refused(self, tmp_path: Path) -> None:
        path, image = tmp_path / "000000.h5", make_shard()
        path.write_bytes(image + b"\0")
        with pytest.raises(ShardDamaged, match=f"expected {len(image)} bytes as the index says, got {len(image) + 1}; "):
            Shard.open(path, PLAIN, len(image))

    def test_a_file_that_is_no_hdf5_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "text.h5").write_text("not a shard\n" * 100)
        with pytest.raises(ShardDamaged, match=r"text\.h5: not a readable HDF5 file"):
            Shard.open(tmp_path / "text.h5", PLAIN)


def replace(file: h5py.File, name: str, **settings: object) -> h5py.Dataset:
    """Store a column again, with other settings."""
    rows = file[name][:]
    del file[name]
    return file.create_dataset(name, **{"data": rows, "chunks": True, "fletcher32": True, **settings})


def external_storage(file: h5py.File) -> None:
    rows = file["reward"][:]
    elsewhere = Path(file.filename).with_name("elsewhere.bin")
    elsewhere.write_bytes(rows.tobytes())
    del file["reward"]
    file.create_dataset("reward", rows.shape, rows.dtype, external=[(str(elsewhere), 0, rows.nbytes)])


def soft_link(file: h5py.File) -> None:
    del file["truncated"]
    file["truncated"] = h5py.SoftLink("/terminated")


def external_link(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.h5")
    other.write_bytes(make_shard())
    del file["reward"]
    file["reward"] = h5py.ExternalLink(str(other), "/reward")


def dangling_link(file: h5py.File) -> None:
    del file["reward"]
    file["reward"] = h5py.SoftLink("/nowhere")


def virtual_dataset(file: h5py.File) -> None:
    shape = file["reward"].shape
    virtual = h5py.VirtualLayout(shape, np.float32)
    virtual[:] = h5py.VirtualSource("elsewhere.h5", "reward", shape)
    del file["reward"]
    file.create_virtual_dataset("reward", virtual)


def group_as_column(file: h5py.File) -> None:
    del file["reward"]
    file.create_group("reward")


def texts_as_rewards(file: h5py.File) -> None:
    replace(file, "reward", dtype=h5py.string_dtype(), data=["x"] * 12, fletcher32=False)


def unknown_column(file: h5py.File) -> None:
    file.create_dataset("extra", data=np.zeros(12), fletcher32=True)


def other_lengths(file: h5py.File) -> None:
    file["ep_len"][0] += 1


def overlapping_episodes(file: h5py.File) -> None:
    file["ep_offset"][1] -= 1


def episode_of_one_row(file: h5py.File) -> None:
    file["ep_len"][:] = [1, 11]
    file["ep_offset"][:] = [0, 1]


def no_episodes(file: h5py.File) -> None:
    for name in file:
        replace(file, name, data=file[name][:0], maxshape=(None, *file[name].shape[1:]))


def not_consecutive(file: h5py.File) -> None:
    file["ep_len"].attrs["episode_id"] = np.array([0, 2])


def no_episode_ids(file: h5py.File) -> None:
    del file["ep_len"].attrs["episode_id"]


def too_few_seeds(file: h5py.File) -> None:
    file["ep_len"].attrs["seed"] = np.array([1])


def texts_as_episode_ids(file: h5py.File) -> None:
    file["ep_len"].attrs["episode_id"] = ["0", "1"]


def frames_cut_by_chunks(file: h5py.File) -> None:
    replace(file, "pixels", chunks=(12, 4, 8, 3), **hdf5plugin.Zstd())


def frames_without_end(file: h5py.File) -> None:
    replace(file, "pixels", chunks=(65, 8, 8, 3), maxshape=(None, 8, 8, 3), **hdf5plugin.Zstd())


def four_channels(file: h5py.File) -> None:
    replace(file, "pixels", data=np.zeros((12, 8, 8, 4), np.uint8), chunks=(12, 8, 8, 4), **hdf5plugin.Zstd())


GZIP = {"compression": "gzip", "shuffle": True}

HOSTILE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "external storage": (external_storage, "reward is stored in other files, which no shard does"),
    "soft link": (soft_link, "truncated is a link to somewhere else"),
    "external link": (external_link, "reward is a link to somewhere else"),
    "dangling link": (dangling_link, "reward is a link to somewhere else"),
    "virtual dataset": (virtual_dataset, "reward is not stored in chunks of this file"),
    "group": (group_as_column, "reward is a group, expected a column"),
    "unknown column": (unknown_column, "expected the columns"),
    "missing column": (lambda file: file.pop("reward"), "expected the columns"),
    "wrong dtype": (
        lambda file: replace(file, "reward", dtype=np.float64),
        "reward has rows of float64 [], expected float32 []",
    ),
    "big endian": (lambda file: replace(file, "reward", dtype=">f4"), "reward holds floats of a type that no shard has"),
    "texts": (texts_as_rewards, "reward holds values of variable length of a type that no shard has"),
    "wrong number of axes": (lambda file: replace(file, "reward", data=np.zeros((12, 1), np.float32)), "rows of float32 [1]"),
    "unknown filter": (
        lambda file: replace(file, "reward", compression="lzf"),
        "reward has the filters [32000, 3], expected [2, 1, 3]",
    ),
    "no fletcher32": (lambda file: replace(file, "reward", fletcher32=False), "reward has the filters []"),
    "no fletcher32 on pixels": (lambda file: replace(file, "pixels", fletcher32=False, **hdf5plugin.Zstd()), "[32015]"),
    "uncompressed pixels": (lambda file: replace(file, "pixels"), "pixels has the filters [3], expected [32015, 3]"),
    "other lengths": (other_lengths, "ep_len and ep_offset do not describe consecutive episodes"),
    "overlapping episodes": (overlapping_episodes, "ep_len and ep_offset do not describe consecutive episodes"),
    "episode of one row": (episode_of_one_row, "ep_len and ep_offset do not describe consecutive episodes"),
    "a column too short": (
        lambda f: replace(f, "reward", data=f["reward"][:-1], **GZIP),
        "reward has 11 rows, ep_len adds up to 12",
    ),
    "no episodes": (no_episodes, "has the shape (0,), which may become"),
    "episodes not consecutive": (not_consecutive, "its episodes are not consecutive: [0 2]"),
    "no episode ids": (no_episode_ids, "attribute episode_id of ep_len: expected int64 of shape (2,), found nothing"),
    "texts as episode ids": (texts_as_episode_ids, "attribute episode_id of ep_len holds values of variable length"),
    "too few seeds": (too_few_seeds, "attribute seed of ep_len: expected int64 of shape (2,), found int64 of shape (1,)"),
    "frames cut by chunks": (frames_cut_by_chunks, "has the chunks (12, 4, 8, 3) of 1 bytes: expected whole rows"),
    "frames without end": (frames_without_end, "which may become (18446744073709551615, 8, 8, 3)"),
    "four channels": (four_channels, "pixels has rows of uint8 [8, 8, 4], expected uint8 [8, 8, 3]"),
    "other format": (
        lambda file: file.attrs.create("format", np.bytes_("other")),
        "holds 'other', dataset.json says worldmodel_v/rollouts",
    ),
    "number as format": (
        lambda file: file.attrs.create("format", 1),
        "root attribute format: expected a text",
    ),
    "later version": (lambda file: file.attrs.modify("format_version", 2), "this version reads 1"),
    "no spec hash": (
        lambda file: file.attrs.pop("spec_hash"),
        "root attribute spec_hash: expected a text",
    ),
}


@pytest.fixture
def two_episodes(tmp_path: Path) -> Path:
    """A valid shard of two episodes of 6 rows, to be made hostile."""
    path = tmp_path / "000000.h5"
    path.write_bytes(make_shard(num_factors=2))
    return path


class TestHostile:
    @pytest.mark.parametrize("what", HOSTILE)
    def test_what_was_not_promised_is_refused_by_name_when_the_shard_is_opened(self, two_episodes: Path, what: str) -> None:
        edit, text = HOSTILE[what]
        with h5py.File(two_episodes, "r+", libver=HDF5_VERSIONS) as file:
            edit(file)
        with pytest.raises(ShardDamaged) as caught:
            Shard.open(two_episodes, WITH_STATE)
        assert str(caught.value).startswith(f"{two_episodes}: ")
        assert text in str(caught.value)

    def test_state_without_its_names_is_refused(self, two_episodes: Path) -> None:
        with h5py.File(two_episodes, "r+", libver=HDF5_VERSIONS) as file:
            del file["state"].attrs["names"]
        with pytest.raises(ShardDamaged, match=re.escape(str(two_episodes))):
            read_all_episodes(two_episodes, WITH_STATE)

    def test_a_column_whose_chunks_were_never_written_is_refused_and_never_zeros(self, tmp_path: Path) -> None:
        path = tmp_path / "000000.h5"
        path.write_bytes(build_shard([make_latents()], spec_hash=SPEC_HASH))
        with h5py.File(path, "r+", libver=HDF5_VERSIONS) as file:
            del file["mu"]
            file.create_dataset("mu", (6, 4), np.float32, chunks=(6, 4), fletcher32=True)
        with pytest.raises(ShardDamaged, match=re.escape(str(path))):
            read_all_episodes(path, made_latent_schema())

    def test_a_chunk_of_frames_that_was_never_written_is_refused(self, two_episodes: Path) -> None:
        with h5py.File(two_episodes, "r+", libver=HDF5_VERSIONS) as file:
            del file["pixels"]
            file.create_dataset("pixels", (12, 8, 8, 3), np.uint8, chunks=(12, 8, 8, 3), fletcher32=True, **hdf5plugin.Zstd())
        with pytest.raises(ShardDamaged, match="pixels has chunks that were never written"):
            Shard.open(two_episodes, WITH_STATE)

    def test_an_episode_table_that_claims_more_than_memory_holds_is_refused(self, two_episodes: Path) -> None:
        with h5py.File(two_episodes, "r+", libver=HDF5_VERSIONS) as file:
            del file["ep_len"]
            file.create_dataset("ep_len", (2**42,), np.int32, chunks=(64,), fletcher32=True)
        with pytest.raises(ShardDamaged, match=re.escape(str(two_episodes))):
            Shard.open(two_episodes, WITH_STATE)

    @pytest.mark.parametrize("num_bytes", [0, 12 * 192 - 1, 12 * 192 + 1, 10**7])
    def test_a_chunk_that_holds_another_number_of_frames_than_declared_is_refused(
        self, two_episodes: Path, num_bytes: int
    ) -> None:
        store_chunk(two_episodes, zstandard.compress(bytes(num_bytes)))
        with (
            Shard.open(two_episodes, WITH_STATE) as shard,
            pytest.raises(ShardDamaged, match=re.escape(f"{two_episodes}: pixel chunk 0")),
        ):
            shard.rows("pixels")

    def test_a_chunk_whose_frame_claims_more_than_memory_holds_is_refused(self, two_episodes: Path) -> None:
        frame_header = b"\x28\xb5\x2f\xfd\xc0\x40" + (2**45).to_bytes(8, "little")
        empty_last_block = b"\x01\x00\x00"
        store_chunk(two_episodes, frame_header + empty_last_block)
        with (
            Shard.open(two_episodes, WITH_STATE) as shard,
            pytest.raises(ShardDamaged, match=re.escape(f"{two_episodes}: pixel chunk 0")),
        ):
            shard.rows("pixels")

    def test_a_chunk_that_is_no_zstd_frame_is_refused(self, two_episodes: Path) -> None:
        store_chunk(two_episodes, b"not zstd")
        with (
            Shard.open(two_episodes, WITH_STATE) as shard,
            pytest.raises(ShardDamaged, match="pixel chunk 0 cannot be decompressed"),
        ):
            shard.rows("pixels")

    def test_a_chunk_whose_filters_were_skipped_is_refused(self, two_episodes: Path) -> None:
        with h5py.File(two_episodes, "r+", libver=HDF5_VERSIONS) as file:
            file["pixels"].id.write_direct_chunk((0, 0, 0, 0), bytes(12 * 192), filter_mask=3)
        with Shard.open(two_episodes, WITH_STATE) as shard, pytest.raises(ShardDamaged, match="pixel chunk 0"):
            shard.rows("pixels")
        with Shard.open(two_episodes, WITH_STATE) as shard:
            pixels, (place,) = shard.pixel_layout, shard.pixel_places().tolist()
        assert place[1] == 0
        with pytest.raises(ShardDamaged, match="pixel chunk 0"):
            pixels.decode(0, LocalFile(two_episodes).read(*place))

    def test_a_chunk_that_claims_another_size_is_refused_before_memory_is_taken(self, two_episodes: Path) -> None:
        store_chunk(two_episodes, zstandard.compress(bytes(10**8)))
        with Shard.open(two_episodes, WITH_STATE) as shard:
            tracemalloc.start()
            with pytest.raises(ShardDamaged, match="pixel chunk 0 claims 100000000 bytes, expected 2304; "):
                shard.pixel_chunk(0)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 10**6


def read_all_episodes(path: Path, schema: Schema) -> None:
    with Shard.open(path, schema) as shard:
        for position in range(shard.num_episodes):
            shard.episode(position)


def store_chunk(path: Path, payload: bytes) -> None:
    """Replace the first chunk of frames by `payload` with a checksum that is right for it."""
    with h5py.File(path, "r+", libver=HDF5_VERSIONS) as file:
        file["pixels"].id.write_direct_chunk((0, 0, 0, 0), payload + fletcher32(payload).to_bytes(4, "little"))
