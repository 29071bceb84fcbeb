"""Reading a dataset: its settings, what is committed, and its shards.

A `Dataset` holds no open file, so it can be pickled and sent to a worker; shards are opened where they are read.

A dataset can be read from a URL (see `store`). The checks are the same as on a disk: metadata and chunks by their checksums,
each shard's size against the index. Commands that read a whole shard anyway (encode, export, verify) also check its SHA-256.
They load the shard into memory, so that it crosses the network once.
"""

import hashlib
import itertools
import operator
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from worldmodel_v.errors import DatasetNotUsable, ShardDamaged
from worldmodel_v.records import Episode
from worldmodel_v.schema import Schema
from worldmodel_v.spec import FORMAT_VERSION, SPEC_CLASSES, LatentSpec, RolloutSpec, Spec, read_settings
from worldmodel_v.storage import store
from worldmodel_v.storage.checksum import sha256_of_file
from worldmodel_v.storage.index import INDEX_NAME, IndexEntry, read_index
from worldmodel_v.storage.pixels import refuse
from worldmodel_v.storage.reading import REMEDY, readable
from worldmodel_v.storage.remote import RemotePath
from worldmodel_v.storage.set_aside import SetAside, read_set_aside
from worldmodel_v.storage.shard_reader import Shard
from worldmodel_v.storage.store import Location, OpenFile, Place, to_place
from worldmodel_v.untrusted import parse_object
from worldmodel_v.words import counted

if TYPE_CHECKING:
    import pandas

SPEC_NAME = "dataset.json"
MAX_SPEC_BYTES = 1 << 20
SHARDS_AHEAD = 16
"""How many remote shards are opened at once."""

S = TypeVar("S", bound=Spec, covariant=True)

_STAGES: dict[type[Spec], str] = {RolloutSpec: "wm-collect", LatentSpec: "wm-encode"}
"""The command that writes each kind of dataset."""


