"""Reading from a URL through fsspec: HTTP with our extra `http`; S3, GCS, Hugging Face and others with the user's own package.

Every request costs tens of milliseconds, whatever its size, so this module makes few. A small read (metadata) fetches the block
of 64 kB around it. Parts that are announced (`ahead`) are fetched together: neighbours in one request, and all requests at once
if fsspec can. Nothing is kept on disk. A failed request is repeated twice, after a pause.

Rejected: fsspec's own file objects. They have one position, so threads cannot share them, and they read megabytes ahead.
"""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar

import numpy as np

from worldmodel_v.errors import ConfigError, NotReadable, PackageMissing, RemoteFailed, ShardDamaged, WorldModelError, one_line
from worldmodel_v.storage.reading import REMEDY, missing

SMALL_BYTES = 4096
"""A read of at most this size fetches its whole block."""

BLOCK_BYTES = 64 << 10
MAX_BLOCKS = 16
GAP_BYTES = 16 << 10
"""Parts with at most this gap between them are fetched in one request."""

PIECE_BYTES = 8 << 20
"""The largest request, unless one part is larger."""

PIECES_AT_ONCE = 8
PAUSES = (0.2, 1.0)
"""Seconds before a failed request is made again."""

PACKAGES = {
    **dict.fromkeys(("http", "https"), "'worldmodel_v[http]'"),
    **{"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"},
}
"""Protocol -> what pip installs to read it."""

Answer = TypeVar("Answer")


class RemotePath(str):
    """The URL of a directory or file; `/` appends a name, as with a Path."""

    __slots__ = ()

    def __truediv__(self, name: str) -> "RemotePath":
        """Of a URL in a URL, as of a folder in an archive (`zip://rollouts::s3://bucket/file.zip`), below the first that has a
        path."""
        before, mark, rest = self.partition("://")
        path, inside, outer = rest.partition("::")
        slash = "" if not path or path.endswith("/") else "/"
        return RemotePath(f"{before}{mark}{path}{slash}{name}{inside}{outer}")

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.rpartition("/")[2]

    def absolute(self) -> "RemotePath":
        """Itself: a URL means the same from everywhere."""
        return self


def parse_url(text: str) -> RemotePath:
    """The URL of a directory; raises ConfigError if it names none, or has a password in it."""
    scheme, _, rest = text.partition("://")
    if not scheme or not rest.strip("/"):
        raise ConfigError("names no directory", where=text, remedy="give the whole URL of one, such as s3://bucket/rollouts")
    if any(":" in part.partition("://")[2].partition("/")[0].rpartition("@")[0] for part in text.split("::")):
        raise ConfigError(
            "has a password in it, which messages would show",
            where=f"{scheme}://…",
            remedy="give it as the filesystem's package reads it (its environment variables or files)",
        )
    return RemotePath(text.rstrip("/"))


def is_protocol(name: str) -> bool:
    """Whether fsspec knows a protocol of this name."""
    import fsspec

    return name in fsspec.available_protocols()


def size(path: RemotePath) -> int | None:
    """A file's size in bytes; None if there is no file. Raises NotReadable, RemoteFailed, PackageMissing, ConfigError."""
    try:
        num_bytes = _ask(path, lambda filesystem, inner: filesystem.info(inner))["size"]
    except FileNotFoundError:
        return None
    if num_bytes is None:
        raise RemoteFailed("the server does not tell its size", where=path, remedy="serve the dataset from one that does")
    return int(num_bytes)


def stream(path: RemotePath) -> BinaryIO:
    """The whole file, in memory; raises FileNotFoundError, NotReadable, RemoteFailed."""
    try:
        return io.BytesIO(RemoteFile(path).read_all())
    except ShardDamaged as error:
        raise FileNotFoundError(str(path)) from error


