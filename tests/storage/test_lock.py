"""The lock on a directory ends with its holder, and a writer that has lost it writes nothing more."""

import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.errors import DatasetBusy, WriteFailed
from worldmodel_v.progress import Silent
from worldmodel_v.storage import open_dataset, verify
from worldmodel_v.storage.lock import LOCK_NAME, is_at_work, lock_directory, locked_directory, read_run

HELPED = """
    import os, sys, time
    from pathlib import Path
    from worldmodel_v.storage.lock import lock_directory
    lock = lock_directory(Path(sys.argv[1]))
    if helper := os.fork():
        print(helper, flush=True)
        os.kill(os.getpid(), 9)
    os.close(1)
    time.sleep(600)
"""


@pytest.fixture
def anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose locks exclude nobody."""
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, how: None)


def test_a_helper_that_outlives_the_holder_holds_nobody_up(tmp_path: Path) -> None:
    holder = subprocess.run([sys.executable, "-c", textwrap.dedent(HELPED), tmp_path], stdout=subprocess.PIPE, text=True)
    helper = int(holder.stdout)
    try:
        with (tmp_path / LOCK_NAME).open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run = read_run(tmp_path)
        assert run is not None
        assert is_at_work(tmp_path, run) is False
        with locked_directory(tmp_path) as lock:
            lock.require_own()
            assert [item.name for item in tmp_path.iterdir()] == [LOCK_NAME]
            with pytest.raises(DatasetBusy, match="this process is writing there already; close what"):
                lock_directory(tmp_path)
    finally:
        os.kill(helper, 9)


def test_a_lock_that_nothing_holds_any_more_is_free(tmp_path: Path) -> None:
    lock = lock_directory(tmp_path)
    del lock
    lock_directory(tmp_path).close()


@pytest.mark.usefixtures("anybody")
def test_of_two_holders_the_first_has_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked_directory(tmp_path) as first:
        first.require_own()
        first.announce(stage="collect", goal=3, done=0)
        first.require_own()
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        with locked_directory(tmp_path) as second:
            second.require_own()
            with pytest.raises(
                DatasetBusy, match=rf"its lock is no longer this run's: .* process {os.getpid()} on elsewhere has begun"
            ):
                first.require_own()


def test_a_holder_whose_directory_is_gone_has_lost(tmp_path: Path) -> None:
    with locked_directory(tmp_path / "out") as lock:
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(
            DatasetBusy, match="it was removed or replaced; this run writes nothing more; let one run at a time"
        ):
            lock.require_own()


def test_a_full_disk_takes_no_lock_away(tmp_path: Path) -> None:
    with locked_directory(tmp_path) as lock:
        os.truncate(tmp_path / LOCK_NAME, 0)
        lock.require_own()


def test_a_collection_whose_directory_is_begun_anew_ends_and_adds_nothing(tmp_path: Path) -> None:
    out, config = tmp_path / "rollouts", stamp_config(tmp_path / "rollouts")

    class BegunAnew(Silent):
        """Another collection of other settings, when the first shard of this one is committed."""

        def event(self, name: str, message: str, *, warning: bool = False, **facts: object) -> None:
            if name == "shard_committed" and facts["shard"] == 0:
                shutil.rmtree(out)
                collect(stamp_config(out, seed=8, episodes=4))

    with pytest.raises(DatasetBusy, match="its lock is no longer this run's"):
        collect(config, BegunAnew())
    dataset = open_dataset(out)
    assert (dataset.spec.seed, dataset.num_episodes) == (8, 4)
    assert verify(dataset) == []


def test_a_holder_that_cannot_be_noted_is_told_and_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(WriteFailed, match=r"\.lock: could not write \(No space left on device\)"):
        lock_directory(tmp_path)
    monkeypatch.undo()
    lock_directory(tmp_path).close()


def test_a_holder_that_announces_no_work_leaves_what_the_last_run_said(tmp_path: Path) -> None:
    with locked_directory(tmp_path) as lock:
        lock.announce(stage="train", goal=3, done=0)
    file = tmp_path / LOCK_NAME
    os.utime(file, (1_000, 1_000))
    before = file.read_bytes()
    with locked_directory(tmp_path):
        assert file.read_bytes() != before
    assert (file.read_bytes(), file.stat().st_mtime) == (before, 1_000)
    with locked_directory(tmp_path) as lock:
        lock.announce(stage="train", goal=4, done=3)
    assert file.read_bytes() != before
