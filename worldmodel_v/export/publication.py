"""A directory that appears whole or not at all: it is built as `OUT.partial` and renamed at the end.

Rejected: publishing file by file with a manifest at the end, as datasets do. Other people's loaders read no manifest, so
they would take an interrupted export for a finished one.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldmodel_v.errors import DirectoryTaken, WriteFailed
from worldmodel_v.storage.lock import LOCK_NAME, lock_directory
from worldmodel_v.storage.publish import sync_folder

SUFFIX = ".partial"


def refuse_taken(out: Path) -> None:
    """Raise DirectoryTaken unless `out` is absent or an empty directory. Writes nothing."""
    if out.exists() and not out.is_dir():
        raise DirectoryTaken(f"{out}: is a file; give a directory that is new or empty")
    if out.is_dir() and (there := sorted(item.name for item in out.iterdir())):
        raise DirectoryTaken(f"{out}: is not empty, it holds {there[0]!r}; give a directory that is new or empty")


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Gives a folder to fill, and puts it at `out` when the block is done; if the block fails, nothing is left.

    What a killed predecessor left is removed first. Raises DirectoryTaken, DatasetBusy if another process is at it, and
    WriteFailed for every OSError of the block.
    """
    refuse_taken(out)
    partial = out.absolute().with_name(out.absolute().name + SUFFIX)
    if partial.exists() and not (partial / LOCK_NAME).exists() and any(partial.iterdir()):
        raise DirectoryTaken(f"{partial}: is needed to build {out.name} in, and holds something else; move it away")
    lock = lock_directory(partial)
    try:
        _empty(partial)
        yield partial
        _sync(partial)
        (partial / LOCK_NAME).unlink()
        partial.replace(out)
        sync_folder(out.absolute().parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise WriteFailed(
            f"{out}: could not write ({error.strerror or error}); nothing of it is left; mend the cause and run again"
        ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _empty(partial: Path) -> None:
    for item in partial.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        elif item.name != LOCK_NAME:
            item.unlink()


def _sync(partial: Path) -> None:
    """Make every file and folder below durable."""
    for item in partial.rglob("*"):
        sync_folder(item)
    sync_folder(partial)
