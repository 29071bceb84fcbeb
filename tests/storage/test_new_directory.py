"""A directory is there whole or not at all, whatever stops its making."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import FullDisk, files_in
from worldmodel_v import steps
from worldmodel_v.errors import DatasetBusy, OutputNotUsable, WriteFailed
from worldmodel_v.steps import Step
from worldmodel_v.storage import exchange
from worldmodel_v.storage import new_directory as module
from worldmodel_v.storage.new_directory import BUILDING_NAME, new_directory
from worldmodel_v.storage.publish import temporary_path


def build(out: Path, keeps: tuple[str, ...] = ()) -> None:
    with new_directory(out, keeps) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_bytes(b"a")
        (folder / "b").write_bytes(b"b")
        assert not out.exists() or {item.name for item in out.iterdir()} <= {*keeps}


@pytest.mark.parametrize("exists", [False, True])
def test_what_was_built_is_there_and_nothing_else(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "out").mkdir()
    build(tmp_path / "out")
    assert files_in(tmp_path) == {"out/inner/a": b"a", "out/b": b"b"}


def test_missing_parents_are_made(tmp_path: Path) -> None:
    build(tmp_path / "some" / "where" / "out")
    assert files_in(tmp_path) == {"some/where/out/inner/a": b"a", "some/where/out/b": b"b"}


def test_a_path_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build(Path("out"))
    assert files_in(tmp_path) == {"out/inner/a": b"a", "out/b": b"b"}


@pytest.mark.parametrize("stop", [ValueError("no"), KeyboardInterrupt()])
def test_nothing_stays_of_a_directory_whose_making_stops(tmp_path: Path, stop: BaseException) -> None:
    def stopped() -> None:
        with new_directory(tmp_path / "out") as folder:
            (folder / "a").write_bytes(b"half")
            raise stop

    with pytest.raises(type(stop)):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_refused_and_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_bytes(b"42")
    with pytest.raises(OutputNotUsable) as caught:
        build(out)
    assert str(caught.value) == (
        f"{out}: holds 'thesis.tex' already, and an export is never mixed with anything else; "
        "give a directory that is new or empty"
    )
    assert files_in(tmp_path) == {"out/thesis.tex": b"42"}


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OutputNotUsable) as caught:
        build(tmp_path / "out")
    assert str(caught.value) == f"{tmp_path / 'out'}: is a file; give a directory that is new or empty"


def test_a_place_below_a_file_is_refused_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputNotUsable) as caught:
        build(tmp_path / "file" / "out")
    assert (
        str(caught.value) == f"{tmp_path / 'file' / 'out'}: cannot be written to (Not a directory); give a directory that can"
    )


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from worldmodel_v.storage.new_directory import new_directory\n"
        "with new_directory(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'left').mkdir(); (folder / 'left' / 'over').write_bytes(b'half')\n"
        "    (folder / 'half').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False).returncode == -9
    assert not (tmp_path / "out").exists()
    assert b"half" in files_in(tmp_path).values()
    build(tmp_path / "out")
    assert files_in(tmp_path) == {"out/inner/a": b"a", "out/b": b"b"}


def test_a_run_clears_what_killed_ones_left_beside_its_place_and_no_other(tmp_path: Path) -> None:
    for name in ("killed", "mine"):
        hidden = temporary_path(tmp_path / name)
        (hidden / BUILDING_NAME).mkdir(parents=True)
        (hidden / BUILDING_NAME / "half").write_bytes(b"half")
    mine = hidden.rename(hidden.with_name(".tmp-mine"))  # no name of an export's
    with new_directory(tmp_path / "other") as at_work:
        build(tmp_path / "out")
        (at_work / "a").write_bytes(b"a")
    found = files_in(tmp_path)
    assert found.pop(f"{mine.name}/{BUILDING_NAME}/half") == b"half"
    assert found == {"out/inner/a": b"a", "out/b": b"b", "other/a": b"a"}


def test_two_at_once_are_kept_apart(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_directory(out) as folder:
        (folder / "a").write_bytes(b"first")
        with pytest.raises(DatasetBusy) as caught:
            build(out)
    assert str(caught.value) == f"{out}: another process is writing there; wait for it or stop it, then run again"
    assert files_in(tmp_path) == {"out/a": b"first"}


@pytest.mark.parametrize("kind", ["fsync file", "fsync folder"])
def test_a_disk_that_fills_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    FullDisk(monkeypatch, kind, fail_at=1)
    with pytest.raises(WriteFailed) as caught:
        build(tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out'}: could not write ({os.strerror(errno.ENOSPC)}); nothing half-written is visible; "
        "mend the cause and run the same command again"
    )
    assert files_in(tmp_path) == {}


KEPT = (".gitignore",)
WHOLE = {"out/inner/a": b"a", "out/b": b"b", "out/.gitignore": b"*"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that a repository holds by a .gitignore."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".gitignore").write_bytes(b"*")
    return tmp_path


def test_a_file_that_may_be_there_stays(checkout: Path) -> None:
    before = (checkout / "out" / ".gitignore").stat()
    build(checkout / "out", KEPT)
    assert files_in(checkout) == WHOLE
    assert (checkout / "out" / ".gitignore").stat().st_ino == before.st_ino
    with pytest.raises(OutputNotUsable, match="holds 'b' already"):
        build(checkout / "out", KEPT)
    assert files_in(checkout) == WHOLE


@pytest.mark.parametrize("is_link", [False, True])
def test_only_a_file_of_that_name_may_be_there(checkout: Path, is_link: bool) -> None:
    (checkout / "out" / ".gitignore").unlink()
    if is_link:
        (checkout / "out" / ".gitignore").symlink_to(checkout)
    else:
        (checkout / "out" / ".gitignore").mkdir()
    with pytest.raises(OutputNotUsable, match=r"holds '\.gitignore' already"):
        build(checkout / "out", KEPT)
    with pytest.raises(OutputNotUsable, match=r"holds '\.gitignore' already"):
        build(checkout / "out")


KILLED = """
import os, signal, sys
from pathlib import Path
from worldmodel_v import steps
from worldmodel_v.storage.new_directory import new_directory

