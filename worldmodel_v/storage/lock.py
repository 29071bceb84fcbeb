"""One writer at a time: a lock on a directory that the kernel drops when the process dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldmodel_v.errors import DatasetBusy, NotADataset

LOCK_NAME = ".lock"


def lock_directory(path: Path) -> int:
    """Make a directory, take its lock and return the descriptor that holds it until it is closed.

    Raises NotADataset if the directory cannot be written to, DatasetBusy if another process holds the lock.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise NotADataset(f"{path}: cannot be written to ({error.strerror}); give a directory that can") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DatasetBusy(f"{path}: another process is writing there; wait for it or stop it, then run again") from None
    return descriptor


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """`lock_directory` for the time of a block."""
    descriptor = lock_directory(path)
    try:
        yield
    finally:
        os.close(descriptor)
