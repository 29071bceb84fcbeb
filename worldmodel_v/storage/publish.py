"""Putting bytes on disk so that a file is there whole or not at all.

A file is written under a temporary name, synced, put in place, and its folder synced. Shards go in place with `link`,
which fails rather than overwrite; files that are meant to be replaced (checkpoints, pictures) go in place with `rename`.
"""

import errno
import os
from pathlib import Path

from worldmodel_v.errors import WriteFailed

TEMPORARY_PREFIX = ".tmp-"


def publish_new(path: Path, content: bytes) -> None:
    """Put `content` at `path`, which must not exist; raises FileExistsError if it does, WriteFailed if the disk fails."""
    temporary = _write_temporary(path, content)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def publish(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step, replacing what is there; raises WriteFailed if the disk fails."""
    temporary = _write_temporary(path, content)
    temporary.replace(path)
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append one line and sync it; raises WriteFailed (the torn line, if any, is dropped by the next reader)."""
    try:
        with path.open("ab", buffering=0) as file:
            file.write(line.encode() + b"\n")
            os.fsync(file.fileno())
    except OSError as error:
        raise _write_failed(path, error) from error


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


def _write_temporary(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _write_failed(path, error) from error
    return temporary


def _write_failed(path: Path, error: OSError) -> WriteFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space and run the same command again: it continues from what is committed"
    else:
        remedy = "mend the cause and run the same command again: it continues from what is committed"
    return WriteFailed(f"{path}: could not write ({error.strerror or error}); nothing half-written is visible; {remedy}")
