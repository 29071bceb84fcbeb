"""Putting bytes on disk so that a file exists complete or not at all.

A file is written under a temporary name and synced. Then it is put in place, and its folder is synced. Shards are put in place
with `link`, which never overwrites; files that are meant to be replaced (checkpoints, pictures) with `rename`. `inside` is the
directory that the user named, as in `files`.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worldmodel_v.errors import NotAFile, WriteFailed
from worldmodel_v.steps import Step, reached
from worldmodel_v.storage import files

TEMPORARY_PREFIX = ".tmp-"


def publish_new(path: Path, content: bytes, inside: Path | None = None) -> None:
    """Put `content` at `path`, which must not exist; raises FileExistsError if it does, WriteFailed if the disk fails."""
    temporary = _write_temporary(path, content, inside)
    try:
        with named_failure(path):
            files.link(temporary, path, inside)
            reached(Step.LINKED)
            _sync_folder_of(path, inside)
    finally:
        files.remove(temporary, inside)
        reached(Step.TEMPORARY_REMOVED)


def publish(path: Path, content: bytes, inside: Path | None = None) -> None:
    """Put `content` at `path` in one step, replacing what is there; raises WriteFailed if the disk fails."""
    temporary = _write_temporary(path, content, inside)
    try:
        with named_failure(path):
            files.replace(temporary, path, inside)
            reached(Step.REPLACED)
            _sync_folder_of(path, inside)
    finally:
        files.remove(temporary, inside)


def append_line(path: Path, line: str) -> None:
    """Append one line and sync it; raises WriteFailed (the next reader drops a torn line)."""
    with named_failure(path), files.open_stream(path, "ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()
        reached(Step.LINE_WRITTEN)
        os.fsync(file.fileno())
    reached(Step.LINE_SYNCED)


def remove(path: Path, inside: Path | None = None) -> None:
    """Delete a file, if it is there; raises WriteFailed."""
    with named_failure(path):
        files.remove(path, inside)


def temporary_path(path: Path, whose: str = "") -> Path:
    """The hidden path beside `path` where its content is built; the same each time.

    The name is a hash, because `path`'s own name may be as long as the system allows.
    """
    return path.with_name(TEMPORARY_PREFIX + whose + hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest())


def is_temporary(path: Path) -> bool:
    """Whether a file is what a killed writer left under a temporary name."""
    return path.name.startswith(TEMPORARY_PREFIX)


def remove_temporaries(folder: Path, inside: Path) -> None:
    """Delete what a killed writer left under a temporary name in a folder of the directory `inside`."""
    with named_failure(folder):
        names = files.names(folder, inside)
    for name in names:
        if is_temporary(folder / name):
            remove(folder / name, inside)


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
        with suppress(OSError):
            files.remove(temporary, inside)
        raise
    return temporary


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
