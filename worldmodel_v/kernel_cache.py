"""numba's cache on disk, safe for processes that compile at the same time, are killed, or find the disk full.

numba writes the index (which file holds the machine code for which arguments and processor) before the code itself. It numbers
the code files from 1 again when the source has changed, and takes no lock. So two processes can both write code file 1. And a
process that is killed in between leaves an index that points to a file of the old source: the next process runs this old code,
without any error.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache

LOCK_NAME = "worldmodel_v.lock"
BELOW_THE_HOME = ("UserWide", "Zip")
"""Parts of the names of numba's classes that look for a folder below the home."""


class _Places(FunctionCache._impl_class):
    """Where numba looks for a folder. Not below the home if there is none: numba would make a folder `~` where it runs."""

    def __init__(self, function: Any) -> None:
        if not _has_a_home():
            places: list[type] = FunctionCache._impl_class._locator_classes
            self._locator_classes = [cls for cls in places if not any(name in cls.__name__ for name in BELOW_THE_HOME)]
        super().__init__(function)


def _has_a_home() -> bool:
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(Path.home() if given is None else given).is_absolute()
    except RuntimeError:  # no HOME, and a user without an entry in passwd
        return False


class KernelCache(FunctionCache):
    """One function's machine code on disk. Unreadable code counts as missing; code that cannot be kept is compiled again."""

    _impl_class = _Places

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What numba compiled for these arguments and this processor before, or None."""
        with contextlib.suppress(Exception):  # unpickling what a lost write left can raise any error
            return super().load_overload(sig, target_context)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, unless the disk is full."""
        with contextlib.suppress(OSError), self._alone():
            self._forget_what_is_stale()
            super().save_overload(sig, data)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        folder = Path(self.cache_path)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK_NAME).open("w") as lock:
            with contextlib.suppress(OSError):  # of a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _forget_what_is_stale(self) -> None:
        """If the index is torn or of another source, remove its code files: their names are about to be used again."""
        index = self._cache_file
        with contextlib.suppress(Exception):
            if index._load_index():
                return
        first = Path(index._data_path(index._data_name(1)))
        for code in first.parent.iterdir():
            if code.suffix == first.suffix and code.name.startswith(first.name.removesuffix("1.nbc")):
                code.unlink(missing_ok=True)
        Path(index._index_path).unlink(missing_ok=True)
