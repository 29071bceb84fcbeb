"""A directory that exists complete or not at all: what an export writes.

It is built in a hidden folder beside its place, synced, and renamed. The hidden folder's name is the same each time. A lock in
it keeps two runs apart, and tells a run what killed runs left beside its place, which it removes. Rejected: building in place
and writing a last file that says "finished", because exports are made for other people's loaders, which do not look for one.

Some checkouts hold an empty folder by a `.gitignore` in it. If the caller allows this name, the file is linked into what was
built, and the two folders change places in one step, so the file is there at every moment.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from worldmodel_v.errors import DatasetBusy, NotAFile, OutputNotUsable, WriteFailed
from worldmodel_v.steps import Step, reached
from worldmodel_v.storage import files
from worldmodel_v.storage.exchange import CANNOT, exchange
from worldmodel_v.storage.lock import Lock, lock_directory
from worldmodel_v.storage.publish import TEMPORARY_PREFIX, sync_folder, temporary_path

BUILDING_NAME = "building"


def require_new(out: Path, keeps: tuple[str, ...] = ()) -> None:
    """Raise OutputNotUsable unless `out` is absent, or a directory that holds at most files of `keeps`. Writes nothing."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputNotUsable("is a file", where=out, remedy="give a directory that is new or empty")
    if names := sorted(item.name for item in out.iterdir() if item.name not in keeps or not _is_plain(item)):
        raise OutputNotUsable(
            f"holds {names[0]!r} already, and an export is never mixed with anything else",
            where=out,
            remedy="give a directory that is new or empty",
        )


def _is_plain(item: Path) -> bool:
    return item.is_file() and not item.is_symlink()


@contextmanager
def new_directory(out: Path, keeps: tuple[str, ...] = ()) -> Iterator[Path]:
    """An empty folder to build in. It becomes `out` when the block ends, and is deleted if the block raises.

    Files of `out` that are named in `keeps` stay in it. Raises OutputNotUsable or DatasetBusy (another process builds there)
    before the block, and WriteFailed for any OSError in the block or after it.
    """
    require_new(out, keeps)
    place = out.resolve()
    hidden = temporary_path(place)
    lock = _lock(hidden, out)
    try:
        require_new(out, keeps)
        building = hidden / BUILDING_NAME
        files.remove_all(building)
        _remove_killed(place.parent)
        files.make_folder(building)
        reached(Step.FOLDER_BEGUN)
        yield building
        reached(Step.FOLDER_FILLED)
        _sync(building)
        lock.require_own()
        undo = _put(building, place, keeps)
        reached(Step.FOLDER_NAMED)
        try:
            sync_folder(place.parent, inside=place.parent)
        except OSError:  # what is told to have failed is not there
            undo()
            raise
    except NotAFile:
        raise
    except OSError as error:
        raise WriteFailed(
            f"could not write ({error.strerror or error}); nothing half-written is visible",
            where=out,
            remedy="mend the cause and run the same command again",
        ) from error
    finally:
        _remove(hidden)
        lock.close()
        reached(Step.TEMPORARY_REMOVED)


def _put(building: Path, place: Path, keeps: tuple[str, ...]) -> Callable[[], None]:
    """Make `building` be `place`, with the files that stay there; returns what undoes it."""
    staying = [name for name in keeps if (place / name).exists()]
    if not staying:
        building.rename(place)  # over an empty directory, if there is one
        return lambda: _remove(place)
    for name in staying:
        files.link_into(place / name, building)
    sync_folder(building, inside=building)
    _exchange(building, place, staying)
    return lambda: exchange(building, place)


def _exchange(building: Path, place: Path, staying: list[str]) -> None:
    try:
        exchange(building, place)
    except OSError as error:
        if error.errno not in CANNOT:
            raise
        raise OutputNotUsable(
            f"holds {staying[0]!r}, and this system cannot exchange two folders in one step",
            where=place,
            remedy="give a new directory, and copy its content there",
        ) from None
    if sorted(item.name for item in building.iterdir()) != sorted(staying):  # something came into it in the meantime
        exchange(building, place)
        require_new(place, tuple(staying))


def _lock(hidden: Path, out: Path) -> Lock:
    try:
        lock = lock_directory(hidden, inside=hidden.parent)
    except OutputNotUsable as error:
        raise OutputNotUsable(error.what, **error.parts | {"where": out}) from None
    except DatasetBusy:
        raise _busy(out) from None
    try:
        lock.require_own()
    except DatasetBusy:  # its holder finished between our opening and locking it
        lock.close()
        raise _busy(out) from None
    return lock


def _busy(out: Path) -> DatasetBusy:
    return DatasetBusy("another process is writing there", where=out, remedy="wait for it or stop it, then run again")


def _remove_killed(folder: Path) -> None:
    """Remove the hidden folders of killed runs; those that a process works in, or that cannot be removed, stay."""
    for building in folder.glob(f"{TEMPORARY_PREFIX}{'[0-9a-f]' * 16}/{BUILDING_NAME}"):
        with suppress(DatasetBusy, NotAFile, OutputNotUsable), closing(lock_directory(building.parent, inside=folder)):
            _remove(building.parent)


def _remove(folder: Path) -> None:
    """Delete a folder as far as that goes, with a second try for what fails once."""
    for _ in range(2):
        with suppress(OSError):
            files.remove_all(folder)


def _sync(folder: Path) -> None:
    """Make every file and folder below durable."""
    for item in folder.iterdir():
        if item.is_dir():
            _sync(item)
        else:
            with files.open_stream(item) as file:
                os.fsync(file.fileno())
            reached(Step.TEMPORARY_SYNCED)
    sync_folder(folder, inside=folder)
