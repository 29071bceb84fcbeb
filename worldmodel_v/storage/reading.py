"""The right to read: a file that is withheld from this process is not damaged, and nobody shall be told to delete it."""

from collections.abc import Iterator
from contextlib import contextmanager

from worldmodel_v.errors import NotReadable


@contextmanager
def readable() -> Iterator[None]:
    """Raise NotReadable, naming the file, where the system does not let this process read one in the block."""
    try:
        yield
    except PermissionError as error:
        raise NotReadable(f"{error.filename}: cannot be read ({error.strerror}); give yourself the right to read it") from None
