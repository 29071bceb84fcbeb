"""Stored chunks of frames: how a shard stores them, and decoding their bytes to pixels without HDF5.

HDF5 holds one lock for the whole process and decompresses inside it. Here the compressed bytes come straight from the file
(an `OpenFile` of `store`), and the checksum and the decompression release Python's lock, so they scale with threads. Pixels
are decompressed into memory that the caller owns and reuses: on a machine with expensive page faults, new memory for each
chunk costs more than the decompression.

Legend: N rows of a shard, n rows of a chunk, H, W, C.
"""

import threading
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import zstandard

from worldmodel_v.errors import ShardDamaged
from worldmodel_v.storage.checksum import fletcher32
from worldmodel_v.storage.reading import REMEDY

_of_this_thread = threading.local()


def refuse(source: str, what: str) -> NoReturn:
    """Raise ShardDamaged for the shard that `source` names."""
    raise ShardDamaged(what, where=source, remedy=REMEDY)


@dataclass(frozen=True)
class PixelLayout:
    """How a shard stores its frames."""

    source: str
    """Names the shard in errors."""

    num_rows: int
    """N"""

    chunk_rows: int
    """Rows of a chunk. The last one may hold fewer, but is stored at full size."""

    frame_shape: tuple[int, int, int]
    """(H, W, 3)"""

    @property
    def num_chunks(self) -> int:
        return -(-self.num_rows // self.chunk_rows)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decompressed chunk."""
        return self.chunk_rows * int(np.prod(self.frame_shape, dtype=np.int64))

    def decode(self, number: int, stored: bytes, out: np.ndarray | None = None) -> np.ndarray:
        """The frames of chunk `number` from its stored bytes: uint8 (n, H, W, 3).

        They are a view of `out` (contiguous uint8 of at least `chunk_bytes`), or new memory without it. Raises ShardDamaged if
        the checksum or the decompression fails, and before it allocates if the chunk claims another size.
        """
        first = number * self.chunk_rows
        payload = memoryview(stored)[:-4]
        if not payload or fletcher32(payload) != int.from_bytes(stored[-4:], "little"):
            refuse(self.source, f"pixel chunk {number} (rows from {first}) fails its checksum")
        try:
            claimed_bytes = zstandard.frame_content_size(payload)
            if claimed_bytes not in (-1, self.chunk_bytes):
                refuse(self.source, f"pixel chunk {number} claims {claimed_bytes} bytes, expected {self.chunk_bytes}")
            raw = np.empty(self.chunk_bytes, np.uint8) if out is None else out.reshape(-1)[: self.chunk_bytes]
            num_bytes = _decompress(payload, raw, size_is_known=claimed_bytes >= 0)
        except zstandard.ZstdError as error:
            refuse(self.source, f"pixel chunk {number} cannot be decompressed ({error})")
        if num_bytes != self.chunk_bytes:
            refuse(self.source, f"pixel chunk {number} holds {num_bytes} bytes, expected {self.chunk_bytes}")
        return raw.reshape(self.chunk_rows, *self.frame_shape)[: self.num_rows - first]


def _decompress(payload: memoryview, raw: np.ndarray, *, size_is_known: bool) -> int:
    """Decompress into `raw` and return the number of bytes; each thread keeps one decompressor."""
    decompressor = getattr(_of_this_thread, "zstd", None)
    if decompressor is None:
        decompressor = _of_this_thread.zstd = zstandard.ZstdDecompressor()
    if size_is_known:  # zstd then writes to `raw` in one pass, without a buffer of its own
        with decompressor.stream_reader(payload) as reader:
            return reader.readinto(raw)
    content = decompressor.decompress(payload, max_output_size=len(raw))
    raw[: len(content)] = np.frombuffer(content, np.uint8)
    return len(content)
