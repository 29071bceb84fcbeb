"""Episodes -> the bytes of one shard, built in memory.

Shards are built in memory for two reasons. When the disk fills up, HDF5 raises and then kills the process. And a kill in the
middle of a write leaves a file that does not open; bytes in memory can be published whole. The same episodes give the same
bytes: no time stamps, no names of hosts or paths, a fixed order of creation. Texts are attributes of fixed length: these lie
in the object header, which has a checksum. HDF5 keeps strings of variable length in a heap, which has none.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from worldmodel_v.records import Episode, Origin, index_rows
from worldmodel_v.schema import Column, Schema
from worldmodel_v.storage import layout
from worldmodel_v.storage.hdf5_file import with_plugin
from worldmodel_v.storage.shard_reader import Shard


def build_shard(
    episodes: Sequence[Episode],
    *,
    spec_hash: str,
    attributes: dict[str, str] | None = None,
    source: Shard | None = None,
) -> bytes:
    """The HDF5 image of a shard that holds `episodes` (consecutive, all of one schema, at least one).

    `attributes` are further root attributes (latents: `vae_sha256`, `source_sha256`). `source` is the rollout shard that
    latents were encoded from: columns that it holds in the same layout are copied as they are stored.
    """
    table = _EpisodeTable(
        episode_ids=np.array([episode.episode_id for episode in episodes], dtype=np.int64),
        lengths=np.array([episode.num_rows for episode in episodes], dtype=np.int32),
        seeds=np.array([episode.seed for episode in episodes], dtype=np.int64),
        policies=[episode.policy for episode in episodes],
        returns=np.array([episode.episode_return for episode in episodes], dtype=np.float64),
        origins=[episode.origin for episode in episodes if episode.origin is not None],
    )
    per_episode = [{**episode.columns, **index_rows(episode.episode_id, episode.num_rows)} for episode in episodes]

    def rows(column: Column) -> list[np.ndarray]:
        return [columns[column.name] for columns in per_episode]

    return _image(episodes[0].schema, table, rows, spec_hash, attributes, source)


def copy_shard(
    source: Shard,
    *,
    first_episode: int,
    origins: Sequence[Origin],
    spec_hash: str,
    attributes: dict[str, str] | None = None,
) -> bytes:
    """The HDF5 image of a shard with all episodes of `source`, renumbered from `first_episode` on, each with its origin.

    The columns' chunks are copied as they are stored, and not decoded unless other software has cut them otherwise. Raises
    ShardDamaged if a chunk fails its checksum.
    """
    episode_ids = first_episode + np.arange(source.num_episodes, dtype=np.int64)
    table = _EpisodeTable(
        episode_ids=episode_ids,
        lengths=source.ep_len,
        seeds=source.seeds,
        policies=source.policies,
        returns=source.returns,
        origins=origins,
    )

    def rows(column: Column) -> Iterator[np.ndarray]:
        if column.name == "ep_idx":
            yield np.repeat(episode_ids, source.ep_len)
            return
        step = layout.chunk_rows(column)
        for start in range(0, source.num_rows, step):
            yield source.rows(column.name, start, min(start + step, source.num_rows))

    return _image(source.schema, table, rows, spec_hash, attributes, source)


@dataclass(frozen=True, kw_only=True)
class _EpisodeTable:
    """What a shard holds of each episode beside its rows."""

    episode_ids: np.ndarray
    lengths: np.ndarray
    seeds: np.ndarray
    policies: Sequence[str]
    returns: np.ndarray
    origins: Sequence[Origin]
    """Of all episodes, or of none."""


def _image(
    schema: Schema,
    table: _EpisodeTable,
    rows: Callable[[Column], Iterable[np.ndarray]],
    spec_hash: str,
    attributes: dict[str, str] | None,
    source: Shard | None,
) -> bytes:
    """`rows` gives a column's rows, in parts. It is called only for columns that are not copied from `source`."""
    num_rows = int(table.lengths.sum(dtype=np.int64))
    renumbered = source is not None and not np.array_equal(source.episode_ids, table.episode_ids)
    with h5py.File.in_memory(libver=layout.HDF5_VERSIONS, track_order=False) as file:
        texts = {"format": schema.format, "spec_hash": spec_hash, "alignment": layout.ALIGNMENT, **(attributes or {})}
        for name, text in texts.items():
            file.attrs[name] = np.bytes_(text.encode())
        file.attrs["format_version"] = np.int64(1)
        for column in schema.columns:
            copied = None if renumbered and column.name == "ep_idx" else source
            _write_column(file, column, num_rows, functools.partial(rows, column), copied)
        _write_episode_table(file, table)
        file.flush()
        return bytes(file.id.get_file_image())