@dataclass(frozen=True)
class Dataset(Generic[S]):
    """What a dataset directory held when it was read: `Dataset[RolloutSpec]` or `Dataset[LatentSpec]`.

    It is a sequence of `Episode`s: `len(dataset)`, `dataset[0]`, `dataset[-1]`, `for episode in dataset`. Each is read when it
    is asked for.
    """

    path: Place
    """A directory, or a URL."""

    spec: S
    """The settings that determine its content: a `RolloutSpec` or a `LatentSpec`."""

    entries: tuple[IndexEntry, ...]
    """The committed shards, by number."""

    root: Place = field(init=False, repr=False, compare=False)
    """`path` from everywhere: a program may change its directory."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.path.absolute())

    def __repr__(self) -> str:
        kind = self.format.rpartition("/")[2]
        return f"Dataset({self.name!r}: {kind}, {counted(self.num_episodes, 'episode')}, {counted(self.num_rows, 'row')})"

    def _repr_html_(self) -> str:
        from worldmodel_v.storage.html import dataset_html

        return dataset_html(self)

    @property
    def name(self) -> str:
        """What messages call it: its path."""
        return str(self.path)

    @property
    def format(self) -> str:
        """`worldmodel_v/rollouts` or `worldmodel_v/latents`."""
        return self.spec.format

    @property
    def schema(self) -> Schema:
        """Its columns, and the spaces of observation and action."""
        return self.spec.schema

    @property
    def spec_hash(self) -> str:
        """Of its settings and its schema, in hexadecimal; each shard carries it too."""
        return self.spec.hash

    @property
    def num_episodes(self) -> int:
        """Committed episodes."""
        return sum(entry.num_episodes for entry in self.entries)

    @property
    def num_rows(self) -> int:
        """Rows of all committed episodes: one more than the actions of each."""
        return sum(entry.num_rows for entry in self.entries)

    def __len__(self) -> int:
        return self.num_episodes

    def __iter__(self) -> Iterator[Episode]:
        """The episodes in order, each read when it is its turn; raises ShardDamaged."""
        for _, shard in self.shards():
            for position in range(shard.num_episodes):
                yield shard.episode(position)

    @overload
    def __getitem__(self, index: int) -> Episode: ...

    @overload
    def __getitem__(self, index: slice) -> list[Episode]: ...

    def __getitem__(self, index: int | slice) -> Episode | list[Episode]:
        """The episode at a place in the order, from the end if it is negative, or those of a slice; raises IndexError or
        ShardDamaged.

        It is also the episode of this number unless some before it are missing; `episode` takes numbers.
        """
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"episode {place} of {len(self)}")
        place %= len(self)
        for entry in self.entries:
            if place < entry.num_episodes:
                break
            place -= entry.num_episodes
        with self.open_shard(entry) as shard:
            return shard.episode(place)

    def to_pandas(self, *, arrays: bool = False) -> "pandas.DataFrame":
        """All rows as one table: `episode`, `step`, then each number of a row, such as `reward`, `action[0]`, `state[angle]`.
        One that has the name of another has `_` after it: a recorded column `step` is `step_`.

        An episode of T actions has T + 1 rows, as in the files: its last one has the final observation and no action or reward.
        With `arrays`, frames and other grids are columns too, an array in each cell; they all have to fit into memory.
        Raises PackageMissing without pandas, ShardDamaged.
        """
        from worldmodel_v.storage.table import to_table

        return to_table(self, arrays)

    def set_aside(self) -> list[SetAside]:
        """The failed episodes of the last collection, by number; raises DatasetNotUsable if their file is damaged."""
        missing = [episode for episode in read_set_aside(self.root) if not episode.is_committed(self.entries)]
        return sorted(missing, key=lambda episode: episode.episode)

    @property
    def is_remote(self) -> bool:
        """Whether it is read from a URL."""
        return isinstance(self.path, RemotePath)

    def shard_path(self, entry: IndexEntry) -> Place:
        """Where a committed shard's file is."""
        return self.path / entry.name

    def open_file(self, entry: IndexEntry) -> OpenFile:
        """A committed shard's file, to read parts of it whose places are known; raises ShardDamaged if it is missing."""
        return store.open_file(self.root / entry.name, self.root)

    def shards(self, entries: Sequence[IndexEntry] | None = None) -> Iterator[tuple[IndexEntry, Shard]]:
        """Each committed shard, or each of `entries`, open in turn; remote ones are opened ahead. Raises as `open_shard`."""
        wanted = self.entries if entries is None else entries
        opened = self._opened_ahead(wanted) if self.is_remote else ((entry, self.open_shard(entry)) for entry in wanted)
        for entry, shard in opened:
            with shard:
                yield entry, shard

    def _opened_ahead(self, entries: Sequence[IndexEntry]) -> Iterator[tuple[IndexEntry, Shard]]:
        left = iter(entries)
        threads = ThreadPoolExecutor(SHARDS_AHEAD, "open")
        opening: deque[tuple[IndexEntry, Future[Shard]]] = deque()
        try:
            while True:
                for entry in itertools.islice(left, SHARDS_AHEAD - len(opening)):
                    opening.append((entry, threads.submit(self.open_shard, entry)))
                if not opening:
                    return
                entry, opened = opening.popleft()
                yield entry, opened.result()
        finally:
            threads.shutdown(cancel_futures=True)

    def open_shard(self, entry: IndexEntry, image: bytes | None = None) -> Shard:
        """Open a committed shard, from its bytes if `image` gives them; raises ShardDamaged if it differs from the index."""
        if image is None:
            shard = Shard.open(self.root / entry.name, self.schema, entry.bytes, self.root)
        else:
            shard = Shard.from_bytes(image, self.schema, str(self.shard_path(entry)))
        try:
            self._require_match(shard, entry)
        except ShardDamaged:
            shard.close()
            raise
        return shard

    def open_verified(self, entry: IndexEntry) -> Shard:
        """Open a committed shard and check its SHA-256; a remote one is loaded into memory. Raises ShardDamaged."""
        if isinstance(self.root, RemotePath):
            return self.open_shard(entry, self.image(entry))
        shard = self.open_shard(entry)
        try:
            self._require_sha256(entry, sha256_of_file(self.root / entry.name, self.root))
        except ShardDamaged:
            shard.close()
            raise
        return shard

    def open_own(self, entry: IndexEntry) -> Shard:
        """The same; raises DatasetNotUsable too, if another VAE than that of `dataset.json` made its latents."""
        shard = self.open_verified(entry)
        if shard.attributes.get("vae_sha256") != (self.spec.vae_sha256 if isinstance(self.spec, LatentSpec) else None):
            shard.close()
            raise DatasetNotUsable(
                "was not made by the VAE that dataset.json names",
                where=self.shard_path(entry),
                remedy="encode into a new directory",
            )
        return shard

    def hashed(self, entry: IndexEntry) -> IndexEntry:
        """The entry with the SHA-256 of `image`: itself, in a dataset that is in one directory."""
        return entry

    def image(self, entry: IndexEntry) -> bytes:
        """All bytes of a committed shard; raises ShardDamaged if their size or SHA-256 differs from the index."""
        file, path = self.open_file(entry), self.shard_path(entry)
        try:
            if (size := file.num_bytes) != entry.bytes:
                raise ShardDamaged(where=path, expected=f"{entry.bytes} bytes as the index says", got=size, remedy=REMEDY)
            image = file.read_all()
        finally:
            file.close()
        self._require_sha256(entry, hashlib.sha256(image).hexdigest())
        return image

    def _require_sha256(self, entry: IndexEntry, found: str) -> None:
        if found != entry.sha256:
            path, expected = self.shard_path(entry), entry.sha256
            raise ShardDamaged(
                f"SHA-256 is {found[:12]}…, the index says {expected[:12]}…", where=path, remedy="restore it from a copy"
            )

    def _require_match(self, shard: Shard, entry: IndexEntry) -> None:
        found = (shard.spec_hash, shard.num_episodes, shard.num_rows, int(shard.episode_ids[0]))
        expected = (self.spec_hash, entry.num_episodes, entry.num_rows, entry.first_episode)
        if found != expected:
            names = "spec_hash, episodes, rows, first episode"
            refuse(shard.source, f"{names} are {found}, the index and dataset.json say {expected}")
        if (source := shard.attributes.get("source_sha256")) != entry.source_sha256:
            refuse(shard.source, f"was encoded from the shard {source}, the index says {entry.source_sha256}")

    def episode(self, episode_id: int) -> Episode:
        """One episode as a record; raises DatasetNotUsable if it is not committed."""
        for entry in self.entries:
            if entry.first_episode <= episode_id < entry.end_episode:
                with self.open_shard(entry) as shard:
                    return shard.episode(episode_id - entry.first_episode)
        raise DatasetNotUsable(
            f"episode {episode_id} is not there; it has {counted(self.num_episodes, 'episode')}", where=self.path
        )


