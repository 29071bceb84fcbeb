"""Shards that a stranger made with HDF5 itself, in datasets whose every hash is right, asked through the real entry points."""

import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
import zstandard

from tests import builders
from tests.builders import made_latent_schema, made_rollout_schema, make_episode, make_latents
from tests.hostile.datasets import edited_dataset, latent_spec, put_dataset, rollout_spec, sound_shard
from tests.hostile.limits import VERIFY, command, run_limited
from tests.hostile.pieces import mended, pieces_of
from worldmodel_v.storage import Shard, build_shard, open_dataset, verify
from worldmodel_v.storage.checksum import fletcher32
from worldmodel_v.storage.layout import HDF5_VERSIONS
from worldmodel_v.storage.structure import MAX_ATTRIBUTE_BYTES


def replace(file: h5py.File, name: str, *arguments: object, **settings: object) -> h5py.Dataset:
    del file[name]
    return file.create_dataset(name, *arguments, **settings)


def raw_chunk(file: h5py.File, name: str, payload: bytes) -> None:
    """Store a first chunk with a checksum that is right for it."""
    start = (0,) * file[name].ndim
    file[name].id.write_direct_chunk(start, payload + fletcher32(payload).to_bytes(4, "little"))


def external_storage(file: h5py.File) -> None:
    replace(file, "reward", (12,), np.float32, external=[("/etc/passwd", 0, 48)])


def hard_link_to_the_root(file: h5py.File) -> None:
    del file["reward"]
    file["reward"] = file["/"]


def two_names_of_one_column(file: h5py.File) -> None:
    del file["truncated"]
    file["truncated"] = file["terminated"]


def groups_in_a_circle(file: h5py.File) -> None:
    del file["reward"]
    inner = file.create_group("reward").create_group("inner")
    inner["outer"] = file["reward"]


def groups_in_groups(file: h5py.File) -> None:
    del file["reward"]
    group = file.create_group("reward")
    for _ in range(500):
        group = group.create_group("g")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((12,), np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "reward", (12,))
    del file["reward"]
    file.create_virtual_dataset("reward", layout)