class RemoteFile:
    """A file behind a URL, to be read in parts. It holds no connection; what it has read ahead is freed with it."""

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._num_bytes: int | None = None
        self._blocks: dict[int, bytes] = {}
        self._pieces: list[tuple[int, bytes]] = []

    @property
    def num_bytes(self) -> int:
        """The file's size, asked for once; raises ShardDamaged if there is no such file, RemoteFailed."""
        if self._num_bytes is None:
            if (num_bytes := size(self._path)) is None:
                raise missing(self._path)
            self._num_bytes = num_bytes
        return self._num_bytes

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer where the file ends; raises ShardDamaged, RemoteFailed."""
        if (piece := self._held(offset, size)) is not None:
            return piece
        first = offset // BLOCK_BYTES * BLOCK_BYTES
        if size > SMALL_BYTES or offset + size > first + BLOCK_BYTES:
            return self._fetch([(offset, size)])[0]
        block = self._blocks.get(first)
        if block is None:
            (block,) = self._fetch([(first, min(BLOCK_BYTES, max(self.num_bytes - first, 0)))])
            if len(self._blocks) == MAX_BLOCKS:
                self._blocks = {}
            self._blocks[first] = block
        return block[offset - first : offset - first + size]

    def read_all(self) -> bytes:
        """The whole file, several pieces at once; raises RemoteFailed if bytes are missing, ShardDamaged if it is gone."""
        total = self.num_bytes
        starts = range(0, total, PIECE_BYTES)
        parts: list[bytes] = []
        for first in range(0, len(starts), PIECES_AT_ONCE):
            group = starts[first : first + PIECES_AT_ONCE]
            parts += self._fetch([(start, min(PIECE_BYTES, total - start)) for start in group])
        content = b"".join(parts)
        if len(content) < total:
            raise RemoteFailed(
                f"gave {len(content)} of its {total} bytes", where=self._path, remedy="run the same command again"
            )
        return content

    def ahead(self, places: Callable[[], np.ndarray]) -> None:
        """Fetch the parts that `places` gives, int64 (n, 2) of offset and size: all at once, neighbours in one request.

        Does nothing if all parts but one are held already; otherwise frees what an earlier call fetched. Raises as `read` does.
        """
        wanted = sorted((offset, size) for offset, size in places().tolist() if self._held(offset, size) is None)
        if len(wanted) > 1:
            requests = list(_merged(wanted))
            self._pieces = [(offset, part) for (offset, _), part in zip(requests, self._fetch(requests), strict=True)]

    def close(self) -> None:
        """Free what was read ahead; may be called again."""
        self._pieces, self._blocks = [], {}

    def _held(self, offset: int, size: int) -> bytes | None:
        for start, piece in self._pieces:
            if start <= offset and offset + size <= start + len(piece):
                return piece[offset - start : offset - start + size]
        return None

    def _fetch(self, parts: list[tuple[int, int]]) -> list[bytes]:
        """The parts with these offsets and sizes, shorter where the file ends."""
        starts = [offset for offset, size in parts if size]
        stops = [offset + size for offset, size in parts if size]
        try:
            found = iter(_ask(self._path, lambda filesystem, inner: _contents(filesystem, inner, starts, stops)))
        except FileNotFoundError:
            raise missing(self._path) from None
        contents = [next(found) if size else b"" for _, size in parts]
        for (offset, size), content in zip(parts, contents, strict=True):
            if len(content) > size:
                raise RemoteFailed(
                    f"gave {len(content)} bytes where {size} from {offset} on were asked for",
                    where=self._path,
                    remedy="serve the dataset from a server with range requests, or copy it here",
                )
        return contents


def _contents(filesystem: Any, path: str, starts: list[int], stops: list[int]) -> list[bytes]:
    """Several parts of one file, requested at once if the filesystem can; raises the error of the first that failed."""
    found = filesystem.cat_ranges([path] * len(starts), starts, stops, on_error="return") if starts else []
    for content in found:
        if isinstance(content, BaseException):
            raise content
    return found


def _merged(parts: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ascending (offset, size), with neighbours merged."""
    start, size = parts[0]
    stop = start + size
    for offset, size in parts[1:]:
        if offset > stop + GAP_BYTES or max(stop, offset + size) > start + PIECE_BYTES:
            yield start, stop - start
            start, stop = offset, offset
        stop = max(stop, offset + size)
    yield start, stop - start


def _ask(path: RemotePath, question: Callable[[Any, str], Answer]) -> Answer:
    """The answer of a path's filesystem, asked up to three times.

    The filesystem is looked up again each time (fsspec keeps one for each process), because none survives a fork. Raises
    FileNotFoundError, NotReadable, ShardDamaged, RemoteFailed, PackageMissing, ConfigError.
    """
    for pause in (*PAUSES, None):
        try:
            filesystem, inner = _filesystem(path)
            return question(filesystem, inner)
        except WorldModelError:
            raise
        except Exception as error:  # whatever the filesystem's package raises
            failure = _meant(path, error)
        if pause is None or not isinstance(failure, RemoteFailed):
            raise failure
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _filesystem(path: RemotePath) -> tuple[Any, str]:
    """The filesystem of a URL, and the path there."""
    import fsspec

    protocol = path.partition("://")[0]
    try:
        return fsspec.url_to_fs(str(path))
    except ImportError as error:
        package = PACKAGES.get(protocol.rpartition("::")[2])
        remedy = f"pip install {package}" if package else "add it with pip"
        raise PackageMissing(
            f"{protocol}:// needs a package that is not installed: {error}", where=path, remedy=remedy
        ) from None
    except ValueError as error:
        with suppress(ImportError):
            if not is_protocol(protocol.rpartition("::")[2]):
                raise ConfigError(
                    f"unknown protocol {protocol!r}", where=path, remedy="give a path, or a URL that fsspec knows"
                ) from None
        raise ConfigError(f"not a URL of {protocol}:// ({error})", where=path, remedy="give one that is") from None


def _meant(path: RemotePath, error: Exception) -> Exception:
    """The error to raise for a filesystem's error."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and _is_of_a_connection(cause):
        error = cause  # fsspec's HTTP reports every failure as a missing file
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return FileNotFoundError(str(path))
    if isinstance(error, PermissionError) or status in (401, 403):
        return NotReadable(f"cannot be read ({one_line(error)})", where=path, remedy="give yourself the right to read it")
    if status == 416:
        return ShardDamaged("ends before the bytes that were asked for", where=path, remedy=REMEDY)
    return RemoteFailed(
        f"cannot be reached ({one_line(error)})", where=path, remedy="look at the network and the server, then run again"
    )


def _is_of_a_connection(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "aiohttp"
