"""Reading one shard: every promise of the format is checked when it is opened, and every chunk when it is read.

Pixels are read chunk by chunk past HDF5's filter chain, and checked and decompressed outside its lock (`pixels`): 50,000 to
126,000 frames/s through h5py however many threads, 130,000 a core past it. Whoever reads many chunks of many shards takes
down their places (`pixel_places`) and reads them from a `PixelFile`: opening a shard checks all of it and costs two
milliseconds, as much as four chunks. Small columns are read through h5py.
"""

import math
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import h5py
import hdf5plugin  # noqa: F401  (registers the zstd filter with HDF5)
import numpy as np

from worldmodel_v.errors import ShardDamaged
from worldmodel_v.records import Episode, LatentSequence
from worldmodel_v.storage import schema
from worldmodel_v.storage.pixels import REMEDY, PixelLayout, missing, refuse


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
            raise ShardDamaged(missing(path))
        size = path.stat().st_size
        if num_bytes is not None and size != num_bytes:
            raise ShardDamaged(f"{path}: expected {num_bytes} bytes as the index says, found {size}; {REMEDY}")
        try:
            file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise ShardDamaged(f"{path}: not a readable HDF5 file ({error}); {REMEDY}") from None
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
        return {name: (column.dtype, column.shape) for name, column in self._columns.items()}

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the state factors; empty where the shard holds no state."""
        return tuple(_decoded(name) for name in self._columns["state"].attrs["names"]) if "state" in self._columns else ()

    # Reading

    def rows(self, column: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop` of a column; raises ShardDamaged if a checksum fails."""
        if column == "pixels":
            return self._pixel_rows(start, self.num_rows if stop is None else stop)
        try:
            return self._columns[column][start:stop]
        except OSError as error:
            self._refuse(f"{column} rows {start} to {stop} cannot be read ({error})")

    def pixel_chunk(self, number: int, out: np.ndarray | None = None) -> np.ndarray:
        """One chunk of frames: uint8 (n, H, W, 3), where n is `PIXEL_CHUNK_ROWS` but for the last chunk.

        With `out`, contiguous uint8 of a whole chunk's size, they are decompressed into it. Raises ShardDamaged if the
        checksum or the decompression fails.
        """
        try:
            mask, stored = self._pixels.id.read_direct_chunk((number * self.chunk_rows, 0, 0, 0))
        except (OSError, RuntimeError, MemoryError) as error:
            self._refuse(f"pixel chunk {number} cannot be read ({error})")
        return self.pixel_layout.decode(number, stored if mask == 0 else b"", out)

    def pixel_places(self) -> np.ndarray:
        """Where the file holds each chunk of frames: int64 (num_pixel_chunks, 2), its offset and its size in bytes.

        For `PixelFile.read`. A chunk whose filters were skipped has size 0, and is refused when it is decoded.
        """
        places = np.zeros((self.num_pixel_chunks, 2), dtype=np.int64)

        def note(stored: Any) -> None:
            size = stored.size if stored.filter_mask == 0 else 0
            places[stored.chunk_offset[0] // self.chunk_rows] = stored.byte_offset, size

        try:
            self._pixels.id.chunk_iter(note)
        except (OSError, RuntimeError, IndexError) as error:
            self._refuse(f"the index of its pixel chunks cannot be read ({error})")
        return places

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
        return self.pixel_layout.num_chunks

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
        """Decompresses every chunk straight into its place in one array."""
        first = start // self.chunk_rows
        last = max(first, -(-stop // self.chunk_rows) - 1)
        num_frames = (last - first + 1) * self.chunk_rows
        try:
            frames_NHWC = np.empty((num_frames, *self.pixel_layout.frame_shape), np.uint8)
        except (MemoryError, ValueError):
            self._refuse(f"it claims {num_frames} frames of {self.pixel_layout.frame_shape}, more than memory holds")
        for number, out in enumerate(np.split(frames_NHWC, last - first + 1), start=first):
            self.pixel_chunk(number, out)
        return frames_NHWC[start - first * self.chunk_rows : stop - first * self.chunk_rows]

    def _check_layout(self) -> None:
        self.format = self._text_attribute("format")
        if self.format not in schema.OBSERVATION_COLUMNS:
            self._refuse(f"unknown format {self.format!r}")
        if self._file.attrs.get("format_version") != 1:
            self._refuse(f"format_version {self._file.attrs.get('format_version')!r}: this version reads 1")
        self.spec_hash = self._text_attribute("spec_hash")
        names = set(self._file)
        self._columns: dict[str, h5py.Dataset] = {}
        required = set(schema.required_columns(self.format))
        if names - required - set(schema.OPTIONAL_COLUMNS) or required - names:
            self._refuse(f"expected the columns {sorted(required)}, found {sorted(names)}")
        for name in sorted(names):
            self._check_column(name)
        self._check_episode_table()

    def _check_column(self, name: str) -> None:
        if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
            self._refuse(f"{name} is a link to somewhere else")
        column = self._columns[name] = self._file[name]
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
        table = self._columns["ep_len"]
        if len(table) > schema.MAX_EPISODES_PER_SHARD or len(self._columns["ep_offset"]) != len(table):
            self._refuse(f"ep_len claims {len(table)} episodes, a shard holds at most {schema.MAX_EPISODES_PER_SHARD}")
        self.ep_len: np.ndarray = table[:]
        self.ep_offset: np.ndarray = self._columns["ep_offset"][:]
        self.num_episodes = len(self.ep_len)
        self.num_rows = int(self.ep_len.sum(dtype=np.int64))
        starts = np.concatenate([[0], np.cumsum(self.ep_len[:-1], dtype=np.int64)])
        if self.num_episodes == 0 or (self.ep_len < 2).any() or not np.array_equal(starts, self.ep_offset):
            self._refuse("ep_len and ep_offset do not describe consecutive episodes of two or more rows")
        for name in self._columns.keys() - set(schema.INDEX_COLUMNS):
            if len(self._columns[name]) != self.num_rows:
                self._refuse(f"{name} has {len(self._columns[name])} rows, ep_len adds up to {self.num_rows}")
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
        state = self._columns.get("state")
        if state is not None and np.shape(state.attrs.get("names")) != state.shape[1:]:
            self._refuse("state has no attribute names that names each of its factors")
        if self.format == schema.ROLLOUTS:
            self._check_pixels()

    def _check_pixels(self) -> None:
        self._pixels = self._columns["pixels"]
        chunks, shape = self._pixels.chunks, self._pixels.shape
        if chunks[1:] != shape[1:] or shape[3] != 3 or not 0 < chunks[0] <= schema.PIXEL_CHUNK_ROWS:
            self._refuse(f"pixels of shape {shape} in chunks of {chunks}: expected whole RGB frames, up to 64 a chunk")
        creation = self._pixels.id.get_create_plist()
        filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
        if filters != [schema.ZSTD_FILTER_ID, schema.FLETCHER32_FILTER_ID]:
            self._refuse(f"pixels have the filters {filters}, expected zstd and then Fletcher-32")
        self.chunk_rows = int(chunks[0])
        self.pixel_layout = PixelLayout(self.source, self.num_rows, self.chunk_rows, shape[1:])

    def _text_attribute(self, name: str) -> str:
        value = self._file.attrs.get(name)
        if not isinstance(value, bytes):
            self._refuse(f"root attribute {name}: expected a text of fixed length, found {value!r}")
        return _decoded(value)

    def _refuse(self, what: str) -> NoReturn:
        refuse(self.source, what)


def _decoded(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _num_chunks(column: h5py.Dataset) -> int:
    """How many chunks a column of this shape consists of."""
    return math.prod(-(-length // chunk) for length, chunk in zip(column.shape, column.chunks, strict=True))
