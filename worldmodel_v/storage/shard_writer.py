"""Episodes -> the bytes of one shard, built in memory.

Built in memory because HDF5 writing to a disk that fills raises and then kills the process, and a kill in the middle of a
write leaves a file that does not open; bytes can be published whole. The same episodes give the same bytes: no time
stamps, no names of hosts or paths, a fixed order of creation. Texts are attributes of fixed length: they stand in the
object header, which carries a checksum, while HDF5 keeps strings of variable length in a heap that has none.
"""

from collections.abc import Sequence

import h5py
import numpy as np

from worldmodel_v.records import Episode, LatentSequence
from worldmodel_v.storage import schema
from worldmodel_v.storage.hdf5_file import with_plugin
from worldmodel_v.storage.shard_reader import Shard


def build_shard(
    episodes: Sequence[Episode] | Sequence[LatentSequence],
    *,
    spec_hash: str,
    attributes: dict[str, str] | None = None,
    source: Shard | None = None,
) -> bytes:
    """The HDF5 image of a shard that holds `episodes` (consecutive, all of one kind, at least one).

    `attributes` are further root attributes (latents: `vae_sha256`, `source_sha256`). Columns of latents that `source`, the
    rollout shard that they were encoded from, holds in the same layout are taken from there as they are stored.
    """
    dataset_format = schema.LATENTS if isinstance(episodes[0], LatentSequence) else schema.ROLLOUTS
    with h5py.File.in_memory(libver=schema.HDF5_VERSIONS, track_order=False) as file:
        texts = {"format": dataset_format, "spec_hash": spec_hash, "alignment": schema.ALIGNMENT, **(attributes or {})}
        for name, text in texts.items():
            file.attrs[name] = np.bytes_(text.encode())
        file.attrs["format_version"] = np.int64(1)
        per_episode = [episode.columns() for episode in episodes]
        for name in per_episode[0]:
            _write_column(file, name, [columns[name] for columns in per_episode], source)
        if episodes[0].state is not None:
            file["state"].attrs["names"] = np.array([name.encode() for name in episodes[0].state_names])
        _write_episode_table(file, episodes)
        file.flush()
        return bytes(file.id.get_file_image())


def _write_column(file: h5py.File, name: str, parts: list[np.ndarray], source: Shard | None) -> None:
    """One column, chunk by chunk from `source` if it has the same, which spares compressing it once more; or else episode by
    episode: joined first, the frames would be copied once more, which costs as much as zstd."""
    chunk_rows = schema.PIXEL_CHUNK_ROWS if name == "pixels" else schema.ROW_CHUNK_ROWS
    options = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    if name == "pixels":
        options = with_plugin()
    elif name in schema.OBSERVATION_COLUMNS[schema.LATENTS]:
        options = {}
    num_rows = sum(map(len, parts))
    shape = (num_rows, *parts[0].shape[1:])
    chunks = (min(chunk_rows, num_rows), *shape[1:])
    column = file.create_dataset(name, shape, dtype=parts[0].dtype, chunks=chunks, fletcher32=True, **options)
    if source is not None and name in source.columns and source.layout(name) == _layout(column):
        for number, start in enumerate(range(0, num_rows, chunks[0])):
            column.id.write_direct_chunk((start, *[0] * (len(shape) - 1)), source.stored(name, number))
        return
    first = 0
    for rows in parts:
        column[first : first + len(rows)] = rows
        first += len(rows)


def _layout(column: h5py.Dataset) -> tuple[np.dtype, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Its dtype, shape, chunks and filters, as `Shard.layout` says them."""
    settings = column.id.get_create_plist()
    filters = tuple(settings.get_filter(number)[0] for number in range(settings.get_nfilters()))
    return column.dtype, column.shape, column.chunks, filters


def _write_episode_table(file: h5py.File, episodes: Sequence[Episode] | Sequence[LatentSequence]) -> None:
    lengths = np.array([episode.num_rows for episode in episodes], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64)]).astype(np.int64)
    ep_len = file.create_dataset("ep_len", data=lengths, chunks=lengths.shape, fletcher32=True)
    file.create_dataset("ep_offset", data=offsets, chunks=offsets.shape, fletcher32=True)
    ep_len.attrs["episode_id"] = np.array([episode.episode_id for episode in episodes], dtype=np.int64)
    ep_len.attrs["seed"] = np.array([episode.seed for episode in episodes], dtype=np.int64)
    ep_len.attrs["policy"] = np.array([episode.policy.encode() for episode in episodes])
    ep_len.attrs["return"] = np.array([episode.episode_return for episode in episodes], dtype=np.float64)
