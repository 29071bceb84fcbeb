"""numba's compiler, which caches compiled code on disk if there is a folder for it.

numba caches code beside the module, else below the user's home (or in NUMBA_CACHE_DIR). If it may write to none of them, as in
a container with a read-only file system, numba alone would refuse to compile. Here each process then compiles again: one second
for the resizing of frames, about twenty more for the fast CarRacing. The same happens if the disk is full. Rejected: a folder
in /tmp, where others could leave code.

Our functions ignore NUMBA_DISABLE_JIT, which is for debugging one's own functions: as Python, ours would take hours, and some
could not run at all. A NUMBA_NUM_THREADS below 1, with which numba cannot be imported, is ignored.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from worldmodel_v.interrupts import deferred_interrupts
from worldmodel_v.progress import Progress

with suppress(KeyError, ValueError):
    if int(os.environ["NUMBA_NUM_THREADS"]) < 1:
        del os.environ["NUMBA_NUM_THREADS"]


def njit(**options: Any) -> Callable[[Callable], Callable]:
    """A decorator: `numba.njit(cache=True, **options)` with a `KernelCache`, or without a cache if there is no folder."""

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
    """Within the block, the first compilation of a function that is not on disk yet is reported, and interruptions wait until
    a function is compiled: LLVM calls Python back, and an exception there would be lost."""
    try:
        from numba.core import event
    except ImportError:  # without numba nothing is compiled
        yield
        return

    class Watcher(event.Listener):
        told = False
        depth = 0  # compiling a function begins to compile the functions that it calls

        def on_start(self, event: Any) -> None:
            if not self.told:
                progress.event("compiling", "compiling for this machine, which takes up to a minute at the first use")
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
