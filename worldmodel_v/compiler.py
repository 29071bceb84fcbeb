"""numba's compiler, with what it compiled kept on disk wherever there is a folder for it.

numba keeps it beside the module, else below the user's home (or in NUMBA_CACHE_DIR), and refuses to compile at all where it may
write to none of them, as in a container whose file system is read-only. Then each process compiles anew: one second for the
resizing of frames, some twenty more for the fast CarRacing; so it does if the disk is full. Rejected: a folder in /tmp, where
others could leave code.

NUMBA_DISABLE_JIT, which is for finding faults in one's own functions, is not obeyed by ours: as Python they would take hours,
and some could not run at all.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from worldmodel_v.interrupts import deferred_interrupts
from worldmodel_v.progress import Progress


def njit(**options: Any) -> Callable[[Callable], Callable]:
    """A decorator: `numba.njit(cache=True, **options)` with a `KernelCache`, or without a cache where nothing can be kept."""

    import numba

    from worldmodel_v.kernel_cache import KernelCache

    def compiled(function: Callable) -> Callable:
        with _compilation_allowed():
            dispatcher = numba.njit(**options)(function)
        try:
            dispatcher._cache = KernelCache(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
        return dispatcher

    return compiled


@contextmanager
def _compilation_allowed() -> Iterator[None]:
    from numba.core import config

    said, config.DISABLE_JIT = config.DISABLE_JIT, 0
    try:
        yield
    finally:
        config.DISABLE_JIT = said


@contextmanager
def compilation_watched(progress: Progress) -> Iterator[None]:
    """Within it, the first function that is not on disk yet and has to be compiled is told of, and interruptions wait for the
    end of a function: LLVM calls Python back, and what is raised there is lost."""
    try:
        from numba.core import event
    except ImportError:  # then nothing is compiled
        yield
        return

    class Watcher(event.Listener):
        told = False
        depth = 0  # a function's compilation begins that of what it calls

        def on_start(self, event: Any) -> None:
            if not self.told:
                progress.event("compiling", "compiling for this machine, which takes up to half a minute at the first use")
            self.told = True
            if not self.depth:
                deferred.enter_context(deferred_interrupts())
            self.depth += 1

        def on_end(self, event: Any) -> None:
            self.depth -= 1
            if not self.depth:
                deferred.close()

    with ExitStack() as deferred, event.install_listener("numba:compile", Watcher()):
        yield
