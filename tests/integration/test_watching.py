"""`wm-inspect` while a process writes: what it shows is so, and what is written is what an undisturbed run writes."""

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.builders import SLOW_STAMP, digests
from tests.commands import Process, committed, finish, options, run, start, wait_until
from worldmodel_v.inspection import describe, describe_run
from worldmodel_v.storage import open_dataset, verify

MANY = {"env": "worldmodel_v/Stamp-v0", "episodes": 200, "episodes_per_shard": 2, "seed": 7}


def inspected(*words: object) -> dict[str, Any]:
    """What the command itself prints."""
    return json.loads(run("wm-inspect", *words, "--json")[0])


def looks(path: Path, process: Process) -> list[dict[str, Any]]:
    """What is shown, in short and in full by turns, until the process has ended."""
    shown = []
    while process.poll() is None:
        shown.append((describe if len(shown) % 5 == 4 else describe_run)(path))
        time.sleep(0.05)
    return shown


@pytest.mark.slow
def test_a_collection_that_is_looked_at_all_the_time_writes_what_an_undisturbed_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, alone = tmp_path / "rollouts", tmp_path / "alone"
    (tmp_path / "slow_stamp.py").write_text(SLOW_STAMP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = ("wm-collect", "--workers", 0, *options({**MANY, "env": "slow_stamp:SlowStamp-v0", "episodes": 20}))
    process = start(*command, "--out", out)
    wait_until(lambda: committed(out) >= 1, process)
    shown = [inspected(out, "--state"), *looks(out, process)]
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    running = [facts["run"] for facts in shown if facts["run"]["state"] == "running"]
    assert len(running) >= 10
    assert {(run["process"], run["wanted"], run["stage"]) for run in running} == {
        (f"{process.pid} on {socket.gethostname()}", 20, "collect")
    }
    done = [facts["run"]["done"] for facts in shown]
    assert done == sorted(done) == [facts["episodes"] for facts in shown]
    assert 0 < done[0] < 20
    assert (describe_run(out)["run"]["state"], describe_run(out)["run"]["done"]) == ("complete", 20)
    finish(*command, "--out", alone)
    assert digests(out) == digests(alone)
    assert (out / "index.jsonl").read_bytes() == (alone / "index.jsonl").read_bytes()
    assert verify(open_dataset(out)) == []


@pytest.mark.slow
def test_a_training_that_is_looked_at_all_the_time_learns_what_an_undisturbed_one_does(
    tmp_path: Path, stamp_rollouts: Path
) -> None:
    settings = {"steps": 120, "batch_size": 8, "latent_dim": 4, "holdout_every": 4, "architecture": "conv"}
    command = ("wm-train", "--data", stamp_rollouts, *options({**settings, "checkpoint_every": 40, "log_every": 1}))
    out, alone = tmp_path / "vae", tmp_path / "alone"
    process = start(*command, "--out", out)
    wait_until(lambda: (out / "metrics.jsonl").exists(), process)
    shown = [describe(out), *looks(out, process)]
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert shown[0]["finished"] is False
    assert {facts["run"]["process"] for facts in shown} == {f"{process.pid} on {socket.gethostname()}"}
    assert shown[0]["run"]["state"] == "running"
    steps = [facts["run"]["done"] for facts in shown]
    assert steps == sorted(steps)
    assert len(set(steps)) > 2
    saved = [facts["checkpoint_step"] for facts in shown]
    assert set(saved) <= {None, 40, 80, 120}
    assert [step for step in saved if step] == sorted(step for step in saved if step)
    assert (describe_run(out)["run"]["state"], describe_run(out)["run"]["wanted"]) == ("complete", 120)
    finish(*command, "--out", alone)
    for name in ("vae.safetensors", "metrics.jsonl"):
        assert (out / name).read_bytes() == (alone / name).read_bytes()


def test_a_killed_collection_is_shown_as_stopped(tmp_path: Path) -> None:
    out = tmp_path / "rollouts"
    process = start("wm-collect", "--workers", 0, *options({**MANY, "episodes": 100_000}), "--out", out)
    wait_until(lambda: committed(out) >= 1, process)
    assert describe_run(out)["run"]["state"] == "running"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run = describe_run(out)["run"]
    assert (run["state"], run["process"]) == ("stopped", f"{process.pid} on {socket.gethostname()}")
    assert (run["done"], run["wanted"]) == (2 * committed(out), 100_000)
