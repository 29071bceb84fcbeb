"""numba's compiler, with what it compiled kept on disk wherever there is a folder for it.

numba keeps it beside the module, else below the user's home (or in NUMBA_CACHE_DIR), and refuses to compile at all where it may
write to none of them, as in a container whose file system is read-only. Then each process compiles anew: one second for the
resizing of frames, some twenty more for the fast CarRacing. Rejected: a folder in /tmp, where others could leave code.
"""

from collections.abc import Callable
from typing import Any

import numba


def njit(**options: Any) -> Callable[[Callable], Callable]:
    """A decorator: `numba.njit(cache=True, **options)`, or without the cache where nothing can be kept."""

    def compiled(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            return numba.njit(**options)(function)

    return compiled
