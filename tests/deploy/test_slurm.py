"""The Slurm script for real, on one machine that plays a node: interrupted as before a preemption, and submitted again."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builders import SLOW_STAMP, files_in

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "pipelines" / "slurm.sh"
BIN = Path(sys.executable).parent

SCONTROL = '#!/bin/bash\n[[ "$1 $2" == "show hostnames" ]] && echo "$3"\n'
SRUN = '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'

PIPELINE = """
collect: {{env: "{module}:SlowStamp-v0", policy: random, episodes: 12, seed: 5, episodes_per_shard: 1, workers: {workers}}}
train: {{steps: 4, batch_size: 16, latent_dim: 4, architecture: conv, holdout_every: 4, device: cpu}}
encode: {{workers: {workers}, device: cpu}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with the environment, pipelines with and without workers, and the commands of Slurm."""
    (tmp_path / "slow_stamp.py").write_text(SLOW_STAMP)
    for name, workers in (("slurm.yaml", 2), ("alone.yaml", 0)):
        (tmp_path / name).write_text(PIPELINE.format(module="slow_stamp", workers=workers))
    (tmp_path / "bin").mkdir()
    for command, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / command).write_text(text)
        (tmp_path / "bin" / command).chmod(0o755)
    return tmp_path


def submit(folder: Path, job: int, *words: object) -> subprocess.Popen[str]:
    """What Slurm does with the script."""
    slurm = {"SLURM_JOB_ID": str(job), "SLURM_JOB_NODELIST": socket.gethostname(), "SLURM_CPUS_PER_TASK": "2"}
    paths = {"PATH": f"{folder / 'bin'}:{BIN}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{folder}"}
    log = (folder / "log").open("a")
    with log:
        return subprocess.Popen(
            [SCRIPT, *map(str, words)],
            cwd=folder,
            env=os.environ | slurm | paths | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def committed(out: Path) -> int:
    index = out / "rollouts" / "index.jsonl"
    return index.read_bytes().count(b"\n") if index.exists() else 0


def test_the_script_parses() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


@pytest.mark.slow
def test_interrupted_and_submitted_again_it_makes_what_one_process_makes(folder: Path) -> None:
    alone = [BIN / "wm-pipeline", "run", "alone.yaml", "--out", "alone", "--quiet"]
    paths = {"PYTHONPATH": f"{ROOT}:{folder}", "OMP_NUM_THREADS": "1"}
    subprocess.run(alone, cwd=folder, check=True, env=os.environ | paths, stdout=subprocess.DEVNULL)
    out, job = folder / "out", os.getpid()
    first = submit(folder, job, "slurm.yaml", "--out", out)
    while committed(out) < 2:
        assert first.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait() == 130, (folder / "log").read_text()
    assert 2 <= committed(out) < 12
    assert "slurm.sh: interrupted; running it again continues" in (folder / "log").read_text()
    assert "wm-pipeline: interrupted; what is committed is kept" in (folder / "log").read_text()
    assert not Path(f"/tmp/ray-{job}").exists()
    assert submit(folder, job, "slurm.yaml", "--out", out).wait() == 0, (folder / "log").read_text()
    assert not Path(f"/tmp/ray-{job}").exists()
    for name in ("rollouts", "latents"):
        assert files_in(out / name / "shards") == files_in(folder / "alone" / name / "shards")
    assert (out / "vae" / "vae.safetensors").read_bytes() == (folder / "alone" / "vae" / "vae.safetensors").read_bytes()


@pytest.mark.slow
def test_a_pipeline_that_is_refused_ends_the_job_with_its_code(folder: Path) -> None:
    (folder / "slurm.yaml").write_text("collect: {episods: 3}\ntrain: {}\nencode: {}\n")
    assert submit(folder, os.getpid(), "slurm.yaml", "--out", folder / "out").wait() == 2
    assert "did you mean 'episodes'?" in (folder / "log").read_text()
