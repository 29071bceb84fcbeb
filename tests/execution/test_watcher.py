"""What a local Ray leaves behind is ended with its driver, however that ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.commands import committed, options, run, start, wait_until
from worldmodel_v.execution.watcher import end_all

ENDLESS = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
EPISODES = {
    "env": "worldmodel_v/Stamp-v0",
    "env_kwargs": '{"length": 200}',
    "episodes": 4000,
    "episodes_per_shard": 2,
    "seed": 7,
}
SERVERS = {"raylet": "raylet", "gcs": "gcs_server", "agent": "ray::DashboardAgent", "runtime env": "ray::RuntimeEnvAgent"}


def log_of(folder: Path, driver: int) -> Path:
    logs = folder / f"session_2026-11-28_18-12-42_505172_{driver}" / "logs"
    logs.mkdir(parents=True)
    return logs / "agent.out"


def test_only_the_processes_of_that_drivers_sessions_are_ended(tmp_path: Path) -> None:
    driver = os.getpid() + 1_000_000_000
    with log_of(tmp_path, driver).open("w") as ours, log_of(tmp_path, driver + 1).open("w") as others:
        its, another = (subprocess.Popen(ENDLESS, stdout=log) for log in (ours, others))
    try:
        assert end_all(driver)
        assert its.wait() == -signal.SIGKILL
        assert another.poll() is None
        assert not end_all(driver)
    finally:
        its.kill()
        another.kill()
        another.wait()


def test_whatever_ends_the_driver_ends_what_it_has_started(tmp_path: Path) -> None:
    code = """
        import os, subprocess, sys
        from pathlib import Path
        from worldmodel_v.execution.watcher import watched
        logs = Path(sys.argv[1]) / f"session_2026-11-28_18-12-42_505172_{os.getpid()}"
        logs.mkdir()
        with watched():
            with (logs / "agent.out").open("w") as log:
                subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=log, start_new_session=True)
            os._exit(3)
    """
    left, its_end = os.pipe()
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), tmp_path], stderr=its_end)
    os.close(its_end)
    assert driver.wait() == 3
    with os.fdopen(left) as stream:
        assert stream.read() == ""  # which ends when nobody has it open any more


def of_session(session: int) -> dict[int, str]:
    """The live processes of a session, by number, and what they are called."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found[int(folder.name)] = command
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT, signal.SIGABRT])
def test_nothing_of_a_local_ray_outlives_its_driver(tmp_path: Path, number: int) -> None:
    out = tmp_path / "rollouts"
    process = start("wm-collect", "--out", out, "--workers", 1, *options(EPISODES))
    wait_until(lambda: committed(out) >= 1, process)
    running = of_session(process.pid)
    assert len(running) > 3
    assert not any(command.startswith("ray::IDLE") for command in running.values())  # no worker that no task can use
    process.send_signal(number)
    process.communicate()
    give_up = time.monotonic() + 30
    while (left := of_session(process.pid)) and time.monotonic() < give_up:
        time.sleep(0.2)
    assert left == {}


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_a_local_ray_that_loses_a_server_ends_the_run_and_the_same_command_continues(tmp_path: Path, server: str) -> None:
    out = tmp_path / "rollouts"
    process = start("wm-collect", "--out", out, "--workers", 1, *options(EPISODES))
    wait_until(lambda: committed(out) >= 1, process)
    victim = next(number for number, command in of_session(process.pid).items() if SERVERS[server] in command.split(" --")[0])
    os.kill(victim, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    last = errors.splitlines()[-1]
    assert last.startswith("wm-collect: the local Ray is lost: its "), errors
    assert last.endswith("what is committed is kept, and the same command continues")
    assert committed(out) >= 1
    fewer = EPISODES | {"episodes": 2 * (committed(out) + 1)}
    run("wm-collect", "--out", out, "--workers", 0, *options(fewer))
