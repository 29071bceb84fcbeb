"""Reading one shard: opening it checks every promise of the format, and reading a chunk checks the chunk.

A shard may come from a stranger, so the HDF5 library never sees it: `structure` finds where everything lies, `columns` and
`pixels` decode stored bytes into rows. Chunks are read and decompressed outside any lock, so reading scales with threads.
Opening a shard checks all of it and costs two milliseconds, as much as four chunks. So code that reads many chunks of many
shards keeps the chunks' places (`pixel_places`) and reads them from an `OpenFile`.
"""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np

from worldmodel_v.errors import ShardDamaged
from worldmodel_v.records import Episode, Origin, index_rows
from worldmodel_v.schema import Schema
from worldmodel_v.storage import columns, layout
from worldmodel_v.storage.checksum import fletcher32, is_sha256
from worldmodel_v.storage.pixels import PixelLayout, refuse
from worldmodel_v.storage.reading import REMEDY, readable
from worldmodel_v.storage.store import OpenFile, Place, open_file
from worldmodel_v.storage.structure import Malformed, Read, StoredColumn, read_structure


class Shard:
    """A shard that is open for reading; use it as a context manager, or call `close`.

    Safe to share between threads. It cannot be pickled: send the path and open it there.
    """

    def __init__(self, read: Read, num_bytes: int, schema: Schema, source: str, file: OpenFile | None = None) -> None:
        """Check the bytes that `read` gives; `source` names them in errors.

        Raises ShardDamaged if they are no valid shard of the dataset's schema. `file` is what `close` closes.
        """
        self.schema, self.source = schema, source
        self._read, self._file = read, file
        self._recent: dict[str, tuple[int, np.ndarray]] = {}
        try:
            structure = read_structure(read, num_bytes)
        except Malformed as error:
            self.close()
            self._refuse(str(error))
        self._attributes, self._columns = structure.attributes, structure.columns
        try:
            self._check_layout()
        except ShardDamaged:
            self.close()
            raise

    @classmethod
    @readable()
    def open(cls, path: Place, schema: Schema, num_bytes: int | None = None, inside: Place | None = None) -> Self:
        """Open a file of the dataset `inside`, below which no link is followed.

        Raises ShardDamaged if it is missing, no file, not of `num_bytes`, or no valid shard; NotReadable; ReadFailed;
        RemoteFailed.
        """
        file = open_file(path, inside)
        size = file.num_bytes
        if num_bytes is not None and size != num_bytes:
            file.close()
            raise ShardDamaged(where=path, expected=f"{num_bytes} bytes as the index says", got=size, remedy=REMEDY)
        return cls(file.read, size, schema, str(path), file)

    @classmethod
    def from_bytes(cls, image: bytes, schema: Schema, source: str = "shard in memory") -> Self:
        """Open the bytes of a shard, as `build_shard` makes them; raises ShardDamaged if they are not a valid shard."""
        return cls(lambda offset, size: image[offset : offset + size], len(image), schema, source)

    def numbered(self, first_episode: int, origins: Sequence[Origin]) -> Self:
        """Itself, whose episodes have other numbers and origins: those of a dataset that reads this shard as one of its own.
        The rows of its column `ep_idx` stay as they are."""
        self.episode_ids = np.arange(first_episode, first_episode + self.num_episodes, dtype=np.int64)
        self.origins: tuple[Origin, ...] | None = tuple(origins)
        return self

    # What is in it

    @property
    def attributes(self) -> dict[str, Any]:
        """The root attributes: format, format_version, spec_hash, alignment, and what latents add."""
        return {name: _decoded(value) for name, value in self._attributes.items()}

    @property
    def columns(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Every column by name: its dtype and shape."""
        return {name: (column.dtype, column.shape) for name, column in self._columns.items()}

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the state factors; empty where the shard holds no state."""
        return self.schema.state_names

    # Reading

    def rows(self, column: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop` of a column, as a new array; raises ShardDamaged if a checksum fails."""
        stop = self.num_rows if stop is None else stop
        self.ahead([column], start, stop)
        is_frames = self.schema.frames is not None and column == self.schema.frames.name
        return self._pixel_rows(start, stop) if is_frames else self._column_rows(column, start, stop)

    def ahead(self, names: Iterable[str], start: int, stop: int) -> None:
        """Announce that rows start to stop of some columns are read next: a remote shard then fetches them in few requests."""
        if self._file is not None:
            self._file.ahead(lambda: np.concatenate([self._places_ahead(name, start, stop) for name in names]))

    def _places_ahead(self, name: str, start: int, stop: int) -> np.ndarray:
        """The places of the chunks with rows start to stop of a column, without one that is held already."""
        column = self._columns[name]
        length, end = column.chunks[0], min(stop, column.shape[0])
        held, _ = self._recent.get(name, (-1, _NOTHING))
        return column.places[[number for number in range(start // length, -(-end // length)) if number != held]]

    def pixel_chunk(self, number: int, out: np.ndarray | None = None) -> np.ndarray:
        """One chunk of frames: uint8 (n, H, W, 3), where n is `chunk_rows`, or fewer in the last chunk.

        With `out`, contiguous uint8 of a whole chunk's size, they are decompressed into it. Raises ShardDamaged if the
        checksum or the decompression fails.
        """
        return self.pixel_layout.decode(number, self.stored(self._frames, number), out)

    def layout(self, name: str) -> tuple[np.dtype, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """How a column is stored: dtype, shape, chunks, and the numbers of its filters in the order they were applied."""
        column = self._columns[name]
        return column.dtype, column.shape, column.chunks, column.filters

    def stored(self, name: str, number: int) -> bytes:
        """A chunk of a column as the file holds it, unchecked."""
        offset, size = self._columns[name].places[number].tolist()
        return self._read(offset, size)

    def intact(self, name: str, number: int) -> bytes:
        """The same of a column with Fletcher-32, checked by it; raises ShardDamaged."""
        stored = self.stored(name, number)
        if len(stored) <= 4 or fletcher32(memoryview(stored)[:-4]) != int.from_bytes(stored[-4:], "little"):
            self._refuse(f"chunk {number} of {name} fails its checksum")
        return stored

    def pixel_places(self) -> np.ndarray:
        """Where the file holds each chunk of frames: int64 (num_pixel_chunks, 2), its offset and its size in bytes.

        For `OpenFile.read`. A chunk whose filters were skipped has size 0, and is refused when it is decoded.
        """
        return self._columns[self._frames].places

    def episode(self, position: int) -> Episode:
        """The episode at `position` in this shard (0 is its first), as a record."""
        start = int(self.ep_offset[position])
        stop = start + int(self.ep_len[position])
        names = [column.name for column in self.schema.data_columns]
        self.ahead(names, start, stop)
        return self._record(position, {name: self.rows(name, start, stop) for name in names})

    def check(self) -> None:
        """Decode every chunk and check every episode's rows. Memory: one chunk of frames and one episode's other rows.

        Raises ShardDamaged, or EpisodeFailed if rows break the contract.
        """
        frames = {}
        if self.schema.frames is not None:
            chunk = np.empty(self.pixel_layout.chunk_bytes, np.uint8)
            for number in range(self.num_pixel_chunks):
                self.pixel_chunk(number, chunk)
            frames = {self._frames: np.broadcast_to(np.uint8(0), self._columns[self._frames].shape)}
        for position, (start, length) in enumerate(zip(self.ep_offset.tolist(), self.ep_len.tolist(), strict=True)):
            rows = {
                column.name: frames[column.name][:length]
                if column.name in frames
                else self.rows(column.name, start, start + length)
                for column in self.schema.data_columns
            }
            self._record(position, rows)
            for name, expected in index_rows(int(self.episode_ids[position]), length).items():
                if not np.array_equal(self.rows(name, start, start + length), expected):
                    self._refuse(f"{name} does not count the rows of episode {self.episode_ids[position]}")

    def _record(self, position: int, rows: dict[str, np.ndarray]) -> Episode:
        return Episode(
            schema=self.schema,
            episode_id=int(self.episode_ids[position]),
            seed=int(self.seeds[position]),
            policy=self.policies[position],
            columns=rows,
            origin=self.origins[position] if self.origins else None,
        )

    @property
    def _frames(self) -> str:
        assert self.schema.frames is not None, "latents hold no frames"
        return self.schema.frames.name

    @property
    def num_pixel_chunks(self) -> int:
        return self.pixel_layout.num_chunks

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open Shard cannot be pickled; send its path and open it in the other process")

    # Checks

    def _column_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Decodes chunk by chunk and keeps the last one, because the next episode's rows mostly begin in it."""
        column = self._columns[name]
        length = column.chunks[0]
        stop = min(stop, column.shape[0])
        parts = [np.empty((0, *column.shape[1:]), column.dtype)]
        for number in range(start // length, -(-stop // length) if start < stop else 0):
            first = number * length
            parts.append(self._chunk(name, number)[max(0, start - first) : stop - first])
        return np.concatenate(parts)

    def _chunk(self, name: str, number: int) -> np.ndarray:
        recent, chunk = self._recent.get(name, (-1, _NOTHING))
        if recent != number:
            try:
                chunk = columns.decode(self._columns[name], self.stored(name, number))
            except columns.Undecodable as error:
                self._refuse(f"chunk {number} of {name} (rows from {number * self._columns[name].chunks[0]}) {error}")
            self._recent[name] = number, chunk
        return chunk

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
        if (found := self._text_attribute("format")) != self.schema.format:
            self._refuse(f"holds {found!r:.100}, dataset.json says {self.schema.format}")
        version = self._attributes.get("format_version", np.int64(0))
        if np.shape(version) != () or version != 1:
            self._refuse(f"format_version {_short(version)}: this version reads 1")
        self.spec_hash = self._text_attribute("spec_hash")
        for name in layout.HASH_ATTRIBUTES & self._attributes.keys():
            if not is_sha256(text := self._text_attribute(name)):
                self._refuse(f"root attribute {name}: expected 64 hexadecimal digits, found {text!r:.100}")
        expected = {column.name for column in self.schema.columns} | layout.EPISODE_COLUMNS.keys()
        if self._columns.keys() != expected:
            self._refuse(f"expected the columns {sorted(expected)}, found {sorted(self._columns)}")
        for column in self.schema.columns:
            kept = self._columns[column.name]
            self._check_column(column.name, kept, column.dtype, column.row_shape, layout.filter_ids(column))
            if column.role == "state" and _names(kept) != column.parts:
                self._refuse(f"{column.name} names its values {_short(_names(kept))}, dataset.json {_short(column.parts)}")
        for name, dtype in layout.EPISODE_COLUMNS.items():
            self._check_column(name, self._columns[name], dtype, (), (layout.FILTER_IDS["fletcher32"],))
        self._check_episode_table()

    def _check_column(
        self, name: str, column: StoredColumn, dtype: str, row_shape: tuple[int, ...], filters: tuple[int, ...]
    ) -> None:
        found, expected = f"{column.dtype} {[*column.shape[1:]]}", f"{dtype} {[*row_shape]}"
        if found != expected:
            self._refuse(f"{name} has rows of {found}, expected {expected}")
        if column.chunk_bytes > layout.MAX_CHUNK_BYTES:
            self._refuse(f"{name} claims chunks of {column.chunk_bytes} bytes, expected at most {layout.MAX_CHUNK_BYTES}")
        if (largest := int(column.places[:, 1].max())) > column.chunk_bytes + column.chunk_bytes // 64 + 1024:
            self._refuse(f"{name} has a chunk of {largest} bytes, where {column.chunk_bytes} need none of its filters")
        if column.filters != filters:
            self._refuse(f"{name} has the filters {[*column.filters]}, expected {[*filters]}")

    def _check_episode_table(self) -> None:
        table, offsets = self._columns["ep_len"], self._columns["ep_offset"]
        num_episodes = table.shape[0]
        if num_episodes > layout.MAX_EPISODES_PER_SHARD or offsets.shape != table.shape:
            self._refuse(f"ep_len claims {num_episodes} episodes, a shard holds at most {layout.MAX_EPISODES_PER_SHARD}")
        self.ep_len = self._column_rows("ep_len", 0, num_episodes)
        self.ep_offset = self._column_rows("ep_offset", 0, num_episodes)
        self.num_episodes = num_episodes
        self.num_rows = int(self.ep_len.sum(dtype=np.int64))
        starts = np.concatenate([[0], np.cumsum(self.ep_len[:-1], dtype=np.int64)])
        if num_episodes == 0 or (self.ep_len < 2).any() or not np.array_equal(starts, self.ep_offset):
            self._refuse("ep_len and ep_offset do not describe consecutive episodes of two or more rows")
        for column in self.schema.columns:
            if (num_rows := self._columns[column.name].shape[0]) != self.num_rows:
                self._refuse(f"{column.name} has {num_rows} rows, ep_len adds up to {self.num_rows}")
        self.episode_ids = self._per_episode("episode_id", np.int64)
        self.seeds = self._per_episode("seed", np.int64)
        self.returns = self._per_episode("return", np.float64)
        if self.episode_ids[0] < 0 or (np.diff(self.episode_ids) != 1).any():
            self._refuse(f"its episodes are not consecutive: {_short(self.episode_ids)}")
        self.policies = tuple(_decoded(policy) for policy in self._per_episode("policy", np.bytes_))
        """Which policy drove each episode."""
        self.origins = self._read_origins()
        """Where each episode was selected from; None if the dataset was not selected from others."""
        if self.schema.frames is not None:
            self._check_frames()

    def _read_origins(self) -> tuple[Origin, ...] | None:
        if not {"origin", "origin_episode"} & self._columns["ep_len"].attributes.keys():
            return None
        datasets, episodes = self._per_episode("origin", np.int64), self._per_episode("origin_episode", np.int64)
        if min(datasets.min(), episodes.min()) < 0:
            self._refuse("attributes origin and origin_episode of ep_len: expected numbers from 0")
        return tuple(map(Origin, datasets.tolist(), episodes.tolist()))

    def _per_episode(self, name: str, kind: type) -> np.ndarray:
        """An attribute of ep_len: one value for each episode."""
        values = self._columns["ep_len"].attributes.get(name)
        if values is None or np.shape(values) != (self.num_episodes,) or not issubclass(values.dtype.type, kind):
            found = "nothing" if values is None else f"{values.dtype} of shape {np.shape(values)}"
            self._refuse(f"attribute {name} of ep_len: expected {kind.__name__} of shape {(self.num_episodes,)}, found {found}")
        return values

    def _check_frames(self) -> None:
        frames = self._columns[self._frames]
        height, width, channels = frames.shape[1:]
        if not 0 < frames.chunks[0] <= layout.PIXEL_CHUNK_ROWS:
            self._refuse(f"{self._frames} has chunks of {frames.chunks[0]} rows, expected 1 to {layout.PIXEL_CHUNK_ROWS}")
        self.chunk_rows = frames.chunks[0]
        self.pixel_layout = PixelLayout(self.source, self.num_rows, self.chunk_rows, (height, width, channels))

    def _text_attribute(self, name: str) -> str:
        value = self._attributes.get(name)
        if not isinstance(value, bytes):
            self._refuse(f"root attribute {name}: expected a text of fixed length, found {_short(value)}")
        return _decoded(value)

    def _refuse(self, what: str) -> NoReturn:
        refuse(self.source, what)


_NOTHING = np.empty(0)


def _names(column: StoredColumn) -> tuple[str, ...]:
    """What a column's attribute `names` says; empty where there is none."""
    return tuple(str(_decoded(name)) for name in np.ravel(column.attributes.get("names", ())))


def _short(value: Any) -> str:
    """A file's value, shortened for a message of one line."""
    return " ".join(f"{value}".split())[:100]


def _decoded(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
