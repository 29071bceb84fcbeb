"""Our Fletcher-32 against the one that HDF5 stores."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel_v.errors import NotAFile
from worldmodel_v.storage.checksum import fletcher32, sha256_of_file


def hdf5_fletcher32(data: bytes) -> int:
    """The checksum that HDF5 appends to an uncompressed chunk of these bytes."""
    with h5py.File.in_memory() as file:
        column = file.create_dataset("x", data=np.frombuffer(data, np.uint8), chunks=(len(data),), fletcher32=True)
        file.flush()
        _, stored = column.id.read_direct_chunk((0,))
    assert bytes(stored[:-4]) == data
    return int.from_bytes(stored[-4:], "little")


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=2000))
def test_any_bytes_have_the_checksum_that_hdf5_stores(data: bytes) -> None:
    assert fletcher32(data) == hdf5_fletcher32(data)


@pytest.mark.parametrize("length", [1, 2, 3, 719, 720, 721, 1440, 65535, 65536, 131069, 131070, 131071, 131072, 300_001])
@pytest.mark.parametrize("content", ["zeros", "ones", "random", "a single bit at the end"])
def test_long_and_extreme_bytes_have_the_checksum_that_hdf5_stores(length: int, content: str) -> None:
    data = {
        "zeros": bytes(length),
        "ones": b"\xff" * length,
        "random": np.random.default_rng(length).bytes(length),
        "a single bit at the end": bytes(length - 1) + b"\x01",
    }[content]
    assert fletcher32(data) == hdf5_fletcher32(data)
    assert fletcher32(memoryview(data)) == hdf5_fletcher32(data)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(min_size=1, max_size=500), where=st.integers(0, 499), mask=st.integers(1, 255))
def test_a_flip_within_one_byte_always_changes_the_checksum(data: bytes, where: int, mask: int) -> None:
    position = where % len(data)
    changed = data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]
    assert fletcher32(changed) != fletcher32(data)


@pytest.mark.parametrize("length", [0, 1, 2**20 - 1, 2**20, 2**20 + 1])
def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path, length: int) -> None:
    content = np.random.default_rng(length).bytes(length)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_file_that_the_user_names_may_be_a_link_and_one_inside_a_directory_may_not(tmp_path: Path) -> None:
    (tmp_path / "weights-7.pt").write_bytes(b"weights")
    (tmp_path / "latest.pt").symlink_to("weights-7.pt")
    assert sha256_of_file(tmp_path / "latest.pt") == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(NotAFile, match="is a symbolic link"):
        sha256_of_file(tmp_path / "latest.pt", tmp_path)
