"""The dataset contract and nothing else: immutable HDF5 shards, an append-only index, atomic publication.

The invariant: an episode exists if and only if a line of `index.jsonl` names a shard whose size and SHA-256 match the
file. This package is the only one that imports h5py and fsspec, so it also has what exports need to write HDF5 in other
layouts.
"""

from worldmodel_v.storage.dataset import Dataset, Latents, Rollouts, open_dataset, require_dataset
from worldmodel_v.storage.index import IndexEntry
from worldmodel_v.storage.pixels import PixelLayout
from worldmodel_v.storage.set_aside import SetAside
from worldmodel_v.storage.shard_reader import Shard
from worldmodel_v.storage.shard_writer import build_shard, copy_shard
from worldmodel_v.storage.store import LocalPath, Location, Locations, OpenFile, Place, to_place, to_places
from worldmodel_v.storage.verify import verify
from worldmodel_v.storage.writer import DatasetWriter

__all__ = [
    "Dataset",
    "DatasetWriter",
    "IndexEntry",
    "Latents",
    "LocalPath",
    "Location",
    "Locations",
    "OpenFile",
    "PixelLayout",
    "Place",
    "Rollouts",
    "SetAside",
    "Shard",
    "build_shard",
    "copy_shard",
    "open_dataset",
    "require_dataset",
    "to_place",
    "to_places",
    "verify",
]
