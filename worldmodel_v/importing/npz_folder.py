"""A folder with one `.npz` for each episode: what several formats have in common."""

from collections.abc import Collection, Container, Iterable
from pathlib import Path

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.importing.episode_files import as_counted
from worldmodel_v.importing.npz_files import Header, read_headers
from worldmodel_v.importing.recording import Recording, further
from worldmodel_v.importing.source_files import files_below
from worldmodel_v.storage.reading import readable


class NpzFolder(Recording):
    """Its episodes are its files, in the order of their names, numbers in these by their value."""

    def __init__(self, root: Path, *, required: Iterable[str], below: bool = False) -> None:
        """Every file's headers are read. With `below`, files in folders below count too. Raises DatasetNotUsable if there is
        no file, or if one lacks a `required` array."""
        self.root = root
        self.files = npz_files(root, below=below)
        self.num_episodes = len(self.files)
        self._headers: dict[str, Header] = {}
        for path in self.files:
            headers = read_headers(path)
            _require(path, headers, required)
            self._headers = headers | self._headers

    def left_out(self, used: Container[str], without: Collection[str]) -> tuple[str, ...]:
        """A note on each array, in any file, that is not used; raises ConfigError if one of `without`, which the user leaves
        out, is not there, or is no further one."""
        names = further((name for name in self._headers if name not in used), without, self.root)
        return tuple(f"{name}: left out ({self._headers[name]})" for name in names)

    def where(self, number: int) -> str:
        """The file."""
        return str(self.files[number])


@readable()
def npz_files(root: Path, *, below: bool = False) -> tuple[Path, ...]:
    """The `.npz` files of a folder, or the one file that is named; raises DatasetNotUsable if there is none."""
    if root.is_file():
        return (root,)
    if not root.is_dir():
        raise DatasetNotUsable("no such directory", where=root, remedy="give the directory of the recording")
    found = files_below(root) if below else root.iterdir()
    files = tuple(sorted((path for path in found if is_npz(path)), key=lambda path: as_counted(path.as_posix())))
    if not files:
        raise DatasetNotUsable("holds no .npz file", where=root, remedy="give the directory of the recording")
    return files


def is_npz(path: Path) -> bool:
    """Whether it is a file that is called so, and not hidden."""
    return path.suffix.lower() == ".npz" and not path.name.startswith(".") and path.is_file()


def _require(path: Path, headers: dict[str, Header], required: Iterable[str]) -> None:
    for name in required:
        if name not in headers:
            held = ", ".join(headers) or "none"
            raise DatasetNotUsable(where=path, expected=f"an array {name!r}", got=f"the arrays {held}")
