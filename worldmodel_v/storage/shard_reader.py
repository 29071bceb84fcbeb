"""Reading one shard: every promise of the format is checked when it is opened, and every chunk when it is read.

Pixels are read chunk by chunk past HDF5's filter chain: the compressed bytes come out under HDF5's lock, and the checksum
and the decompression run outside it, so that they scale with threads (measured: 119,000 frames/s with one thread and
219,000 with two on two cores; through h5py, 50,000 to 126,000 however many). Small columns are read through h5py.
"""

import math
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import h5py
import hdf5plugin  # noqa: F401  (registers the zstd filter with HDF5)
import numpy as np
import zstandard

from worldmodel_v.errors import ShardDamaged
from worldmodel_v.records import Episode, LatentSequence
from worldmodel_v.storage import schema
from worldmodel_v.storage.checksum import fletcher32


class Shard:
    """A shard that is open for reading; use it as a context manager, or call `close`.

    Safe to share between threads. It cannot be pickled: send the path and open it there.
    """

    def __init__(self, file: h5py.File, source: str) -> None:
        """Take over an open HDF5 file; `source` names it in errors. Raises ShardDamaged if it is not a valid shard."""
        self.source = source
        self._file = file
        try:
            self._check_layout()
        except ShardDamaged:
            file.close()
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
            file.close()
            self._refuse(f"its structure cannot be read ({error})")

    @classmethod
    def open(cls, path: Path, num_bytes: int | None = None) -> Self:
        """Open a file; raises ShardDamaged if it is missing, not of `num_bytes`, or not a valid shard."""
        if not path.is_file():
            raise ShardDamaged(f"{path}: the shard is missing; restore it from a copy, or delete its line in the index")
        size = path.stat().st_size
        if num_bytes is not None and size != num_bytes:
            raise ShardDamaged(f"{path}: expected {num_bytes} bytes as the index says, found {size}; {_REMEDY}")
        try:
            file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise ShardDamaged(f"{path}: not a readable HDF5 file ({error}); {_REMEDY}") from None
        return cls(file, str(path))

    @classmethod
    def from_bytes(cls, image: bytes, source: str = "shard in memory") -> Self:
        """Open the bytes of a shard, as `build_shard` makes them; raises ShardDamaged if they are not a valid shard."""
        try:
            file = h5py.File.in_memory(image)
        except OSError as error:
            raise ShardDamaged(f"{source}: not a readable HDF5 image ({error})") from None
        return cls(file, source)

    # What is in it

    @property
    def attributes(self) -> dict[str, Any]:
        """The root attributes: format, format_version, spec_hash, alignment, and what latents add."""
        return {name: _decoded(value) for name, value in self._file.attrs.items()}

    @property
    def columns(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Every column by name: its dtype and shape."""
        return {name: (self._file[name].dtype, self._file[name].shape) for name in self._file}

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the state factors; empty where the shard holds no state."""
        return tuple(_decoded(name) for name in self._file["state"].attrs["names"]) if "state" in self._file else ()

    # Reading

    def rows(self, column: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop` of a column; raises ShardDamaged if a checksum fails."""
        if column == "pixels":
            return self._pixel_rows(start, self.num_rows if stop is None else stop)
        try:
            return self._file[column][start:stop]
        except OSError as error:
            self._refuse(f"{column} rows {start} to {stop} cannot be read ({error})")

    def pixel_chunk(self, number: int) -> np.ndarray:
        """One chunk of frames: uint8 (n, H, W, 3), where n is `PIXEL_CHUNK_ROWS` but for the last chunk.

        Raises ShardDamaged if its checksum or its decompression fails.
        """
        first = number * self.chunk_rows
        try:
            mask, stored = self._pixels.id.read_direct_chunk((first, 0, 0, 0))
        except (OSError, RuntimeError, MemoryError) as error:
            self._refuse(f"pixel chunk {number} cannot be read ({error})")
        payload, checksum = memoryview(stored)[:-4], int.from_bytes(stored[-4:], "little")
        if mask != 0 or fletcher32(payload) != checksum:
            self._refuse(f"pixel chunk {number} (rows from {first}) fails its checksum")
        frame_shape = self._pixels.shape[1:]
        expected_bytes = self.chunk_rows * int(np.prod(frame_shape))
        try:
            claimed_bytes = zstandard.frame_content_size(payload)
            if claimed_bytes not in (-1, expected_bytes):
                self._refuse(f"pixel chunk {number} claims {claimed_bytes} bytes, expected {expected_bytes}")
            raw = zstandard.ZstdDecompressor().decompress(payload, max_output_size=expected_bytes)
        except zstandard.ZstdError as error:
            self._refuse(f"pixel chunk {number} cannot be decompressed ({error})")
        if len(raw) != expected_bytes:
            self._refuse(f"pixel chunk {number} holds {len(raw)} bytes, expected {expected_bytes}")
        frames_NHWC = np.frombuffer(raw, dtype=np.uint8).reshape(self.chunk_rows, *frame_shape)
        return frames_NHWC[: self.num_rows - first]

    def episode(self, position: int) -> Episode | LatentSequence:
        """The episode at `position` in this shard (0 is its first), as a record."""
        start = int(self.ep_offset[position])
        stop = start + int(self.ep_len[position])
        skipped = {*schema.INDEX_COLUMNS}
        columns = {name: self.rows(name, start, stop) for name in self.columns if name not in skipped}
        record = Episode if self.format == schema.ROLLOUTS else LatentSequence
        return record(
            episode_id=int(self.episode_ids[position]),
            seed=int(self.seeds[position]),
            policy=self.policies[position],
            state_names=self.state_names,
            **columns,
        )

    @property
    def num_pixel_chunks(self) -> int:
        return -(-self.num_rows // self.chunk_rows)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open Shard cannot be pickled; send its path and open it in the other process")

    # Checks

    def _pixel_rows(self, start: int, stop: int) -> np.ndarray:
        first = start // self.chunk_rows
        last = max(first, -(-stop // self.chunk_rows) - 1)
        frames_NHWC = np.concatenate([self.pixel_chunk(number) for number in range(first, last + 1)])
        return frames_NHWC[start - first * self.chunk_rows : stop - first * self.chunk_rows]

    def _check_layout(self) -> None:
        self.format = self._text_attribute("format")
        if self.format not in schema.OBSERVATION_COLUMNS:
            self._refuse(f"unknown format {self.format!r}")
        if self._file.attrs.get("format_version") != 1:
            self._refuse(f"format_version {self._file.attrs.get('format_version')!r}: this version reads 1")
        self.spec_hash = self._text_attribute("spec_hash")
        names = set(self._file)
        required = set(schema.required_columns(self.format))
        if names - required - set(schema.OPTIONAL_COLUMNS) or required - names:
            self._refuse(f"expected the columns {sorted(required)}, found {sorted(names)}")
        for name in sorted(names):
            self._check_column(name)
        self._check_episode_table()

    def _check_column(self, name: str) -> None:
        if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
            self._refuse(f"{name} is a link to somewhere else")
        column = self._file[name]
        if not isinstance(column, h5py.Dataset) or column.is_virtual or column.external:
            self._refuse(f"{name} is not stored in this file")
        if not any((column.dtype, column.ndim) == (np.dtype(kind), axes) for kind, axes in schema.ALLOWED_TYPES[name]):
            self._refuse(f"{name} has dtype {column.dtype} and {column.ndim} axes, expected {schema.ALLOWED_TYPES[name]}")
        if column.chunks is None or column.id.get_num_chunks() != _num_chunks(column):
            self._refuse(f"{name} has chunks that were never written")
        creation = column.id.get_create_plist()
        filters = {creation.get_filter(i)[0] for i in range(creation.get_nfilters())}
        if filters - schema.ALLOWED_FILTER_IDS or schema.FLETCHER32_FILTER_ID not in filters:
            self._refuse(f"{name} has the filters {sorted(filters)}, expected Fletcher-32 and no other than the format's")

    def _check_episode_table(self) -> None:
        table = self._file["ep_len"]
        if len(table) > schema.MAX_EPISODES_PER_SHARD or len(self._file["ep_offset"]) != len(table):
            self._refuse(f"ep_len claims {len(table)} episodes, a shard holds at most {schema.MAX_EPISODES_PER_SHARD}")
        self.ep_len: np.ndarray = table[:]
        self.ep_offset: np.ndarray = self._file["ep_offset"][:]
        self.num_episodes = len(self.ep_len)
        self.num_rows = int(self.ep_len.sum(dtype=np.int64))
        starts = np.concatenate([[0], np.cumsum(self.ep_len[:-1], dtype=np.int64)])
        if self.num_episodes == 0 or (self.ep_len < 2).any() or not np.array_equal(starts, self.ep_offset):
            self._refuse("ep_len and ep_offset do not describe consecutive episodes of two or more rows")
        for name in set(self._file) - set(schema.INDEX_COLUMNS):
            if len(self._file[name]) != self.num_rows:
                self._refuse(f"{name} has {len(self._file[name])} rows, ep_len adds up to {self.num_rows}")
        self.episode_ids: np.ndarray = table.attrs["episode_id"]
        self.seeds: np.ndarray = table.attrs["seed"]
        self.returns: np.ndarray = table.attrs["return"]
        for name, values in (("episode_id", self.episode_ids), ("seed", self.seeds), ("return", self.returns)):
            if np.shape(values) != (self.num_episodes,):
                self._refuse(f"attribute {name} of ep_len has shape {np.shape(values)}, expected {(self.num_episodes,)}")
        policies = table.attrs.get("policy", np.zeros(self.num_episodes, dtype="S1"))
        if np.shape(policies) != (self.num_episodes,) or policies.dtype.kind != "S":
            self._refuse(f"attribute policy of ep_len is {policies!r}, expected {self.num_episodes} texts of fixed length")
        self.policies = tuple(_decoded(policy) for policy in policies)
        """Which policy drove each episode; empty texts where the file does not say."""
        if (np.diff(self.episode_ids) != 1).any():
            self._refuse(f"its episodes are not consecutive: {self.episode_ids}")
        if "state" in self._file and np.shape(self._file["state"].attrs.get("names")) != self._file["state"].shape[1:]:
            self._refuse("state has no attribute names that names each of its factors")
        if self.format == schema.ROLLOUTS:
            self._check_pixels()

    def _check_pixels(self) -> None:
        self._pixels = self._file["pixels"]
        chunks, shape = self._pixels.chunks, self._pixels.shape
        if chunks[1:] != shape[1:] or shape[3] != 3 or not 0 < chunks[0] <= schema.PIXEL_CHUNK_ROWS:
            self._refuse(f"pixels of shape {shape} in chunks of {chunks}: expected whole RGB frames, up to 64 a chunk")
        creation = self._pixels.id.get_create_plist()
        filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
        if filters != [schema.ZSTD_FILTER_ID, schema.FLETCHER32_FILTER_ID]:
            self._refuse(f"pixels have the filters {filters}, expected zstd and then Fletcher-32")
        self.chunk_rows = int(chunks[0])

    def _text_attribute(self, name: str) -> str:
        value = self._file.attrs.get(name)
        if not isinstance(value, bytes):
            self._refuse(f"root attribute {name}: expected a text of fixed length, found {value!r}")
        return _decoded(value)

    def _refuse(self, what: str) -> NoReturn:
        raise ShardDamaged(f"{self.source}: {what}; {_REMEDY}")


def _decoded(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _num_chunks(column: h5py.Dataset) -> int:
    """How many chunks a column of this shape consists of."""
    return math.prod(-(-length // chunk) for length, chunk in zip(column.shape, column.chunks, strict=True))


_REMEDY = "restore the shard from a copy, or delete the file and its line in index.jsonl and run the stage again"
