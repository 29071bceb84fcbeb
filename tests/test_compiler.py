"""Whoever waits for the compiler is told so, once."""

import sys
import threading

import numba
import pytest

from tests.test_ray_pool import Sayings
from worldmodel_v.compiler import compilation_told, njit


def compile_something() -> None:
    assert numba.njit(lambda x: x + 1)(1) == 2


def test_compiling_is_told_once_from_whatever_thread() -> None:
    progress = Sayings()
    with compilation_told(progress):
        assert progress.events == []
        for _ in range(2):
            thread = threading.Thread(target=compile_something)
            thread.start()
            thread.join()
            assert progress.events == [("compiling", {})]
    another = Sayings()
    with compilation_told(another):
        pass
    compile_something()
    assert (progress.events, another.events) == ([("compiling", {})], [])


def test_what_is_there_already_is_not_compiled() -> None:
    function = njit()(lambda x: x + 2)
    assert function(1) == 3
    progress = Sayings()
    with compilation_told(progress):
        assert function(1) == 3
    assert progress.events == []


def test_without_numba_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba.core", None)
    progress = Sayings()
    with compilation_told(progress):
        pass
    assert progress.events == []
