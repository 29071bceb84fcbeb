"""Compiled code on disk is that of the source that asks for it, whatever happened while it was written."""

import fcntl
import pwd
import sys
import threading
from pathlib import Path
from types import ModuleType

import numba
import pytest
from numba.core.caching import FunctionCache, IndexDataCacheFile

from tests.builders import imported
from worldmodel_v.kernel_cache import LOCK_NAME

SOURCE = """
from worldmodel_v.compiler import njit

def adding(number):
    @njit()
    def add(x):
        return x + number

    return add
"""


class Killed(BaseException):
    """Stands for a SIGKILL."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where numba keeps what it compiles of a module that nobody has imported yet."""
    monkeypatch.setitem(sys.modules, "kernels", ModuleType("kernels"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "compiled"))
    return tmp_path / "compiled"


def module(path: Path, source: str) -> ModuleType:
    """The source as a module that another process imports: nothing compiled is in memory."""
    if not path.exists() or path.read_text() != source:
        path.write_text(source)
    return imported(path, "kernels")


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.rglob(f"*{suffix}"))


def hits(function: object) -> int:
    return sum(function.stats.cache_hits.values())  # type: ignore[attr-defined]


def test_the_next_process_finds_what_was_compiled(tmp_path: Path, folder: Path) -> None:
    for expected in (0, 1):
        add = module(tmp_path / "kernels.py", SOURCE).adding(1)
        assert (add(1), hits(add)) == (2, expected)
    assert len(files(folder, ".nbc")) == 1


def test_whoever_is_killed_between_index_and_code_leaves_no_code_of_an_older_source(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module(tmp_path / "kernels.py", SOURCE).adding(1)(1) == 2
    newer = SOURCE.replace("x + number", "x + 100 * number")

    def killed(*_: object) -> None:
        raise Killed

    add = module(tmp_path / "kernels.py", newer).adding(1)
    with monkeypatch.context() as patch:
        patch.setattr(IndexDataCacheFile, "_save_data", killed)
        with pytest.raises(Killed):
            add(1)
    for expected in (0, 1):
        add = module(tmp_path / "kernels.py", newer).adding(1)
        assert (add(1), hits(add)) == (101, expected)


def test_two_who_save_at_once_take_turns(tmp_path: Path, folder: Path) -> None:
    kernels = module(tmp_path / "kernels.py", SOURCE)
    assert kernels.adding(1)(1) == 2
    (lock,) = files(folder, LOCK_NAME)
    waiting = threading.Thread(target=kernels.adding(2), args=(1,))
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        assert len(files(folder, ".nbc")) == 1
    waiting.join()
    assert len(files(folder, ".nbc")) == 2
    for number in (1, 2):
        add = module(tmp_path / "kernels.py", SOURCE).adding(number)
        assert (add(1), hits(add)) == (1 + number, 1)


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("left", [b"", b"nonsense"])
def test_torn_files_are_as_good_as_none(tmp_path: Path, folder: Path, suffix: str, left: bytes) -> None:
    assert module(tmp_path / "kernels.py", SOURCE).adding(1)(1) == 2
    (torn,) = files(folder, suffix)
    torn.write_bytes(left)
    for expected in (0, 1):
        add = module(tmp_path / "kernels.py", SOURCE).adding(1)
        assert (add(1), hits(add)) == (2, expected)


def test_on_a_full_disk_nothing_is_kept(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "_save_data", full)
    for _ in range(2):
        add = module(tmp_path / "kernels.py", SOURCE).adding(1)
        assert (add(1), hits(add)) == (2, 0)


def test_without_a_home_nothing_is_kept_and_no_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_entry(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    for place in FunctionCache._impl_class._locator_classes:
        if "InTree" in place.__name__:
            monkeypatch.setattr(place, "from_function", lambda *_: None)  # as where the package is read-only
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setitem(sys.modules, "kernels", ModuleType("kernels"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert module(tmp_path / "kernels.py", SOURCE).adding(2)(1) == 3
    assert list(Path.cwd().iterdir()) == []
