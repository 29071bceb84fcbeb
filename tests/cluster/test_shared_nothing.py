"""A pipeline on a Ray cluster whose machines share nothing but the network, and are lost one after the other.

The head takes the job and commits; three machines work. During collection one of them is cut off from the network and
another one loses its power, each while it is at work; the last one dies while it encodes, and a new one joins. The
environment is the user's own and travels with the job. What comes out is compared, byte for byte, with a run of one process
that nobody interrupted.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builders import SLOW_STAMP, files_in
from tests.cluster.namespaces import Machine, Network, wait_until, why_not
from worldmodel_v.storage import open_dataset, verify

PIPELINE = """
collect: {{env: "slow_stamp:SlowStamp-v0", policy: random, episodes: 40, episodes_per_shard: 2, seed: 5, workers: {workers}}}
train: {{steps: 4, batch_size: 16, latent_dim: 4, architecture: conv, holdout_every: 4, device: cpu}}
encode: {{workers: {workers}, device: cpu}}
"""
NUM_SHARDS = 20
MACHINES = ("head", "cut-off", "killed", "killed-later", "joining", "desk")
OUT = "/tmp/out"
SUBMIT = ("wm-pipeline", "submit", "/tmp/job/pipeline.yaml", "--working-dir", "/tmp/job")
DATASETS = ("rollouts", "latents")
PATIENCE = 300.0

HEALTH_CHECKS = {
    **{"RAY_health_check_initial_delay_ms": "2000", "RAY_health_check_period_ms": "1000"},
    **{"RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "8"},
}
"""A machine that does not answer is given up after some 10 seconds, instead of Ray's half a minute."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the same pipeline, uninterrupted."""
    folder = tmp_path_factory.mktemp("unbroken") / "job"
    write_job(folder, workers=0)
    command = [Path(sys.executable).parent / "wm-pipeline", "run", "pipeline.yaml", "--out", "out"]
    subprocess.run(command, cwd=folder, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder / "out"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_DISABLE_DOCKER_CPU_WARNING": "1"}
    with Network(tmp_path, **settings, **HEALTH_CHECKS) as network:
        yield network


def write_job(folder: Path, workers: int) -> None:
    folder.mkdir()
    (folder / "slow_stamp.py").write_text(SLOW_STAMP)
    (folder / "pipeline.yaml").write_text(PIPELINE.format(workers=workers))


def start_node(machine: Machine, head: Machine | None = None) -> None:
    role = ("--address", f"{head.address}:6379") if head else ("--head", "--port", 6379, "--dashboard-host", "0.0.0.0")
    sizes = ("--num-cpus", 1 if head else 0, "--object-store-memory", 100_000_000)
    machine.start("ray", "start", "--node-ip-address", machine.address, *role, *sizes, "--block")


def is_at_work(machine: Machine) -> bool:
    """Whether one of our workers is at a task there; Ray names a process for what it does."""
    return any("Worker.run" in title for title in machine.titles())


def committed(dataset: Path) -> int:
    index = dataset / "index.jsonl"
    return index.read_bytes().count(b"\n") if index.exists() else 0


def test_a_cluster_that_loses_machines_makes_what_one_process_makes(network: Network, unbroken: Path) -> None:
    head, cut_off, killed, killed_later, joining, desk = map(network.add, MACHINES)
    write_job(desk.folder / "job", workers=3)
    at = ("--address", f"http://{head.address}:8265")
    start_node(head)
    wait_until(lambda: desk.run("wm-pipeline", "status", *at)[0] == 0, PATIENCE, lambda: (head.folder / "log").read_text())
    for machine in (cut_off, killed, killed_later):
        start_node(machine, head)
    wait_until(lambda: num_nodes(desk, head) == 4, PATIENCE, lambda: (killed.folder / "log").read_text())

    code, printed = desk.run(*SUBMIT, "--out", OUT, *at, "--json")
    assert code == 0, printed
    job = json.loads(printed[printed.index("{") :])["job"]
    out = head.folder / "out"

    def log() -> str:
        return desk.run("wm-pipeline", "logs", job, *at)[1]

    def when(condition: Callable[[], bool]) -> None:
        wait_until(condition, PATIENCE, log)

    when(lambda: committed(out / "rollouts") >= 1 and is_at_work(cut_off))
    cut_off.cut_off()
    when(lambda: committed(out / "rollouts") >= 4 and is_at_work(killed))
    killed.kill()
    assert committed(out / "rollouts") < NUM_SHARDS
    when(lambda: (out / "vae" / "vae.safetensors").exists() and is_at_work(killed_later))
    killed_later.kill()
    assert committed(out / "latents") < NUM_SHARDS
    start_node(joining, head)

    code, printed = desk.run("wm-pipeline", "logs", job, *at, "--follow")
    assert code == 0, printed
    assert len(re.findall(r"is given to another worker \(attempt 2\)", printed)) >= 3, printed
    assert "3 workers of 1 CPU need 3, the cluster has 1: 1 begin, the others wait for nodes to join" in printed
    code, printed = desk.run("wm-pipeline", "status", job, *at, "--json")
    assert json.loads(printed[printed.index("{") :])["status"] == "SUCCEEDED"

    for name in DATASETS:
        assert verify(open_dataset(out / name)) == []
        assert files_in(out / name / "shards") == files_in(unbroken / name / "shards")
        assert sorted((out / name / "index.jsonl").read_text().splitlines()) == index_lines(unbroken / name)
        assert (out / name / "dataset.json").read_bytes() == (unbroken / name / "dataset.json").read_bytes()
    assert (out / "vae" / "vae.safetensors").read_bytes() == (unbroken / "vae" / "vae.safetensors").read_bytes()
    for machine in (cut_off, killed, killed_later, joining, desk):
        assert not (machine.folder / "out").exists()

    again = ("ray", "job", "submit", *at, "--working-dir", "/tmp/job", "--", "wm-pipeline", "run", "pipeline.yaml", "--out")
    code, printed = desk.run(*again, OUT)
    assert code == 0, printed
    assert "everything was done already" in printed
    code, printed = desk.run(*again, "out")
    assert code != 0
    assert "wm-pipeline: --out out: inside a Ray job this would lie in /tmp/ray/session_" in printed
    assert "which Ray deletes when the job is over; give an absolute path, such as /data/run" in printed


def test_a_job_that_is_stopped_is_continued_by_the_next_one(network: Network, unbroken: Path) -> None:
    head, worker, desk = map(network.add, ("head", "worker", "desk"))
    write_job(desk.folder / "job", workers=1)
    at = ("--address", f"http://{head.address}:8265")
    start_node(head)
    wait_until(lambda: desk.run("wm-pipeline", "status", *at)[0] == 0, PATIENCE, lambda: (head.folder / "log").read_text())
    assert json.loads(desk.run("wm-pipeline", "status", *at, "--json")[1]) == {"jobs": []}
    start_node(worker, head)

    def submit() -> str:
        code, printed = desk.run(*SUBMIT, "--out", OUT, *at)
        assert code == 0, printed
        (job,) = re.findall(r"^job +(\S+)", printed, flags=re.MULTILINE)
        assert f"wm-pipeline logs --follow {job} --address {at[1]}" in printed
        return job

    stopped = submit()
    rollouts = head.folder / "out" / "rollouts"
    wait_until(lambda: committed(rollouts) >= 2, PATIENCE, lambda: desk.run("wm-pipeline", "logs", stopped, *at)[1])
    code, printed = desk.run("wm-pipeline", "stop", stopped, *at)
    assert code == 0, printed
    code, printed = desk.run("wm-pipeline", "logs", stopped, *at, "--follow")
    assert code == 1
    assert f"wm-pipeline: {stopped}: STOPPED: " in printed
    code, printed = desk.run("wm-pipeline", "stop", stopped, *at)
    assert code == 2
    assert f"wm-pipeline: {stopped}: has ended already (STOPPED); nothing was stopped" in printed
    for command in ("status", "logs", "stop"):
        code, printed = desk.run("wm-pipeline", command, "raysubmit_nobody", *at)
        assert code == 2
        assert f"wm-pipeline: raysubmit_nobody: no such job at {at[1]}" in printed
    done = len(list((rollouts / "shards").glob("*.h5")))  # with one that was stopped before its line, which is adopted
    assert 2 <= committed(rollouts) <= done < NUM_SHARDS

    job = submit()
    code, printed = desk.run("wm-pipeline", "logs", job, *at, "--follow")
    assert code == 0, printed
    assert f"collect: 40 episodes, 903 frames ({40 - 2 * done} new episodes)" in printed
    listed = json.loads(desk.run("wm-pipeline", "status", *at, "--json")[1])["jobs"]
    assert [(entry["job"], entry["status"]) for entry in listed] == [(job, "SUCCEEDED"), (stopped, "STOPPED")]
    assert files_in(rollouts / "shards") == files_in(unbroken / "rollouts" / "shards")


def index_lines(dataset: Path) -> list[str]:
    return sorted((dataset / "index.jsonl").read_text().splitlines())


def num_nodes(desk: Machine, head: Machine) -> int:
    """How many machines the cluster counts as alive, asked from a machine that is none of its nodes."""
    _, printed = desk.run("ray", "status", "--address", f"{head.address}:6379")
    return len(re.findall(r"^ 1 node_", printed.partition("Pending:")[0], flags=re.MULTILINE))
