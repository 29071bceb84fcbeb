"""Where a dataset is read from: a local directory, or a URL that fsspec can read.

Three things are read: a file's size (`size`), the file from front to back (`stream`), and parts of it (`open_file`). Local
files are read by the operating system's calls, URLs by fsspec (`remote`), which is imported at the first one. A location with
`://` in it is a URL, any other is a path. Writing takes only paths: publication needs link without overwriting, fsync and a
lock. File systems have these, and no object store has them all.

Rejected: everything through fsspec, local files too. Its local files support neither O_NOFOLLOW nor reads without a shared
position, and each read costs several times as much.
"""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, Self, TypeVar, overload

import numpy as np

from worldmodel_v.errors import ConfigError, NotAFile, ShardDamaged
from worldmodel_v.settings import local_path
from worldmodel_v.storage import files, remote
from worldmodel_v.storage.reading import missing, readable, unread
from worldmodel_v.storage.remote import RemoteFile, RemotePath, is_protocol, parse_url
from worldmodel_v.surface import option

Location = str | Path
"""What a user gives: the path of a directory, or its URL as text (a Path would drop one of the URL's slashes)."""

Place = Path | RemotePath
"""A location after `to_place`: both kinds print as they were given, and `/` appends a name to both."""

Read = TypeVar("Read")


class OpenFile(Protocol):
    """A file that is open for reading parts of it; threads may share it."""

    @property
    def num_bytes(self) -> int:
        """The file's size."""

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer where the file ends; raises NotReadable, ReadFailed, RemoteFailed or
        ShardDamaged."""

    def read_all(self) -> bytes:
        """The whole file."""

    def ahead(self, places: Callable[[], np.ndarray]) -> None:
        """Prepare to read the parts that `places` gives, int64 (n, 2) of offset and size; a local file does nothing."""

    def close(self) -> None:
        """Close the file; may be called again."""


def to_place(location: Location) -> Place:
    """A path, or a URL if it is a text with `://` in it; raises ConfigError if that names no directory or has a password."""
    if isinstance(location, RemotePath):
        return location
    if isinstance(location, str) and "://" in location:
        return Path(location.removeprefix("file://")) if location.startswith("file://") else parse_url(location)
    if _is_url(location):
        raise ConfigError("is a URL that has lost a slash, as in a Path", where=location, remedy="give it as text, with ://")
    if not isinstance(location, str | os.PathLike):
        remedy = "make one of several with wm-select" if isinstance(location, list | tuple) else None
        raise ConfigError(expected="the path or URL of a dataset", got=f"{location!r:.200}", remedy=remedy)
    return local_path(location)


def to_places(given: Location | Iterable[Location]) -> tuple[Place, ...]:
    """One location, or several, as `to_place` makes each."""
    return tuple(map(to_place, (given,) if isinstance(given, str | Path) else given))


def size(file: Place) -> int | None:
    """A file's size in bytes; None if there is no file. Raises OSError; of a URL as `remote.size`."""
    return remote.size(file) if isinstance(file, RemotePath) else files.size(file)


def stream(file: Place) -> BinaryIO:
    """A file to be read from front to back, one behind a URL in memory; raises OSError or RemoteFailed."""
    return remote.stream(file) if isinstance(file, RemotePath) else files.open_stream(file)


def open_file(file: Place, inside: Any = None) -> OpenFile:
    """A file to be read in parts, of the directory `inside`. Of a path it raises ShardDamaged if it is missing or no file,
    NotReadable, ReadFailed; a URL is not asked yet."""
    return RemoteFile(file) if isinstance(file, RemotePath) else LocalFile(file, inside)


class _Field(Generic[Read]):
    """The type of a config's field that converts what is given. Subclasses have `__set__`, and say of which type it is read."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, config: None, owner: type) -> Self: ...

    @overload
    def __get__(self, config: object, owner: type) -> Read: ...

    def __get__(self, config: object | None, owner: type) -> Any:
        if config is None:
            raise AttributeError(f"{owner.__name__}.{self._name} has no default")  # which dataclasses ask for
        return config.__dict__[self._name]


class LocalPath(_Field[Path]):
    """The type of a config's field that names a local directory: it is given as text or a Path, and is a Path when it is read.

    `out: LocalPath = LocalPath()` has no default. A URL raises ConfigError.
    """

    def __set__(self, config: object, path: str | Path) -> None:
        if _is_url(path):
            raise ConfigError(
                f"is a URL, and only {option('data')} may be one",
                field=self._name,
                got=path,
                remedy="give a local directory, and copy it yourself",
            )
        config.__dict__[self._name] = local_path(path)


class Locations(_Field[tuple[Place, ...]]):
    """The type of a config's field that names datasets: one or several are given, and it is a tuple of places when it is read.

    `data: Locations = Locations()` has no default. None at all raises ConfigError.
    """

    def __set__(self, config: object, given: Location | Iterable[Location]) -> None:
        places = to_places(given)
        if not places:
            raise ConfigError(field=self._name, expected="at least one dataset", got=places)
        config.__dict__[self._name] = places


def _is_url(path: Location) -> bool:
    found = re.match(r"([a-z][a-z0-9+.-]+):/", str(path))
    return found is not None and is_protocol(found[1])


class LocalFile:
    """A shard's file, open for reading parts of it; it closes when nothing refers to it any more."""

    @readable()
    def __init__(self, path: Path, inside: Path | None = None) -> None:
        """Raises ShardDamaged if the file is missing or no regular file; NotReadable, ReadFailed."""
        self._source = str(path)
        self._descriptor = -1
        try:
            self._descriptor = files.open_file(path, inside=inside)
        except FileNotFoundError:
            raise missing(path) from None
        except NotAFile as error:
            raise ShardDamaged(error.what, **error.parts) from None

    @property
    def num_bytes(self) -> int:
        """The file's size; raises ReadFailed."""
        with readable(self._source):
            return os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer where the file ends; raises NotReadable, ReadFailed."""
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise unread(self._source, error) from None

    def read_all(self) -> bytes:
        """The whole file."""
        parts: list[bytes] = []
        end = 0
        while part := self.read(end, 1 << 30):  # one call reads 2 GiB at most
            parts.append(part)
            end += len(part)
        return b"".join(parts)

    def ahead(self, places: Callable[[], np.ndarray]) -> None:
        """Does nothing: the operating system reads ahead by itself."""

    def close(self) -> None:
        """Close the file; may be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):  # nothing was written
                os.close(descriptor)

    def __del__(self) -> None:
        self.close()