def _write_column(
    file: h5py.File, column: Column, num_rows: int, parts: Callable[[], Iterable[np.ndarray]], source: Shard | None
) -> None:
    """Write one column. If `source` has the same column, its chunks are copied, which saves compressing them again. Otherwise
    only short episodes are joined: joining all frames is one more copy, which costs as much as zstd."""
    shape = (num_rows, *column.row_shape)
    chunks = (min(layout.chunk_rows(column), num_rows), *column.row_shape)
    options: dict[str, Any] = {"compression": "gzip", "compression_opts": 1} if "gzip" in column.filters else {}
    if "zstd" in column.filters:
        options = with_plugin()
    dataset = file.create_dataset(
        column.name, shape, dtype=column.dtype, chunks=chunks, shuffle="shuffle" in column.filters, fletcher32=True, **options
    )
    if column.parts:
        dataset.attrs["names"] = np.array([name.encode() for name in column.parts])
    if source is not None and column in source.schema.columns and source.layout(column.name) == _layout(dataset):
        for number, start in enumerate(range(0, num_rows, chunks[0])):
            dataset.id.write_direct_chunk((start, *[0] * (len(shape) - 1)), source.intact(column.name, number))
        return
    first = 0
    for rows in _joined(parts(), chunks[0]):
        dataset[first : first + len(rows)] = rows
        first += len(rows)


def _joined(parts: Iterable[np.ndarray], num_rows: int) -> Iterator[np.ndarray]:
    """The same rows in the same order, with short parts joined to at least `num_rows`: each write costs 0.05 ms."""
    short: list[np.ndarray] = []
    for rows in parts:
        short.append(rows)
        if sum(map(len, short)) >= num_rows:
            yield np.concatenate(short) if len(short) > 1 else rows
            short = []
    if short:
        yield np.concatenate(short)


def _layout(dataset: h5py.Dataset) -> tuple[np.dtype, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Its dtype, shape, chunks and filters, as `Shard.layout` returns them."""
    settings = dataset.id.get_create_plist()
    filters = tuple(settings.get_filter(number)[0] for number in range(settings.get_nfilters()))
    return dataset.dtype, dataset.shape, dataset.chunks, filters


def _write_episode_table(file: h5py.File, table: _EpisodeTable) -> None:
    lengths = table.lengths
    offsets = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64)]).astype(np.int64)
    ep_len = file.create_dataset("ep_len", data=lengths, chunks=lengths.shape, fletcher32=True)
    file.create_dataset("ep_offset", data=offsets, chunks=offsets.shape, fletcher32=True)
    ep_len.attrs["episode_id"] = table.episode_ids
    ep_len.attrs["seed"] = table.seeds
    ep_len.attrs["policy"] = np.array([policy.encode() for policy in table.policies])
    ep_len.attrs["return"] = table.returns
    if table.origins:
        ep_len.attrs["origin"] = np.array([origin.dataset for origin in table.origins], dtype=np.int64)
        ep_len.attrs["origin_episode"] = np.array([origin.episode for origin in table.origins], dtype=np.int64)
