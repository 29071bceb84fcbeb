"""Checksums: SHA-256 of whole files, and HDF5's Fletcher-32 of one chunk.

We read chunks without HDF5's filter chain, to decompress outside its process-wide lock. Their checksum is verified here.
This costs about 40 µs for a compressed chunk of 64 CarRacing frames, a tenth of its decompression.
"""

import hashlib
import struct
from pathlib import Path

import numpy as np

from worldmodel_v.storage import files
from worldmodel_v.storage.reading import readable

BLOCK_BYTES = 1 << 20
BLOCK_WORDS = 1 << 13
"""So few that a block stays in the cache, and that no BLAS splits a product of this length among threads."""

_LOW = 0xFFFFFFFF
_WEIGHTS = np.arange(BLOCK_WORDS, 0, -1, dtype=np.float64)


def sha256_of_file(path: Path, inside: Path | None = None) -> str:
    """SHA-256 (hexadecimal) of a file's bytes, read in blocks of a megabyte; raises NotReadable, ReadFailed.

    Without `inside` (see `files`) it is a file that the user named, which may be a link.
    """
    digest = hashlib.sha256()
    with readable(path), files.open_stream(path if inside else path.resolve(), inside=inside) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def is_sha256(value: object) -> bool:
    """Whether `value` is the text of a SHA-256: 64 hexadecimal digits in lower case."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def fletcher32(data: bytes | memoryview) -> int:
    """HDF5's Fletcher-32: two running sums of big-endian 16-bit words, modulo 65535 with 0 written as 65535.

    An odd last byte counts as the high half of a word. The sums are the closed form of the running ones,
    sum1 = Σ w_i and sum2 = Σ (n - i) w_i, block by block. Words are read as little-endian: swapping the bytes of a word
    multiplies it by 256 modulo 65535, and the last line corrects for that. Sums of a block are exact in float64 (below 2^53).
    """
    num_words = -(-len(data) // 2)
    words = np.frombuffer(data, "<u2", len(data) // 2)
    sum1 = sum2 = 0
    for start in range(0, len(words), BLOCK_WORDS):
        block = words[start : start + BLOCK_WORDS].astype(np.float64)
        total = int(block.sum())
        sum1 += total
        sum2 += int(block @ _WEIGHTS[BLOCK_WORDS - len(block) :]) + (num_words - start - len(block)) * total
    if len(data) % 2:
        sum1 += data[-1]
        sum2 += data[-1]
    return (_fold(256 * sum2) << 16) | _fold(256 * sum1) if sum1 else 0


def _fold(total: int) -> int:
    """A positive sum modulo 65535 in one's complement: 1 to 65535."""
    return (total - 1) % 65535 + 1


def lookup3(data: bytes) -> int:
    """The checksum of HDF5's metadata: Bob Jenkins' `hashlittle` of 2006 (lookup3.c, public domain), started from 0.

    Each addition and rotation needs the one before, so numpy cannot help: about 0.1 µs a byte.
    """
    a = b = c = (0xDEADBEEF + len(data)) & _LOW
    whole = max(0, (len(data) - 1) // 12)
    words = struct.unpack(f"<{3 * whole}I", data[: 12 * whole])
    for x, y, z in zip(words[::3], words[1::3], words[2::3], strict=True):
        b, c = b + y, (c + z) & _LOW
        a = (a + x - c) & _LOW ^ (c << 4 & _LOW | c >> 28)
        c = (c + b) & _LOW
        b = (b - a) & _LOW ^ (a << 6 & _LOW | a >> 26)
        a = (a + c) & _LOW
        c = (c - b) & _LOW ^ (b << 8 & _LOW | b >> 24)
        b = (b + a) & _LOW
        a = (a - c) & _LOW ^ (c << 16 & _LOW | c >> 16)
        c = (c + b) & _LOW
        b = (b - a) & _LOW ^ (a << 19 & _LOW | a >> 13)
        a = (a + c) & _LOW
        c = (c - b) & _LOW ^ (b << 4 & _LOW | b >> 28)
        b = (b + a) & _LOW
    if not data:
        return c
    x, y, z = struct.unpack("<3I", data[12 * whole :].ljust(12, b"\0"))
    a, b, c = (a + x) & _LOW, (b + y) & _LOW, (c + z) & _LOW
    for turn in (14, 11, 25, 16, 4, 14, 24):  # mixes c with b, then a with c, b with a, …: the names rotate
        c = ((c ^ b) - (b << turn & _LOW | b >> 32 - turn)) & _LOW
        a, b, c = b, c, a
    return b
