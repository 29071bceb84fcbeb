"""What is said of a file that cannot be read. One that is withheld from this process is not damaged: nobody shall delete it."""

from collections.abc import Iterator
from contextlib import contextmanager

from worldmodel_v.errors import NotReadable

REMEDY = "restore the shard from a copy, or delete the file and its line in index.jsonl and run the stage again"


def missing(path: object) -> str:
    """What is said of a shard that is not there."""
    return f"{path}: the shard is missing; restore it from a copy, or delete its line in the index"


@contextmanager
def readable() -> Iterator[None]:
    """Raise NotReadable, naming the file, where the system does not let this process read one in the block."""
    try:
        yield
    except PermissionError as error:
        raise NotReadable(f"{error.filename}: cannot be read ({error.strerror}); give yourself the right to read it") from None
