"""Ctrl-C, SIGTERM and SIGHUP: how a command handles them, and how they wait for a safe moment.

SIGHUP, which tells of a closed terminal, is handled as SIGTERM is, unless it is ignored, as under `nohup`. Outside the main
thread, where Python allows no signal handlers, this module changes nothing.
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
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_UNTIL_RAISED_AGAIN = 0.01


@contextmanager
def handlers_restored() -> Iterator[None]:
    """At the end of the block, the handlers of these signals are as before it, whatever replaced them.

    They are always set again, because native code can replace them without Python's knowledge.
    """
    if not _in_main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # None stands for a handler of native code
                signal.signal(number, handler)


@contextmanager
def alarm_restored() -> Iterator[None]:
    """At the end of the block, SIGALRM's handler is as before it, and its timer is off if it was.

    An alarm that other people's code leaves behind would come in the middle of ours. One that raises a lost interruption stays.
    """
    if not _in_main_thread():
        yield
        return
    handler, was_off = signal.getsignal(signal.SIGALRM), not any(signal.getitimer(signal.ITIMER_REAL))
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGALRM) is not _raise_again:
            if was_off:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if handler is not None:
                signal.signal(signal.SIGALRM, handler)


def interruptions_ignored() -> None:
    """From now on, this process leaves Ctrl-C to the one that it works for; its child processes do not."""
    if _in_main_thread():
        signal.signal(signal.SIGINT, _ignore)


def is_interruption(error: BaseException) -> bool:
    """Whether an error is the user's Ctrl-C, and not a KeyboardInterrupt that an environment raises in a worker."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not _ignore


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP interrupt as Ctrl-C does. A second signal ends the process without cleanup. An
    interruption that is lost is raised again."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        _handle_with(lambda *_: os._exit(EXIT_INTERRUPTED))
        raise KeyboardInterrupt

    with handlers_restored(), raised_again_if_lost():
        _handle_with(interrupt)
        yield


@contextmanager
def raised_again_if_lost() -> Iterator[None]:
    """Within the block, an interruption that Python has lost is raised again a moment later.

    Python loses an exception that is raised in a destructor or a callback, and HDF5's bindings are in one most of the time.
    """
    if not _in_main_thread():
        yield
        return

    def on_unraisable(lost: "sys.UnraisableHookArgs") -> None:
        if lost.exc_type is not KeyboardInterrupt:
            hook(lost)
            return
        signal.signal(signal.SIGALRM, _raise_again)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_UNTIL_RAISED_AGAIN)

    hook, handler = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    sys.unraisablehook = on_unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        if signal.getsignal(signal.SIGALRM) is _raise_again:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)


def _raise_again(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """Within the block, the first of the signals only makes the yielded function return True; a second one interrupts.

    So a step is never cut in half, and an impatient user can still leave. After a first signal, the end of the block raises
    KeyboardInterrupt, even if the function was not called after it, so that a command ends with 130 either way.
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
    if not _in_main_thread():
        return

    def after_closing(number: int, frame: FrameType | None) -> None:
        _leave_closed_terminals()
        handler(number, frame)

    for number in SIGNALS:
        if number != signal.SIGHUP:
            signal.signal(number, handler)
        elif signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, after_closing)


def _leave_closed_terminals() -> None:
    """From now on, what is printed to a closed terminal goes nowhere; printing there would fail."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
