"""The files of a directory that may come from a stranger: how each is opened, listed, made, renamed and removed.

No symbolic link is followed. The last part of a path is opened from its folder (`openat`) with O_NOFOLLOW, and so is every
part below `inside`, the directory that the user named. `inside` itself and what is above it are the user's own and may be
links; where it is not given, it is the path's folder. Only regular files are opened, without waiting: a pipe, a device, a
socket or a folder in a file's place raises `NotAFile`. All functions raise OSError, which names the whole path.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from worldmodel_v.errors import NotAFile

_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}
_EXPECTED = {stat.S_IFREG: "the file itself", stat.S_IFDIR: "the folder itself"}


def open_file(path: Path, flags: int = os.O_RDONLY, inside: Path | None = None) -> int:
    """The descriptor of a regular file; what it creates may be read by all. Raises NotAFile."""
    with _folder_of(path, inside) as folder:
        try:
            descriptor = os.open(path.name, flags | _SAFELY, 0o644, dir_fd=folder)
        except OSError:
            with suppress(FileNotFoundError):
                _require(path, os.lstat(path.name, dir_fd=folder).st_mode, stat.S_IFREG)
            raise
        try:
            _require(path, os.fstat(descriptor).st_mode, stat.S_IFREG)
        except NotAFile:
            os.close(descriptor)
            raise
        return descriptor


def open_stream(path: Path, mode: str = "rb", inside: Path | None = None, buffering: int = -1) -> BinaryIO:
    """A regular file as an object: mode "rb", "ab" or "wb" and `buffering` as `open` has them, or "xb", which must not be there
    yet."""
    flags = {
        "rb": os.O_RDONLY,
        "ab": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        "wb": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
        "xb": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    }
    return open(open_file(path, flags[mode], inside), mode.replace("x", "w"), buffering)  # type: ignore[return-value]


def read_file(path: Path, max_bytes: int, inside: Path | None = None) -> bytes:
    """The whole content of a regular file; raises NotAFile, and OSError if it has more than `max_bytes`."""
    with open_stream(path, inside=inside) as file:
        if (num_bytes := os.fstat(file.fileno()).st_size) > max_bytes:
            raise OSError(errno.EFBIG, f"it has {num_bytes} bytes, expected at most {max_bytes}", str(path))
        return file.read()


def size(path: Path, inside: Path | None = None) -> int | None:
    """A regular file's size in bytes, or None if nothing is there; raises NotAFile."""
    try:
        found = lstat(path, inside)
    except FileNotFoundError:
        return None
    _require(path, found.st_mode, stat.S_IFREG)
    return found.st_size


def lstat(path: Path, inside: Path | None = None) -> os.stat_result:
    """What is there: of a link itself, not of what it points to; raises FileNotFoundError if nothing is."""
    with _folder_of(path, inside) as folder:
        return os.lstat(path.name, dir_fd=folder)


def exists(path: Path, inside: Path | None = None) -> bool:
    """Whether anything is there, a link that points nowhere included."""
    try:
        lstat(path, inside)
    except FileNotFoundError:
        return False
    return True


def names(path: Path, inside: Path | None = None) -> list[str]:
    """The names in a folder, sorted; none if the folder is missing. Raises NotAFile if it is a link or no folder."""
    try:
        with _folder(path, inside) as folder:
            return sorted(os.listdir(folder))  # noqa: PTH208 (a descriptor)
    except FileNotFoundError:
        return []


def sizes(path: Path, pattern: re.Pattern[str], inside: Path | None = None) -> dict[str, int]:
    """The sizes in bytes of the files in a folder whose names match; raises NotAFile if what has such a name is none."""
    found = {}
    with _folder(path, inside) as folder, os.scandir(folder) as items:
        for item in items:
            if pattern.fullmatch(item.name):
                status = item.stat(follow_symlinks=False)
                _require(path / item.name, status.st_mode, stat.S_IFREG)
                found[item.name] = status.st_size
    return found


def make_folder(path: Path) -> None:
    """Make a folder, if it is not there; raises NotAFile if a link or something else is."""
    with _folder_of(path, None) as folder, suppress(FileExistsError):
        os.mkdir(path.name, dir_fd=folder)
    with _folder(path, None):
        pass


def link(temporary: Path, path: Path, inside: Path | None = None) -> None:
    """Give a file a second name in the same folder; raises FileExistsError if the name is taken."""
    with _folder_of(path, inside) as folder:
        os.link(temporary.name, path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)


def link_into(path: Path, folder: Path) -> None:
    """Give a file a second name, the same one, in another folder; raises FileExistsError if the name is taken there."""
    with _folder_of(path, None) as source, _folder(folder, None) as target:
        os.link(path.name, path.name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)


def replace(temporary: Path, path: Path, inside: Path | None = None) -> None:
    """Rename a file within its folder, over what is there; a link that is there is replaced, not followed."""
    with _folder_of(path, inside) as folder:
        os.replace(temporary.name, path.name, src_dir_fd=folder, dst_dir_fd=folder)


def remove(path: Path, inside: Path | None = None) -> None:
    """Delete a file, or a link itself, if it is there."""
    with _folder_of(path, inside) as folder, suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=folder)


def remove_all(path: Path) -> None:
    """Delete a folder with everything in it, or whatever else is there; links are deleted and not followed."""
    with _folder_of(path, None) as folder, suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path.name, dir_fd=folder).st_mode):
            shutil.rmtree(path.name, dir_fd=folder)
        else:
            os.unlink(path.name, dir_fd=folder)


def sync_folder(path: Path, inside: Path | None = None) -> None:
    """Make the entries of a folder durable."""
    with _folder(path, inside) as folder:
        os.fsync(folder)


@contextmanager
def _folder_of(path: Path, inside: Path | None) -> Iterator[int]:
    """The folder in which the last part of `path` is, open."""
    with _named(path), _folder(path.parent, path.parent if inside is None else inside) as folder:
        yield folder


@contextmanager
def _folder(path: Path, inside: Path | None) -> Iterator[int]:
    """A folder, open; what is below `inside` (its own folder if None) may be no link."""
    top = path.parent if inside is None else inside
    with _named(path), ExitStack() as opened:
        folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, folder)
        place = top
        for part in path.relative_to(top).parts:
            place /= part
            try:
                folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
            except OSError:
                with suppress(FileNotFoundError):
                    _require(place, os.lstat(part, dir_fd=folder).st_mode, stat.S_IFDIR)
                raise
            opened.callback(os.close, folder)
        yield folder


def _require(path: Path, mode: int, expected: int) -> None:
    if (found := stat.S_IFMT(mode)) != expected:
        raise NotAFile(
            f"is {_KINDS.get(found, 'no file')}",
            where=path,
            expected=_EXPECTED[expected],
            remedy="put it in its place",
        )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an OSError name the whole path, not its last part alone."""
    try:
        yield
    except NotAFile:
        raise
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
