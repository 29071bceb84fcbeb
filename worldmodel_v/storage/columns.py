"""Decoding stored chunks of the small columns: from their bytes to rows, without HDF5.

A chunk was written through shuffle, deflate and Fletcher-32, or some of them, in this order. Undoing these filters with numpy
and zlib costs as much as in HDF5. Decoding stops if a stream inflates to more than its chunk.

Legend: n rows of a chunk.
"""

import zlib

import numpy as np

from worldmodel_v.storage.checksum import fletcher32
from worldmodel_v.storage.structure import DEFLATE, SHUFFLE, StoredColumn


class Undecodable(Exception):
    """A chunk's bytes are not what the column promises; the message follows the chunk's name."""


def decode(column: StoredColumn, stored: bytes) -> np.ndarray:
    """One whole chunk, (n, ...) in the column's dtype and read-only, from its stored bytes; raises Undecodable."""
    payload = memoryview(stored)[:-4]
    if not payload or fletcher32(payload) != int.from_bytes(stored[-4:], "little"):
        raise Undecodable("fails its checksum")
    raw: bytes | memoryview = _inflate(payload, column.chunk_bytes) if DEFLATE in column.filters else payload
    if len(raw) != column.chunk_bytes:
        raise Undecodable(f"holds {len(raw)} bytes or more, expected {column.chunk_bytes}")
    if SHUFFLE in column.filters and column.dtype.itemsize > 1:
        raw = np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(column.dtype.itemsize, -1).T).data.cast("B")
    if column.dtype == np.bool_ and np.frombuffer(raw, np.uint8).max() > 1:
        raise Undecodable("holds truth values other than 0 and 1")
    rows = np.frombuffer(raw, column.dtype).reshape(column.chunks)
    rows.flags.writeable = False
    return rows


def _inflate(payload: memoryview, num_bytes: int) -> bytes:
    """The content of a zlib stream, and one byte more if it has more than `num_bytes`."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(payload, num_bytes + 1)
    except zlib.error as error:
        raise Undecodable(f"cannot be inflated ({error})") from None
    if not inflater.eof and len(content) <= num_bytes:
        raise Undecodable("cannot be inflated (it ends too early)")
    return content
