"""Ctrl-C and SIGTERM: once, what is in flight is dropped whole; twice, the command leaves now. Both ways it continues."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.collect.test_identical_shards import digests
from tests.conftest import stamp_config
from tests.integration.test_kills import committed, finish, options, start, wait_until
from worldmodel_v.collect import collect
from worldmodel_v.storage import open_dataset, verify

EPISODES = {
    "env": "worldmodel_v/Stamp-v0",
    "env_kwargs": '{"length": 200}',
    "episodes": 200,
    "episodes_per_shard": 2,
    "seed": 7,
    "policy": "random",
}

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same episodes, collected in one go."""
    out = tmp_path_factory.mktemp("signals") / "rollouts"
    collect(stamp_config(out, **EPISODES))
    return out


def working(group: int) -> list[str]:
    """The live processes of a process group, but for two agents of Ray's, which notice minutes later that it is gone."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z" and not command.startswith(AGENTS):
            found.append(command)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_one_signal_to_the_whole_group_drops_what_is_in_flight_and_leaves(
    tmp_path: Path, unbroken: Path, workers: int, number: int
) -> None:
    """The whole group is what a terminal's Ctrl-C reaches."""
    out = tmp_path / "rollouts"
    command = ("wm-collect", "--out", out, "--workers", workers, *options(EPISODES))
    process = start(*command)
    wait_until(lambda: committed(out) >= 1, process)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.endswith("wm-collect: interrupted; what is committed is kept, and the same command continues\n")
    assert "Traceback" not in errors
    assert 1 <= committed(out) < 100
    assert [
        finding for finding in verify(open_dataset(out)) if "missing" not in finding and "not in the index" not in finding
    ] == []
    finish("wm-collect", "--out", out, "--workers", 0, *options(EPISODES))
    assert digests(out) == digests(unbroken)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_second_signal_leaves_now_and_leaves_no_work_behind(tmp_path: Path, unbroken: Path, workers: int) -> None:
    out = tmp_path / "rollouts"
    process = start("wm-collect", "--out", out, "--workers", workers, *options(EPISODES))
    wait_until(lambda: committed(out) >= 1, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    deadline = time.monotonic() + 60
    while working(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert working(process.pid) == []
    finish("wm-collect", "--out", out, "--workers", 0, *options(EPISODES))
    assert digests(out) == digests(unbroken)
