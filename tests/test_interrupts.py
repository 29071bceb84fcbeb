"""The first signal waits for a safe moment, the second does not."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from worldmodel_v.interrupts import deferred_interrupts, interruptible

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def terminal() -> Iterator[None]:
    """These tests are not told to ignore a closed terminal, though pytest may be."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_interrupts(first: signal.Signals, second: signal.Signals) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]

    def block() -> None:
        with deferred_interrupts() as interrupted:
            assert not interrupted()
            os.kill(os.getpid(), first)
            assert interrupted()
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), second)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_nobody_asked_for_interrupts_at_the_end_of_the_block(number: signal.Signals) -> None:
    done = []

    def block() -> None:
        with deferred_interrupts():
            os.kill(os.getpid(), number)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == [True]


def test_outside_the_main_thread_nothing_changes() -> None:
    found: list[object] = []

    def work() -> None:
        with deferred_interrupts() as interrupted:
            found.extend([interrupted(), signal.getsignal(signal.SIGTERM)])

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, before]


class Dying:
    """Whose destructor ends in an exception."""

    def __init__(self, number: signal.Signals | None) -> None:
        self._number = number

    def __del__(self) -> None:
        if self._number is None:
            raise ValueError("a destructor's own")
        signal.raise_signal(self._number)


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interruption_that_a_destructor_swallows_comes_again(number: signal.Signals) -> None:
    numbers = (*SIGNALS, signal.SIGALRM)
    before, swallowed = [signal.getsignal(each) for each in numbers], []

    def block() -> None:
        with interruptible():
            Dying(number)
            swallowed.append(True)
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert swallowed == [True]
    assert [signal.getsignal(each) for each in numbers] == before


def test_what_else_a_destructor_raises_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[type] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(lost.exc_type))
    with interruptible():
        Dying(None)
    assert told == [ValueError]


def test_a_closed_terminal_that_was_to_be_ignored_is_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with deferred_interrupts() as interrupted:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not interrupted()
    with interruptible():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
