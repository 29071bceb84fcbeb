"""A directory that is there whole or not at all: what an export writes.

It is built in a folder beside its place, `.tmp-NAME`, synced, and renamed. The folder's name is the same each time, so that
a run finds and clears what a killed one left behind, and a lock in it keeps two runs apart. Rejected: building in place and
writing a last file that says "finished", since other people's loaders, for which exports are made, do not look for one.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldmodel_v.errors import DatasetBusy, DirectoryNotEmpty, NotADataset, WriteFailed
from worldmodel_v.storage.lock import LOCK_NAME, lock_directory
from worldmodel_v.storage.publish import TEMPORARY_PREFIX, sync_folder


def require_new(out: Path) -> None:
    """Raise DirectoryNotEmpty unless `out` is absent or an empty directory. Writes nothing."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DirectoryNotEmpty(f"{out}: is a file; give a directory that is new or empty")
    if names := sorted(item.name for item in out.iterdir()):
        raise DirectoryNotEmpty(
            f"{out}: holds {names[0]!r} already, and an export is never mixed with anything else; "
            "give a directory that is new or empty"
        )


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """An empty folder to build in; it becomes `out` where the block ends, and is gone without a trace where the block raises.

    Raises DirectoryNotEmpty, NotADataset (the place cannot be written to) or DatasetBusy (another process builds there) before
    the block, and WriteFailed for any OSError in the block or after it.
    """
    require_new(out)
    place = out.resolve()
    building = place.with_name(TEMPORARY_PREFIX + place.name)
    descriptor = _lock(building, out)
    try:
        require_new(out)
        _clear(building)
        yield building
        _sync(building)
        building.rename(place)  # over an empty directory, if there is one
        (place / LOCK_NAME).unlink()
        sync_folder(place.parent)
    except OSError as error:
        raise WriteFailed(
            f"{out}: could not write ({error.strerror or error}); nothing half-written is visible; "
            "mend the cause and run the same command again"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
        os.close(descriptor)


def _lock(building: Path, out: Path) -> int:
    try:
        descriptor = lock_directory(building)
    except NotADataset as error:
        raise NotADataset(str(error).replace(str(building), str(out), 1)) from None
    except DatasetBusy:
        raise _busy(out) from None
    if not _is_still_there(descriptor, building / LOCK_NAME):  # its holder finished between our opening and locking it
        os.close(descriptor)
        raise _busy(out)
    return descriptor


def _busy(out: Path) -> DatasetBusy:
    return DatasetBusy(f"{out}: another process is writing there; wait for it or stop it, then run again")


def _is_still_there(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _clear(building: Path) -> None:
    """Remove what a killed run left, but for the lock."""
    for item in building.iterdir():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        elif item.name != LOCK_NAME:
            item.unlink()


def _sync(folder: Path) -> None:
    """Make every file and folder below durable."""
    for item in folder.iterdir():
        if item.is_dir():
            _sync(item)
        else:
            with item.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
