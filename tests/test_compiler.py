"""Whoever waits for the compiler is told so, once."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numba
import pytest

from tests.builders import Sayings
from worldmodel_v.compiler import compilation_watched, njit
from worldmodel_v.interrupts import interruptible


def compile_something() -> None:
    assert numba.njit(lambda x: x + 1)(1) == 2


def test_compiling_is_told_once_from_whatever_thread() -> None:
    progress = Sayings()
    with compilation_watched(progress):
        assert progress.events == []
        for _ in range(2):
            thread = threading.Thread(target=compile_something)
            thread.start()
            thread.join()
            assert progress.events == [("compiling", {})]
    another = Sayings()
    with compilation_watched(another):
        pass
    compile_something()
    assert (progress.events, another.events) == ([("compiling", {})], [])


def test_what_is_there_already_is_not_compiled() -> None:
    function = njit()(lambda x: x + 2)
    assert function(1) == 3
    progress = Sayings()
    with compilation_watched(progress):
        assert function(1) == 3
    assert progress.events == []


def test_ours_are_compiled_whatever_numba_is_told_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    function = njit()(lambda x: x + 4)
    assert function(1) == 5
    assert len(function.signatures) == 1  # type: ignore[attr-defined]
    assert numba.config.DISABLE_JIT == 1


def test_no_threads_for_numba_count_as_none_said() -> None:
    variables = {**os.environ, "NUMBA_NUM_THREADS": "0"}
    subprocess.run([sys.executable, "-c", "import worldmodel_v.compiler, numba"], env=variables, check=True)


def test_an_interruption_waits_for_the_end_of_the_function() -> None:
    ended = []

    @numba.njit
    def called(x: int) -> int:
        return x + 3

    @numba.extending.overload(interrupted := lambda x: x)
    def _(x: object) -> object:
        signal.raise_signal(signal.SIGTERM)
        ended.append("the handler returned")
        return lambda x: called(x)

    with interruptible(), compilation_watched(Sayings()), pytest.raises(KeyboardInterrupt):
        numba.njit(lambda x: interrupted(x))(1)
    assert ended == ["the handler returned"]


def test_without_numba_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba.core", None)
    progress = Sayings()
    with compilation_watched(progress):
        pass
    assert progress.events == []


def test_whoever_is_refused_waits_for_no_compiler(tmp_path: Path) -> None:
    argv = [Path(sys.executable).parent / "wm-collect", "--out", "out", "--workers", "0", "--policy", "bronian"]
    nothing_compiled = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    found = subprocess.run(argv, cwd=tmp_path, env=nothing_compiled, capture_output=True, text=True, timeout=120, check=False)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("wm-collect: unknown policy 'bronian': ")
