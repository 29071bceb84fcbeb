"""Ctrl-C and SIGTERM: how a command hears them, and how they wait for a safe moment.

Outside the main thread, where Python allows no signal handlers, nothing here changes anything.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

EXIT_INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_UNTIL_RAISED_AGAIN = 0.01


@contextmanager
def handlers_restored() -> Iterator[None]:
    """At the end of the block the handlers of both signals are what they were before it, whoever replaced them.

    They are set anew in any case, since native code replaces them without Python's knowing.
    """
    if not _in_main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # which stands for one of native code's own
                signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGTERM interrupts as Ctrl-C does, and a second one of either leaves at once, cleaning up nothing.

    An interruption that falls into a destructor or a callback, from where Python lets no exception out (HDF5's bindings are in
    one most of the time), is raised again a moment later.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        _handle_with(lambda *_: os._exit(EXIT_INTERRUPTED))
        raise KeyboardInterrupt

    with handlers_restored(), _raised_again_if_lost():
        _handle_with(interrupt)
        yield


@contextmanager
def _raised_again_if_lost() -> Iterator[None]:
    if not _in_main_thread():
        yield
        return

    def raise_again(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    def on_unraisable(lost: "sys.UnraisableHookArgs") -> None:
        if lost.exc_type is not KeyboardInterrupt:
            hook(lost)
            return
        signal.signal(signal.SIGALRM, raise_again)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_UNTIL_RAISED_AGAIN)

    hook, handler = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    sys.unraisablehook = on_unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        if signal.getsignal(signal.SIGALRM) is raise_again:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """Within the block, the first SIGINT or SIGTERM only makes the yielded function return True; a second one interrupts.

    So a step is never cut in half, and an impatient person can still leave. A first one that came too late to be asked for
    interrupts at the end of the block, so that a command leaves with 130 either way.
    """
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    with handlers_restored():
        _handle_with(on_signal)
        yield lambda: bool(received)
    if received:
        raise KeyboardInterrupt


def _handle_with(handler: Callable[[int, FrameType | None], object]) -> None:
    if _in_main_thread():
        for number in SIGNALS:
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
