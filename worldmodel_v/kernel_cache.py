"""numba's cache on disk, for processes that compile at once, are killed, or find the disk full.

numba writes the index (which machine code is that of which arguments and processor) before the code itself, numbers the files
of code anew when the source has changed, and locks nothing. So two processes can both call their code file 1, and one that is
killed in between leaves an index that points to a file of the old source: the next process runs that, and no error tells of it.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache

LOCK_NAME = "worldmodel_v.lock"


class KernelCache(FunctionCache):
    """One function's machine code on disk. What cannot be read counts as not there; what cannot be kept is compiled again."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What numba compiled for these arguments and this processor before, or None."""
        with contextlib.suppress(Exception):  # unpickling what a lost write left raises anything
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
        """If the index is another source's, or torn, remove the code that it knew, whose names are about to be used anew."""
        index = self._cache_file
        with contextlib.suppress(Exception):
            if index._load_index():
                return
        first = Path(index._data_path(index._data_name(1)))
        for code in first.parent.iterdir():
            if code.suffix == first.suffix and code.name.startswith(first.name.removesuffix("1.nbc")):
                code.unlink(missing_ok=True)
        Path(index._index_path).unlink(missing_ok=True)
