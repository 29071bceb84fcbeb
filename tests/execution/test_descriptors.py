"""An environment that leaves files open: its worker, or the process beside the command, is replaced; else it is named."""

import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import BIN, options
from tests.conftest import stamp_config
from tests.faults.bad_world import UnclosedWorld
from worldmodel_v.collection import collect
from worldmodel_v.errors import EpisodeFailed
from worldmodel_v.execution.worker import Worker
from worldmodel_v.storage import open_dataset, verify

MOST = 1000


@pytest.fixture(autouse=True)
def few_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process may have so many files open."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (MOST, MOST))
    yield
    for descriptor in UnclosedWorld.left_open:
        os.close(descriptor)
    UnclosedWorld.left_open.clear()


@pytest.mark.parametrize(("num_files", "committed"), [(150, 2), (200, 1), (700, 1), (950, 0)])
def test_without_workers_a_leak_is_named_as_the_environments(tmp_path: Path, num_files: int, committed: int) -> None:
    """The environment is made once before the first episode, which is played twice, its first step three times."""
    out, kwargs = tmp_path / "out", json.dumps({"num_files": num_files})
    config = stamp_config(
        out, env="tests.faults.bad_world:tests/Unclosed-v0", env_kwargs=kwargs, frame_size=8, episodes_per_shard=1
    )
    with pytest.raises(EpisodeFailed, match=f"the environment or the policy leaks descriptors: .* and {MOST} may be; close"):
        collect(config)
    assert open_dataset(out).num_episodes == committed
    assert verify(open_dataset(out)) == []


def test_where_few_files_may_be_open_nobody_is_accused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (40, 40))
    collect(stamp_config(tmp_path / "out", frame_size=8))
    assert verify(open_dataset(tmp_path / "out")) == []


def unclosed() -> Callable[[int], bytes]:
    def run(num_files: int) -> bytes:
        UnclosedWorld(num_files)
        if num_files == 1:
            raise EpisodeFailed("it came off")
        return b"done"

    return run


def test_a_worker_says_that_it_leaks_also_after_an_episode_that_failed() -> None:
    worker = Worker(unclosed)
    results = [worker.run(num_files) for num_files in (450, 40, 20, 1)]
    assert [result for result, _ in results[:3]] == [b"done"] * 3
    assert isinstance(results[3][0], EpisodeFailed)
    assert [leaks for _, leaks in results] == [False, False, True, True]


LEAKS = {"files": ("tests/Unclosed-v0", {"num_files": 300}, 8), "memory": ("tests/Leaky-v0", {}, 30)}
"""What leaks -> the environment, its settings, and how many of its episodes no process survives."""


@pytest.mark.parametrize(
    ("leak", "workers", "episodes_per_shard"),
    [("files", 0, 1), ("memory", 0, 1), *[pytest.param("files", 1, num, marks=pytest.mark.slow) for num in (1, 4)]],
)
def test_a_process_that_leaks_is_replaced(tmp_path: Path, leak: str, workers: int, episodes_per_shard: int) -> None:
    """Also where no process survives the four episodes of a shard, or the two plays of the first episode."""
    env, kwargs, episodes = LEAKS[leak]
    settings = {"env": f"tests.faults.bad_world:{env}", "env_kwargs": json.dumps(kwargs), "frame_size": 8}
    settings |= {"episodes": episodes, "episodes_per_shard": episodes_per_shard, "workers": workers}
    words = [BIN / "wm-collect", "--out", tmp_path / "out", *options(settings)]
    shell = ["bash", "-c", 'ulimit -n 1024; exec "$@"', "-", *map(str, words)]
    told = subprocess.run(shell, capture_output=True, text=True, check=True).stderr
    assert told.count("holds more and more memory or open files and is replaced") >= 2, told
    assert open_dataset(tmp_path / "out").num_episodes == episodes
    assert verify(open_dataset(tmp_path / "out")) == []
