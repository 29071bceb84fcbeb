"""`.npz` files of strangers: their arrays' dtypes and shapes from the headers, and the arrays, without running or growing.

Objects (pickles) are never loaded. What an array claims is compared with the bytes that are there before memory is taken for
it. Each array is checked against the archive's CRC-32 when it is read.
"""

import errno
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.importing.memory import most_bytes
from worldmodel_v.importing.recording import REMEDY, reading
from worldmodel_v.storage.reading import readable

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MOST_GROWTH = 1100
"""zlib makes bytes at most 1032 times smaller."""


@dataclass(frozen=True)
class Header:
    """What an array is."""

    dtype: np.dtype
    shape: tuple[int, ...]
    is_fortran: bool

    @property
    def num_bytes(self) -> int:
        """Without the header."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def read_headers(path: Path) -> dict[str, Header]:
    """The arrays of a file, by name; raises DatasetNotUsable, NotReadable, ReadFailed."""
    with _opened(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
        headers = {}
        for entry in entries:
            with archive.open(entry) as stream:
                headers[entry.filename.removesuffix(".npy")] = _header(path, entry, stream)
    return headers


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Some arrays of a file, whole; raises as `read_headers`, and DatasetNotUsable if one is missing or holds objects."""
    arrays = {}
    left = most_bytes()
    with _opened(path) as archive:
        there = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        for name in names:
            if name not in there:
                held = ", ".join(there) or "none"
                raise DatasetNotUsable(where=path, expected=f"an array {name!r}", got=f"the arrays {held}")
            with archive.open(there[name]) as stream:
                header = _header(path, there[name], stream)
                _require_plain(path, name, header)
                left -= header.num_bytes
                if left < 0:
                    raise DatasetNotUsable(f"its arrays claim more than half of the memory ({name}: {header})", where=path)
                arrays[name] = _array(stream, header)
    return arrays


def _require_plain(path: Path, name: str, header: Header) -> None:
    if header.dtype.hasobject or header.dtype.kind not in "fiubU":
        what = "Python objects (a pickle), which are never loaded" if header.dtype.hasobject else str(header)
        raise DatasetNotUsable(where=path, expected=f"an array of numbers {name!r}", got=what)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A file as an open archive; whatever its library raises in the block is DatasetNotUsable."""
    with reading(path), readable(path):
        try:
            with zipfile.ZipFile(path) as archive:
                yield archive
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise zipfile.BadZipFile("a place before the file's beginning") from None


def _header(path: Path, entry: zipfile.ZipInfo, stream: IO[bytes]) -> Header:
    """The header of an array, whose bytes come next in `stream`."""
    if entry.compress_type not in METHODS or entry.file_size > MOST_GROWTH * (entry.compress_size + 1):
        raise DatasetNotUsable(
            f"{entry.filename!r:.100} claims to grow from {entry.compress_size} to {entry.file_size} bytes",
            where=path,
            expected="arrays as numpy saves them",
        )
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    header = Header(dtype, shape, is_fortran)
    if not dtype.hasobject and header.num_bytes != (there := entry.file_size - stream.tell()):
        raise DatasetNotUsable(
            where=path, expected=f"{header.num_bytes} bytes of {entry.filename!r:.100} ({header})", got=there, remedy=REMEDY
        )
    return header


def _array(stream: IO[bytes], header: Header) -> np.ndarray:
    values = np.frombuffer(stream.read(), header.dtype)
    return values.reshape(header.shape[::-1]).T if header.is_fortran else values.reshape(header.shape)
