"""numba's compiler, with what it compiled kept on disk wherever there is a folder for it.

numba keeps it beside the module, else below the user's home (or in NUMBA_CACHE_DIR), and refuses to compile at all where it may
write to none of them, as in a container whose file system is read-only. Then each process compiles anew: one second for the
resizing of frames, some twenty more for the fast CarRacing. Rejected: a folder in /tmp, where others could leave code.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from worldmodel_v.progress import Progress


def njit(**options: Any) -> Callable[[Callable], Callable]:
    """A decorator: `numba.njit(cache=True, **options)`, or without the cache where nothing can be kept."""

    import numba

    def compiled(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            return numba.njit(**options)(function)

    return compiled


@contextmanager
def compilation_told(progress: Progress) -> Iterator[None]:
    """Within it, in any thread, the first function that is not on disk yet and has to be compiled is told of."""
    try:
        from numba.core import event
    except ImportError:  # then nothing is compiled
        yield
        return

    class Teller(event.Listener):
        told = False

        def on_start(self, event: Any) -> None:
            if not self.told:
                progress.event("compiling", "compiling for this machine, which takes up to half a minute at the first use")
            self.told = True

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Teller()):
        yield