Rollouts = Dataset[RolloutSpec]
Latents = Dataset[LatentSpec]


@overload
def open_dataset(path: Location) -> Dataset[Spec]: ...


@overload
def open_dataset(path: Location, *kinds: type[S]) -> Dataset[S]: ...


@readable()
def open_dataset(path: Location, *kinds: type[Any]) -> Dataset[Any]:
    """Read `dataset.json` and the index at a path or URL; with `kinds`, it must be of one of them (RolloutSpec, LatentSpec).

    Raises DatasetNotUsable, which names the command that writes such a dataset; NotReadable, ReadFailed, ShardDamaged or
    RemoteFailed. Nothing outside the directory is read: its files and its folder of shards may not be links.
    """
    place = to_place(path)
    spec = read_spec(place, *kinds)
    return Dataset(place, spec, tuple(read_index(place / INDEX_NAME)))


def require_dataset(path: Location, *kinds: type[S]) -> Dataset[S]:
    """Open a dataset as `open_dataset` does; raises DatasetNotUsable too, if it is empty."""
    dataset = open_dataset(path, *kinds)
    if not dataset.entries:
        raise DatasetNotUsable(
            "the dataset is empty", where=path, remedy=f"run {_STAGES[type(dataset.spec)]} first, or let it finish"
        )
    return dataset


@readable()
def read_spec(path: Place, *kinds: type[S]) -> S:
    """The spec in `dataset.json`. Raises as `open_dataset` does."""
    file = path / SPEC_NAME
    makers = " or ".join(_STAGES[kind] for kind in kinds or _STAGES)
    num_bytes = store.size(file) if not isinstance(path, Path) or path.is_dir() else None
    if num_bytes is None:
        found = "is no directory" if isinstance(path, Path) and not path.is_dir() else f"holds no {SPEC_NAME}"
        raise DatasetNotUsable(found, where=path, remedy=f"give a directory that {makers} wrote")
    try:
        if num_bytes > MAX_SPEC_BYTES:
            raise ValueError(f"it has {num_bytes} bytes, expected at most {MAX_SPEC_BYTES}")
        with readable(file), store.stream(file) as opened:
            spec = _spec_of(parse_object(opened.read()))
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetNotUsable(
            f"not a valid description of a dataset ({error})", where=file, remedy="restore it from a copy"
        ) from None
    if kinds and not isinstance(spec, kinds):
        expected = " or ".join(f"{kind.format} (made by {_STAGES[kind]})" for kind in kinds)
        raise DatasetNotUsable(
            where=path, expected=f"a dataset of {expected}", got=spec.format, remedy=f"give the directory that {makers} wrote"
        )
    return spec


def _spec_of(content: dict[str, Any]) -> Any:
    """The spec of a `dataset.json`; raises ValueError, KeyError or TypeError."""
    version, settings = content["format_version"], content["spec"]
    spec_class = SPEC_CLASSES[content["format"]]
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(f"format_version {version!r:.100}, this version reads {FORMAT_VERSION}")
    if not isinstance(settings, dict):
        raise ValueError(f"spec: expected an object, found {type(settings).__name__}")
    spec = read_settings(spec_class, settings, Schema.from_json(content["schema"]))
    if spec.hash != content["spec_hash"]:
        raise ValueError(f"spec_hash is {content['spec_hash']!r:.100}, that of its settings is {spec.hash}")
    return spec
