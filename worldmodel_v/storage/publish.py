"""Putting bytes on disk so that a file exists complete or not at all.

A file is written under a temporary name and synced. Then it is put in place, and its folder is synced. Shards are put in place
with `link`, which never overwrites; files that are meant to be replaced (checkpoints, pictures) with `rename`.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worldmodel_v.errors import WriteFailed
from worldmodel_v.steps import Step, reached

TEMPORARY_PREFIX = ".tmp-"


def publish_new(path: Path, content: bytes) -> None:
    """Put `content` at `path`, which must not exist; raises FileExistsError if it does, WriteFailed if the disk fails."""
    temporary = _write_temporary(path, content)
    try:
        with named_failure(path):
            os.link(temporary, path)
            reached(Step.LINKED)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        reached(Step.TEMPORARY_REMOVED)


def publish(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step, replacing what is there; raises WriteFailed if the disk fails."""
    temporary = _write_temporary(path, content)
    try:
        with named_failure(path):
            temporary.replace(path)
            reached(Step.REPLACED)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append one line and sync it; raises WriteFailed (the next reader drops a torn line)."""
    with named_failure(path), path.open("ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()
        reached(Step.LINE_WRITTEN)
        os.fsync(file.fileno())
    reached(Step.LINE_SYNCED)


def temporary_path(path: Path, whose: str = "") -> Path:
    """The hidden path beside `path` where its content is built; the same each time.

    The name is a hash, because `path`'s own name may be as long as the system allows.
    """
    return path.with_name(TEMPORARY_PREFIX + whose + hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest())


def is_temporary(path: Path) -> bool:
    """Whether a file is what a killed writer left under a temporary name."""
    return path.name.startswith(TEMPORARY_PREFIX)


def remove_temporaries(folder: Path) -> None:
    """Delete what a killed writer left under a temporary name."""
    for leftover in folder.glob(TEMPORARY_PREFIX + "*"):
        leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    reached(Step.FOLDER_SYNCED)


def _write_temporary(path: Path, content: bytes) -> Path:
    temporary = temporary_path(path, f"{os.getpid()}-")
    try:
        with named_failure(path), temporary.open("wb") as file:
            reached(Step.TEMPORARY_OPENED)
            file.write(content)
            file.flush()
            reached(Step.TEMPORARY_WRITTEN)
            os.fsync(file.fileno())
        reached(Step.TEMPORARY_SYNCED)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            temporary.unlink()
        raise
    return temporary


@contextmanager
def named_failure(path: Path) -> Iterator[None]:
    """Turn an OSError into a WriteFailed that names the file; FileExistsError stays what it is."""
    try:
        yield
    except FileExistsError:
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
