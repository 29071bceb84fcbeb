"""Two workers of a Ray cluster train what one process trains, are interrupted, lost, and continue."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.commands import finish, options, start, wait_until
from tests.integration.test_kills import training_lines
from worldmodel_v.training import TrainConfig, train
from worldmodel_v.training.best import load_best
from worldmodel_v.training.checkpoint import load_checkpoint

SETTINGS = {"steps": 24, "batch_size": 16, "latent_dim": 4, "holdout_every": 4, "checkpoint_every": 8, "log_every": 1}
SETTINGS |= {"learning_rate": 1e-4, "beta_warmup_steps": 8, "device": "cpu", "architecture": "conv"}


@pytest.fixture
def command(address: str, stamp_rollouts: Path) -> Callable[..., tuple[object, ...]]:
    """wm-train with two workers on the cluster."""

    def build(out: Path, **changes: object) -> tuple[object, ...]:
        settings = {"data": stamp_rollouts, "out": out, "num_workers": 2, "address": address, **SETTINGS, **changes}
        return ("wm-train", *options(settings))

    return build


def train_lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in training_lines(out)]


@pytest.mark.slow
def test_two_workers_train_what_one_process_trains(
    stamp_rollouts: Path, tmp_path: Path, command: Callable[..., tuple[object, ...]]
) -> None:
    """To within the order of float32 sums: 1e-5 in the loss.

    The weights agree to a tenth of one update (1e-4) in the root mean square. A few may be several updates apart: Adam
    divides a gradient by its own size, so where one is nearly zero its rounding decides which way the weight goes.
    """
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(TrainConfig(data=stamp_rollouts, out=alone, **SETTINGS))  # type: ignore[arg-type]
    finish(*command(together))
    expected, found = train_lines(alone), train_lines(together)
    assert [line["step"] for line in found] == list(range(1, 25))
    for here, there in zip(expected, found, strict=True):
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-5)
        assert there["grad_norm"] == pytest.approx(here["grad_norm"], rel=1e-4)
    one, other = (safetensors.torch.load_file(out / "vae.safetensors") for out in (alone, together))
    apart = torch.cat([(one[name] - other[name]).flatten() for name in one])
    assert apart.square().mean().sqrt() < 1e-5
    assert apart.abs().max() < 1e-3
    assert {item.name for item in alone.iterdir()} == {item.name for item in together.iterdir()}
    assert load_best(together).step == load_best(alone).step  # type: ignore[union-attr]


@pytest.mark.slow
def test_interrupted_and_run_again_it_gives_the_weights_of_an_unbroken_run_and_one_process_can_go_on(
    stamp_rollouts: Path, tmp_path: Path, command: Callable[..., tuple[object, ...]]
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    finish(*command(straight))
    process = start(*command(broken, steps=2000))
    metrics = broken / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and '"step": 11,' in metrics.read_text(), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    checkpoint = load_checkpoint(broken)
    assert checkpoint is not None
    assert 11 <= checkpoint.step < 2000
    total = {"steps": max(24, checkpoint.step + 3)}
    finish(*command(broken, **total))
    finish(*command(straight, **total))
    assert (broken / "vae.safetensors").read_bytes() == (straight / "vae.safetensors").read_bytes()
    assert training_lines(broken) == training_lines(straight)
    longer = SETTINGS | {"steps": total["steps"] + 2}
    assert train(TrainConfig(data=stamp_rollouts, out=broken, **longer)).new_steps == 2  # type: ignore[arg-type]


def descendants(pid: int) -> list[int]:
    """The processes below one, from /proc."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found


def below(pid: int, name: str) -> list[int]:
    """The processes of that name below a driver with a Ray of its own."""

    def command_line(process: int) -> str:
        try:
            return (Path("/proc") / str(process) / "cmdline").read_text().split(" --")[0]
        except OSError:
            return ""

    return [process for process in descendants(pid) if name in command_line(process)]


LOSSES = {
    "RayTrainWorker": ("a training worker died", "the last checkpoint is kept, and the same command continues"),
    "raylet/raylet": ("the local Ray is lost: its raylet was killed by signal 9", "and the same command continues"),
}
"""What dies -> how the last line of the error begins and ends."""


@pytest.mark.slow
@pytest.mark.parametrize("lost", LOSSES)
def test_whoever_dies_the_run_ends_with_a_clear_error_and_the_checkpoint_stays(
    stamp_rollouts: Path, tmp_path: Path, lost: str
) -> None:
    out = tmp_path / "vae"
    settings = {"data": stamp_rollouts, "out": out, "num_workers": 2, **SETTINGS, "steps": 5000}
    process = start("wm-train", *options(settings))
    wait_until((out / "checkpoint.safetensors").exists, process)
    os.kill(below(process.pid, lost)[-1], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    start_of_line, end_of_line = LOSSES[lost]
    last = errors.splitlines()[-1]
    assert last.startswith(f"wm-train: {start_of_line}"), errors
    assert last.endswith(end_of_line), errors
    checkpoint = load_checkpoint(out)
    assert checkpoint is not None
    assert checkpoint.step % 8 == 0
    assert checkpoint.step > 0
