"""Errors about files that cannot be read. A file that this process may not read is not damaged, so nobody should delete it."""

from collections.abc import Iterator
from contextlib import contextmanager

from worldmodel_v.errors import NotReadable, ShardDamaged

REMEDY = "restore the shard from a copy, or delete the file and its line in index.jsonl and run the stage again"


def missing(path: object) -> ShardDamaged:
    """What to raise for a shard that is not there."""
    return ShardDamaged("the shard is missing", where=path, remedy="restore it from a copy, or delete its line in the index")


@contextmanager
def readable() -> Iterator[None]:
    """Raise NotReadable, which names the file, if this process has no permission to read a file in the block."""
    try:
        yield
    except PermissionError as error:
        raise NotReadable(
            f"cannot be read ({error.strerror})", where=error.filename, remedy="give yourself the right to read it"
        ) from None
