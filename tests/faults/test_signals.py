"""Ctrl-C, SIGTERM, a closed terminal: once, what is in flight is dropped whole; twice, the command leaves now. Both ways it
continues."""

import os
import pty
import select
import signal
import time
from pathlib import Path

import pytest

from tests.builders import digests
from tests.commands import BIN, committed, environment_here, finish, options, start, wait_until
from tests.conftest import stamp_config
from tests.faults.every_step import STAGES, require_same
from worldmodel_v.collection import collect
from worldmodel_v.storage import open_dataset, verify
from worldmodel_v.storage.publish import is_temporary

EPISODES = {
    "env": "worldmodel_v/Stamp-v0",
    "env_kwargs": '{"length": 200}',
    "episodes": 80,
    "episodes_per_shard": 2,
    "seed": 7,
    "policy": "random",
}
FEWER = {**EPISODES, "env_kwargs": '{"length": 240}', "episodes": 48}
VAE = {"steps": 80, "checkpoint_every": 40, "log_every": 1, "batch_size": 8, "latent_dim": 4, "holdout_every": 24}
INTERRUPTED = "interrupted; what is committed is kept, and the same command continues\n"

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


def require_nobody_working(group: int) -> None:
    deadline = time.monotonic() + 300
    while (found := working(group)) and time.monotonic() < deadline:  # an agent may begin a process of a moment at any time
        time.sleep(0.2)
    assert found == []


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
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert errors.endswith(f"wm-collect: {INTERRUPTED}")
    assert "Traceback" not in errors
    assert 1 <= committed(out) < 40
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
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    require_nobody_working(process.pid)
    finish("wm-collect", "--out", out, "--workers", 0, *options(EPISODES))
    assert digests(out) == digests(unbroken)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, stamp_vae: Path) -> Path:
    """A folder with rollouts and a VAE; the stages' unbroken runs come beside them."""
    folder = tmp_path_factory.mktemp("inputs")
    collect(stamp_config(folder / "rollouts", **FEWER))
    (folder / "vae").symlink_to(stamp_vae)
    return folder


def command_of(stage: str, inputs: Path, out: Path, workers: int = 0) -> tuple[object, ...]:
    if stage == "train":
        return ("wm-train", "--data", inputs / "rollouts", "--out", out, *options(VAE))
    return ("wm-encode", "--data", inputs / "rollouts", "--vae", inputs / "vae", "--out", out, "--workers", workers)


def is_well_begun(stage: str, out: Path) -> bool:
    """Some shards are committed, or some steps behind a checkpoint are taken."""
    if stage == "encode":
        return committed(out) >= 2
    return (out / "metrics.jsonl").exists() and '"step": 45,' in (out / "metrics.jsonl").read_text()


def signalled(stage: str, inputs: Path, out: Path, workers: int, *numbers: int) -> str:
    """What a command that was sent these signals in the middle of its work says; it has left with 130 and can be continued."""
    process = start(*command_of(stage, inputs, out, workers))
    wait_until(lambda: is_well_begun(stage, out), process)
    for number in numbers:
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    require_nobody_working(process.pid)
    STAGES[stage].require_whole(out)
    assert committed(out) < 24
    assert not (out / "vae.safetensors").exists()
    return errors


def require_completed_by_the_same_command(stage: str, inputs: Path, out: Path) -> None:
    finish(*command_of(stage, inputs, out))
    if not (inputs / stage).exists():
        finish(*command_of(stage, inputs, inputs / stage))
    require_same(STAGES[stage], out, inputs / stage, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("stage", "workers"), [("encode", 0), ("encode", 2), ("train", 0)])
def test_one_signal_ends_training_and_encoding_with_what_is_done_kept(
    tmp_path: Path, inputs: Path, stage: str, workers: int, number: int
) -> None:
    out = tmp_path / stage
    assert signalled(stage, inputs, out, workers, number).endswith(f"wm-{stage}: {INTERRUPTED}")
    assert list(filter(is_temporary, out.rglob("*"))) == []
    require_completed_by_the_same_command(stage, inputs, out)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "workers"), [("encode", 0), ("encode", 2), ("train", 0)])
def test_a_second_signal_ends_training_and_encoding_now_with_nothing_torn(
    tmp_path: Path, inputs: Path, stage: str, workers: int
) -> None:
    """Two different ones, since a system may tell of two equal ones as one."""
    out = tmp_path / stage
    signalled(stage, inputs, out, workers, signal.SIGTERM, signal.SIGINT)
    require_completed_by_the_same_command(stage, inputs, out)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_closed_terminal_is_as_a_signal(tmp_path: Path, unbroken: Path, workers: int) -> None:
    """Bars are drawn on the terminal until it is gone."""
    out = tmp_path / "rollouts"
    words = ["wm-collect", "--out", out, "--workers", workers, *options(EPISODES)]
    process, terminal = pty.fork()
    if not process:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execve(BIN / "wm-collect", list(map(str, words)), environment_here())
    while committed(out) < 1:
        if select.select([terminal], [], [], 0.02)[0]:
            os.read(terminal, 1 << 16)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    require_nobody_working(process)
    assert 1 <= committed(out) < 40
    finish("wm-collect", "--out", out, "--workers", 0, *options(EPISODES))
    assert digests(out) == digests(unbroken)
