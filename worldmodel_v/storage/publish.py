"""Putting bytes on disk so that a file exists complete or not at all.

A file is written under a temporary name and synced. Then it is put in place, and its folder is synced. Shards are put in place
with `link`, which never overwrites; files that are meant to be replaced (checkpoints, pictures) with `rename`. On a file system
without links (vfat, SMB, some FUSE), an empty file takes the name, which fails if there is one, and `rename` replaces it. A
kill between the two leaves the empty file, which no index names, and which the next run removes. `inside` is the directory that
the user named, as in `files`.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from worldmodel_v.errors import ConfigError, NotAFile, WriteFailed
from worldmodel_v.steps import Step, reached
from worldmodel_v.storage import files

TEMPORARY_PREFIX = ".tmp-"
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""How a file system answers that knows no links."""


def require_folder_of(path: Path, **named: Any) -> None:
    """Raise ConfigError, with the parts that name the file, unless the folder is there that it is to be put in."""
    if not path.absolute().parent.is_dir():
        raise ConfigError("its folder is not there", remedy="make it first", **named)


def publish_new(path: Path, content: bytes, inside: Path | None = None) -> None:
    """Put `content` at `path`, which must not exist; raises FileExistsError if it does, WriteFailed if the disk fails."""
    temporary = _write_temporary(path, content, inside)
    try:
        with named_failure(path):
            _put_new(temporary, path, inside)
            reached(Step.LINKED)
            _sync_folder_of(path, inside)
    finally:
        _discard(temporary, inside)
        reached(Step.TEMPORARY_REMOVED)


def _put_new(temporary: Path, path: Path, inside: Path | None) -> None:
    """Give a file its name, which must be free; raises OSError."""
    try:
        files.link(temporary, path, inside)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        files.open_stream(path, "xb", inside).close()
        reached(Step.NAME_TAKEN)
        try:
            files.replace(temporary, path, inside)
        except BaseException:
            _discard(path, inside)
            raise


def publish(path: Path, content: bytes, inside: Path | None = None) -> None:
    """Put `content` at `path` in one step, replacing what is there; raises WriteFailed if the disk fails."""
    temporary = _write_temporary(path, content, inside)
    try:
        with named_failure(path):
            files.replace(temporary, path, inside)
            reached(Step.REPLACED)
            _sync_folder_of(path, inside)
    finally:
        _discard(temporary, inside)


def append_line(path: Path, line: str) -> None:
    """Append one line and sync it; raises WriteFailed; the line is then there as a whole or not at all."""
    with named_failure(path), files.open_stream(path, "ab", buffering=0) as file:
        write_line(file, line)
        reached(Step.LINE_WRITTEN)
        os.fsync(file.fileno())
    reached(Step.LINE_SYNCED)


def remove(path: Path, inside: Path | None = None) -> None:
    """Delete a file, if it is there; raises WriteFailed."""
    with named_failure(path):
        files.remove(path, inside)


def write_line(file: BinaryIO, line: str) -> None:
    """Append one line as `write_record` does."""
    write_record(file, line.encode() + b"\n")


def write_record(file: BinaryIO, record: bytes) -> None:
    """Append to a file that is open for appending, unbuffered; raises OSError, and then takes back what arrived.

    A buffer would write its rest when the file is closed. (A kill can leave a torn line, which readers drop.)
    """
    size, left = os.fstat(file.fileno()).st_size, memoryview(record)
    try:
        while left:
            left = left[file.write(left) :]
    except BaseException:
        with suppress(OSError):
            os.truncate(file.fileno(), size)
        raise


def temporary_path(path: Path, whose: str = "") -> Path:
    """The hidden path beside `path` where its content is built; the same each time.

    The name is a hash, because `path`'s own name may be as long as the system allows.
    """
    return path.with_name(TEMPORARY_PREFIX + whose + hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest())


def is_temporary(path: Path) -> bool:
    """Whether a file is what a killed writer left under a temporary name."""
    return path.name.startswith(TEMPORARY_PREFIX)


def remove_temporaries(folder: Path, inside: Path) -> None:
    """Delete the files that a killed writer left under a temporary name in a folder of the directory `inside`.

    Folders with such names are of exports (`new_directory`).
    """
    with named_failure(folder):
        names = files.names(folder, inside)
    for file in (folder / name for name in names):
        if is_temporary(file) and (file.is_symlink() or not file.is_dir()):
            remove(file, inside)


def sync_folder(folder: Path, inside: Path) -> None:
    """Make the entries of a folder of the directory `inside` durable."""
    files.sync_folder(folder, inside)
    reached(Step.FOLDER_SYNCED)


def _sync_folder_of(path: Path, inside: Path | None) -> None:
    sync_folder(path.parent, path.parent if inside is None else inside)


def _write_temporary(path: Path, content: bytes, inside: Path | None) -> Path:
    temporary = temporary_path(path, f"{os.getpid()}-")
    try:
        with named_failure(path), files.open_stream(temporary, "wb", inside) as file:
            reached(Step.TEMPORARY_OPENED)
            file.write(content)
            file.flush()
            reached(Step.TEMPORARY_WRITTEN)
            os.fsync(file.fileno())
        reached(Step.TEMPORARY_SYNCED)
    except BaseException:  # Ctrl-C too
        _discard(temporary, inside)
        raise
    return temporary


def _discard(file: Path, inside: Path | None) -> None:
    """Delete a file that is of no use; where that fails, the next run does it."""
    with suppress(OSError):
        files.remove(file, inside)


@contextmanager
def named_failure(path: Path) -> Iterator[None]:
    """Turn an OSError into a WriteFailed that names the file; FileExistsError and NotAFile stay what they are."""
    try:
        yield
    except (FileExistsError, NotAFile):
        raise
    except OSError as error:
        raise _write_failed(path, error) from error


def _write_failed(path: Path, error: OSError) -> WriteFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space and run the same command again: it continues from what is committed"
    else:
        remedy = "mend the cause and run the same command again: it continues from what is committed"
    return WriteFailed(
        f"could not write ({error.strerror or error}); nothing half-written is visible", where=path, remedy=remedy
    )