def stop(step):
    if step.name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

steps.listener = stop
with new_directory(Path(sys.argv[1]), (".gitignore",)) as folder:
    (folder / "inner").mkdir()
    (folder / "inner" / "a").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
"""


@pytest.mark.parametrize(("step", "seen"), [(Step.FOLDER_FILLED, {"out/.gitignore": b"*"}), (Step.FOLDER_NAMED, WHOLE)])
def test_killed_before_or_behind_the_exchange_it_holds_the_file_alone_or_is_whole(
    checkout: Path, step: Step, seen: dict[str, bytes]
) -> None:
    command = [sys.executable, "-c", KILLED, str(checkout / "out"), step.name]
    assert subprocess.run(command, check=False).returncode == -9
    assert {name: content for name, content in files_in(checkout).items() if not name.startswith(".tmp-")} == seen
    if seen != WHOLE:
        build(checkout / "out", KEPT)
        assert files_in(checkout) == WHOLE


def test_what_comes_into_the_folder_in_the_last_moment_stays(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(one: Path, other: Path) -> None:
        monkeypatch.undo()
        (checkout / "out" / "thesis.tex").write_bytes(b"42")
        exchange.exchange(one, other)

    monkeypatch.setattr(module, "exchange", add)
    with pytest.raises(OutputNotUsable, match=r"holds 'thesis\.tex' already"):
        build(checkout / "out", KEPT)
    assert files_in(checkout) == {"out/.gitignore": b"*", "out/thesis.tex": b"42"}


def test_a_disk_that_fails_at_the_last_sync_leaves_the_file_alone(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(step: Step) -> None:
        if step == Step.FOLDER_NAMED:
            FullDisk(monkeypatch, "fsync folder", fail_at=1)

    monkeypatch.setattr(steps, "listener", fail)
    with pytest.raises(WriteFailed):
        build(checkout / "out", KEPT)
    assert files_in(checkout) == {"out/.gitignore": b"*"}


def test_a_system_that_cannot_exchange_folders_is_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(one: Path, other: Path) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(module, "exchange", lacks)
    with pytest.raises(OutputNotUsable) as caught:
        build(checkout / "out", KEPT)
    assert str(caught.value) == (
        f"{checkout / 'out'}: holds '.gitignore', and this system cannot exchange two folders in one step; "
        "give a new directory, and copy its content there"
    )
    assert files_in(checkout) == {"out/.gitignore": b"*"}
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    with pytest.raises(OSError, match="Function not implemented"):
        exchange.exchange(checkout, checkout / "out")
