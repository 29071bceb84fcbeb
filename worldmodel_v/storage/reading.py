"""Errors about files that cannot be read. Only a failed check is damage: a file that the system does not read may be sound, so
nobody should delete it."""

from collections.abc import Iterator
from contextlib import contextmanager

from worldmodel_v.errors import NotAFile, NotReadable, ReadFailed, ShardDamaged

REMEDY = "restore the shard from a copy, or delete the file and its line in index.jsonl and run the stage again"


def missing(path: object) -> ShardDamaged:
    """What to raise for a shard that is not there."""
    return ShardDamaged("the shard is missing", where=path, remedy="restore it from a copy, or delete its line in the index")


def unread(path: object, error: OSError) -> NotReadable | ReadFailed:
    """What to raise where the system does not read a file: NotReadable without permission, otherwise ReadFailed."""
    what = f"cannot be read ({error.strerror or error})"
    if isinstance(error, PermissionError):
        return NotReadable(what, where=path, remedy="give yourself the right to read it")
    return ReadFailed(what, where=path, remedy="mend the cause and run the same command again: the file itself may be sound")


@contextmanager
def readable(path: object = None) -> Iterator[None]:
    """Raise NotReadable (no permission) or ReadFailed for an OSError in the block; NotAFile stays what it is.

    It names `path`, or the file that the system names.
    """
    try:
        yield
    except NotAFile:
        raise
    except OSError as error:
        raise unread(path or error.filename, error) from None