def any_filter(number: int) -> Callable[[h5py.File], None]:
    """A column that says that it passed a filter which nobody has; HDF5 would look for it among its plugins."""

    def edit(file: h5py.File) -> None:
        del file["reward"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((12,))
        plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
        plist.set_fletcher32()
        space = h5py.h5s.create_simple((12,))
        h5py.h5d.create(file.id, b"reward", h5py.h5t.IEEE_F32LE, space, plist)
        file["reward"].id.write_direct_chunk((0,), bytes(52))

    return edit


def committed_type(file: h5py.File) -> None:
    file["type"] = np.dtype(np.float32)
    replace(file, "reward", (12,), file["type"], chunks=(12,), fletcher32=True)


def many_columns(file: h5py.File) -> None:
    for number in range(200):
        file.create_dataset(f"column{number}", data=np.zeros(12), chunks=(12,), fletcher32=True)


def huge_attribute(file: h5py.File) -> None:
    file["ep_len"].attrs["more"] = np.zeros(MAX_ATTRIBUTE_BYTES // 8 + 1)


def many_attributes(file: h5py.File) -> None:
    for number in range(500):
        file["ep_len"].attrs[f"more{number}"] = number


def typed(dtype: object, **settings: object) -> Callable[[h5py.File], object]:
    return lambda file: replace(file, "reward", (12,), dtype, chunks=(12,), **settings)


def claiming(name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: type, **filters: object) -> Callable:
    return lambda file: replace(file, name, shape, dtype, chunks=chunks, fletcher32=True, **filters)


ZSTD = dict(hdf5plugin.Zstd())
HOSTILE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "external storage": (external_storage, "reward is stored in other files"),
    "an external link": (
        lambda file: (file.pop("reward"), file.__setitem__("reward", h5py.ExternalLink("/etc/passwd", "/reward"))),
        "reward is a link to somewhere else",
    ),
    "a soft link": (
        lambda file: (file.pop("reward"), file.__setitem__("reward", h5py.SoftLink("/ep_len"))),
        "reward is a link to somewhere else",
    ),
    "a hard link to the root": (hard_link_to_the_root, "the root group has several names"),
    "two names of one column": (two_names_of_one_column, "two names of the root group lead to one object"),
    "groups in a circle": (groups_in_a_circle, "reward has several names"),
    "groups in groups": (groups_in_groups, "reward is a group, expected a column"),
    "a virtual dataset": (virtual, "reward is not stored in chunks of this file"),
    "a contiguous column": (lambda file: replace(file, "reward", (12,), np.float32), "reward is not stored in chunks"),
    "2^60 rows": (claiming("reward", (2**60,), (64,), np.float32), "reward claims 18014398509481984 chunks"),
    "2^60 frames": (claiming("pixels", (2**60, 8, 8, 3), (64, 8, 8, 3), np.uint8, **ZSTD), "pixels claims 18014398509481984"),
    "2^60 episodes": (claiming("ep_len", (2**60,), (4096,), np.int32), "ep_len claims 281474976710656 chunks"),
    "chunks of 3 GB": (claiming("reward", (2**33,), (3 * 2**28,), np.float32), "reward has chunks that were never written"),
    "texts of variable length": (typed(h5py.string_dtype()), "reward holds values of variable length"),
    "arrays of variable length": (typed(h5py.vlen_dtype(np.float32)), "reward holds values of variable length"),
    "object references": (typed(h5py.ref_dtype), "reward holds references"),
    "region references": (typed(h5py.regionref_dtype), "reward holds references"),
    "compounds": (typed([("a", "f4"), ("b", "i8")]), "reward holds compounds"),
    "arrays": (typed(np.dtype((np.float32, (3,)))), "reward holds arrays"),
    "opaque bytes": (typed(h5py.opaque_dtype(np.dtype("V8"))), "reward holds opaque bytes"),
    "enumerations": (typed(h5py.enum_dtype({"A": 0, "B": 1}, basetype="i4")), "reward holds enumerations"),
    "big-endian floats": (typed(">f4", fletcher32=True), "reward holds floats of a type that no shard has"),
    "a committed type": (committed_type, ""),
    "lzf": (typed(np.float32, fletcher32=True, compression="lzf"), ""),
    "blosc": (typed(np.float32, **hdf5plugin.Blosc()), ""),
    "an unknown filter": (any_filter(40_000), "reward has the filters [40000, 3], expected [2, 1, 3]"),
    "many columns": (many_columns, "the root group"),
    "a huge attribute": (huge_attribute, "bytes, expected at most 16777216"),
    "many attributes": (many_attributes, "the attributes of ep_len are"),
    "an attribute of objects": (
        lambda file: file["ep_len"].attrs.create("policy", ["x", "y"], dtype=h5py.string_dtype()),
        "attribute policy of ep_len holds values of variable length",
    ),
    "frames of a gigabyte": (
        lambda file: replace(
            file, "pixels", (12, 9000, 9000, 3), np.uint8, chunks=(12, 9000, 9000, 3), fletcher32=True, **ZSTD
        ),
        "pixels has chunks that were never written",
    ),
}


SLOWLY = ("a virtual dataset", "an unknown filter", "2^60 rows", "chunks of 3 GB")


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_shard_holds_is_refused_by_name(tmp_path: Path, what: str) -> None:
    edit, text = HOSTILE[what]
    path = edited_dataset(tmp_path / "data", edit)
    (finding,) = verify(open_dataset(path))
    assert finding.startswith(f"{path / 'shards/000000.h5'}: ")
    assert text in finding
    assert finding.endswith(
        "restore the shard from a copy, or delete the file and its line in index.jsonl and run the stage again"
    )


@pytest.mark.parametrize("what", ["external storage", *(pytest.param(what, marks=pytest.mark.slow) for what in SLOWLY)])
def test_the_commands_refuse_it_in_one_line(tmp_path: Path, what: str) -> None:
    path = edited_dataset(tmp_path / "data", HOSTILE[what][0])
    done = command("inspect", path, "--verify", "--quiet", memory_bytes=3 << 30)
    assert (done.code, len(done.lines)) == (1, 1)
    assert HOSTILE[what][1] in done.lines[0]
    done = command("train", "--data", path, "--out", tmp_path / "vae", "--holdout-every", 2, "--quiet")
    assert (done.code, len(done.lines)) == (2, 1)
    assert HOSTILE[what][1] in done.lines[0]
    assert not list((tmp_path / "vae").glob("*.safetensors"))


# Bombs


def zlib_bomb(file: h5py.File) -> None:
    raw_chunk(file, "reward", zlib.compress(bytes(1 << 19), 9))


def zstd_bomb_that_says_so(file: h5py.File) -> None:
    raw_chunk(file, "pixels", zstandard.compress(bytes(1 << 26)))


def zstd_bomb_that_does_not(file: h5py.File) -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    raw_chunk(file, "pixels", compressor.compress(bytes(1 << 26)))


def zstd_bomb_of_many_frames(file: h5py.File) -> None:
    raw_chunk(file, "pixels", zstandard.compress(bytes(12 * 192)) + zstandard.compress(bytes(1 << 26)))


def zstd_window_of_gigabytes(file: h5py.File) -> None:
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([21 << 3]) + b"\x01\x00\x00"
    raw_chunk(file, "pixels", frame)


def plain_bomb(file: h5py.File) -> None:
    replace(file, "reward", (12,), np.float32, chunks=(12,), fletcher32=True)
    raw_chunk(file, "reward", bytes(10_000_000))


BOMBS = {
    "zlib": (zlib_bomb, "chunk 0 of reward (rows from 0) holds 49 bytes or more, expected 48"),
    "zstd that says so": (zstd_bomb_that_says_so, "pixel chunk 0 claims 67108864 bytes, expected 2304"),
    "zstd that does not": (zstd_bomb_that_does_not, "pixel chunk 0 "),
    "zlib of many bytes": (
        lambda file: raw_chunk(file, "reward", zlib.compress(bytes(1 << 26), 9)),
        "bytes, where 48 need none of its filters",
    ),
    "zstd window": (zstd_window_of_gigabytes, "pixel chunk 0 "),
    "no filter": (plain_bomb, "reward has a chunk of 10000004 bytes, where 48 need none of its filters"),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_chunk_that_grows_is_stopped_at_its_declared_size(tmp_path: Path, what: str) -> None:
    path = edited_dataset(tmp_path / "data", BOMBS[what][0])
    done = run_limited(VERIFY, path, memory_bytes=1 << 30)
    assert done.code == 1
    assert BOMBS[what][1] in done.lines[-1]
    assert done.peak_mib < 200


def test_what_follows_a_chunks_first_frame_is_not_decompressed(tmp_path: Path) -> None:
    path = edited_dataset(tmp_path / "data", zstd_bomb_of_many_frames)
    assert run_limited(VERIFY, path, memory_bytes=1 << 30).peak_mib < 200


@pytest.mark.parametrize("column", ["mu", "logvar", "action", "state"])
def test_latents_are_stopped_at_their_declared_size_too(tmp_path: Path, column: str) -> None:
    bomb = zlib.compress(bytes(1 << 19), 9)
    path = edited_dataset(tmp_path / "data", lambda file: raw_chunk(file, column, bomb), latent_spec())
    done = run_limited(VERIFY, path, memory_bytes=1 << 30)
    assert f"chunk 0 of {column} (rows from 0) holds " in done.lines[-1]
    assert done.peak_mib < 200


def test_an_episode_of_ten_gigabytes_is_verified_in_the_memory_of_a_chunk(tmp_path: Path) -> None:
    size, num_chunks = 512, 200  # chunks of 50 MB of zeros, 5 kB each
    shard = tmp_path / "draft.h5"
    spec = builders.rollout_spec(frame_height=size, frame_width=size)
    rows = 64 * num_chunks
    shard.write_bytes(build_shard([make_episode(0, rows - 1, size=1)], spec_hash=spec.hash))
    chunk = zstandard.compress(bytes(64 * size * size * 3))
    with h5py.File(shard, "r+", libver=HDF5_VERSIONS) as file:
        shape, chunks = (rows, size, size, 3), (64, size, size, 3)
        pixels = replace(file, "pixels", shape, np.uint8, chunks=chunks, fletcher32=True, **ZSTD)
        for number in range(num_chunks):
            pixels.id.write_direct_chunk((64 * number, 0, 0, 0), chunk + fletcher32(chunk).to_bytes(4, "little"))
    path = put_dataset(tmp_path / "data", shard.read_bytes(), spec, num_episodes=1, num_rows=rows)
    done = run_limited(VERIFY, path, memory_bytes=1 << 30)
    assert done.lines == ["[]"]
    assert done.peak_mib < 300


# What HDF5's own interface would not write: chunks on top of each other, headers in a circle


def patched(image: bytes, old: bytes, new: bytes) -> bytes:
    """The image with some bytes replaced where they stand in its metadata, and all checksums right."""
    assert len(old) == len(new)
    assert image.count(old) == 1
    return mended(image.replace(old, new), pieces_of(image))


def test_chunks_that_lie_on_top_of_each_other_are_refused() -> None:
    image = build_shard([make_episode(num_steps=150)], spec_hash="c" * 64)
    with Shard.from_bytes(image, made_rollout_schema()) as shard:
        (first, _), (second, _), _ = shard.pixel_places().tolist()
    hostile = patched(image, second.to_bytes(8, "little"), (first + 8).to_bytes(8, "little"))
    with pytest.raises(Exception, match="it has chunks that overlap"):
        Shard.from_bytes(hostile, made_rollout_schema())


def test_a_header_that_goes_on_in_itself_is_refused() -> None:
    image = build_shard([make_latents()], spec_hash="c" * 64)
    header, block = 48, image.index(b"OCHK")
    hostile = patched(image, block.to_bytes(8, "little"), header.to_bytes(8, "little"))
    with pytest.raises(Exception, match="the header of the root group goes round in a circle"):
        Shard.from_bytes(hostile, made_latent_schema())


# What reading does not do


def test_reading_never_enters_hdf5(tmp_path: Path) -> None:
    """The library's C code is no wall against a hostile file, and would look for plugins of unknown filters."""
    for name, spec in (("rollouts", rollout_spec()), ("latents", latent_spec())):
        put_dataset(tmp_path / name, sound_shard(spec), spec)
    done = run_limited(
        "from pathlib import Path\n"
        "import h5py\n"
        "from worldmodel_v.storage import open_dataset, verify\n"
        "def forbidden(*_, **__): raise AssertionError('HDF5 was asked')\n"
        "h5py.File.__init__ = h5py.h5f.open = h5py.h5d.open = forbidden\n"
        "sys.exit(str([verify(open_dataset(Path(folder))) for folder in sys.argv[1:]]))",
        tmp_path / "rollouts",
        tmp_path / "latents",
    )
    assert done.lines == ["[[], []]"]


def test_hdf5_itself_dies_of_what_is_refused_here() -> None:
    """Why: if this fails one day, HDF5 has become safer, and `storage/structure.py` may be asked again whether it is needed."""
    code = (
        "import io, os, random, h5py\n"
        "from tests.builders import make_latents\n"
        "from tests.hostile.pieces import mended, pieces_of\n"
        "from worldmodel_v.storage import build_shard\n"
        "image = build_shard([make_latents(i, 70, num_factors=2) for i in range(2)], spec_hash='c' * 64)\n"
        "pieces = [piece for piece in pieces_of(image) if piece.kind != 'chunk']\n"
        "deaths = 0\n"
        "for number in range(500):\n"
        "    if deaths: break\n"
        "    chance, edited = random.Random(number), bytearray(image)\n"
        "    for _ in range(3):\n"
        "        piece = chance.choice(pieces)\n"
        "        edited[piece.start + chance.randrange(piece.size)] = chance.choice([0, 1, 127, 128, 255])\n"
        "    if not (child := os.fork()):\n"
        "        os.close(2)\n"
        "        try:\n"
        "            with h5py.File(io.BytesIO(mended(edited, pieces))) as file:\n"
        "                [(file[name][()], dict(file[name].attrs)) for name in file]\n"
        "        except BaseException: pass\n"
        "        os._exit(0)\n"
        "    deaths += os.WIFSIGNALED(os.waitpid(child, 0)[1])\n"
        "sys.exit(str(deaths))"
    )
    done = run_limited(code, cwd=Path(__file__).parents[2])
    assert int(done.lines[-1]) > 0
