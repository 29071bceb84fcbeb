"""A disk that fills: a clear message and exit code 1, nothing torn, and the same command completes it once there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import FullDisk
from tests.commands import finish, options, start
from tests.conftest import stamp_config
from tests.faults.every_step import BEGUN, STAGES, make_inputs, put_begun
from worldmodel_v.collection import collect
from worldmodel_v.errors import WriteFailed
from worldmodel_v.storage.publish import is_temporary

EPISODES = {"env": "worldmodel_v/Stamp-v0", "env_kwargs": '{"length": 30}', "episodes": 40, "episodes_per_shard": 4}
EPISODES |= {"seed": 7, "policy": "random", "max_steps": 40, "workers": 0}
SMALL_VAE = {"steps": 4, "checkpoint_every": 2, "batch_size": 4, "latent_dim": 4, "architecture": "mlp", "holdout_every": 4}

SLOW = ["recover", "train", "eval", "minari", "npz", "model", "preview"]
"""All other stages but "pipeline", whose writes are theirs."""

NEVER = {"recover": "rename"} | dict.fromkeys(["train", "eval", "minari", "npz", "model", "preview"], "link")
"""What a stage never asks of the disk: only shards are linked, and a dataset that is there keeps its `dataset.json`."""


class SmallDisk:
    """A file system in memory that can grow."""

    def __init__(self, path: Path, size: str) -> None:
        self.path = path
        self._mount("tmpfs", f"size={size}")

    def grow(self, size: str) -> None:
        self._mount("tmpfs", f"remount,size={size}")

    def _mount(self, kind: str, how: str) -> None:
        subprocess.run(["mount", "-t", kind, "-o", how, "none", str(self.path)], check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """128 kB of disk; skips where nobody may mount."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid():
        pytest.skip("only root may mount a small file system")
    try:
        disk = SmallDisk(path, "128k")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield disk
    subprocess.run(["umount", str(path)], check=True)


def command_of(stage: str, inputs: Path, out: Path) -> tuple[object, ...]:
    if stage == "collect":
        return ("wm-collect", "--out", out, *options(EPISODES))
    if stage == "train":
        return ("wm-train", "--data", inputs / "rollouts", "--out", out, *options(SMALL_VAE))
    return ("wm-encode", "--data", inputs / "rollouts", "--vae", inputs / "vae", "--out", out)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rollouts of small frames and a VAE on a disk that has room."""
    folder = tmp_path_factory.mktemp("inputs")
    collect(stamp_config(folder / "rollouts", frame_size=16, **EPISODES))
    finish(*command_of("train", folder, folder / "vae"))
    return folder


@pytest.mark.parametrize("stage", ["collect", *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("train", "encode"))])
def test_a_stage_that_fills_the_disk_says_so_and_continues_when_there_is_room(
    stage: str, inputs: Path, small_disk: SmallDisk, tmp_path: Path
) -> None:
    content = STAGES[stage].content
    out = small_disk.path / "out"
    process = start(*command_of(stage, inputs, out))
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    assert f"wm-{stage}: {out}/" in errors
    assert (
        "could not write (No space left on device); nothing half-written is visible; free some space and run the same" in errors
    )
    assert "Traceback" not in errors
    STAGES[stage].require_whole(out)
    small_disk.grow("1g")
    finish(*command_of(stage, inputs, out))
    finish(*command_of(stage, inputs, tmp_path / "unbroken"))
    assert content(out) == content(tmp_path / "unbroken")


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("kind", FullDisk.KINDS)
@pytest.mark.parametrize("stage", ["collect", "encode", *(pytest.param(stage, marks=pytest.mark.slow) for stage in SLOW)])
def test_a_stage_whose_nth_write_fails_for_every_n_is_completed_by_the_next_run(stage: str, kind: str, tmp_path: Path) -> None:
    make_inputs(STAGES[stage], tmp_path)
    STAGES[stage].begin(tmp_path / BEGUN)
    unbroken = tmp_path / "unbroken"
    STAGES[stage].run(unbroken)
    expected = STAGES[stage].content(unbroken)
    number = 0
    while True:
        number += 1
        out = tmp_path / f"failed-{number}"
        put_begun(tmp_path, out)
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = FullDisk(monkeypatch, kind, number)
            if not fails(stage, out):
                break
        assert disk.failed
        assert [file for file in out.rglob("*") if is_temporary(file)] == []
        STAGES[stage].require_whole(out)
        STAGES[stage].run(out)
        assert STAGES[stage].content(out) == expected
    assert not disk.failed
    assert (number == 1) == (NEVER.get(stage) == kind)


def fails(stage: str, out: Path) -> bool:
    """Run a stage; whether the disk refused."""
    try:
        STAGES[stage].run(out)
    except WriteFailed:
        return True
    return False
