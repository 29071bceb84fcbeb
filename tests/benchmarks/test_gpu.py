"""`benchmarks/gpu.py` on a CPU, as on a machine that has only what it says it needs: all of it runs, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import stamp_config
from worldmodel_v.collection import collect

FOLDER = Path(__file__).parents[2] / "benchmarks"
ABSENT = (
    *("ray", "gymnasium", "tensorboard", "tyro", "rich", "yaml", "pydantic", "sklearn", "torchmetrics"),
    *("hdf5plugin", "scipy", "threadpoolctl", "onnx", "onnxruntime", "onnxscript"),
)


@pytest.fixture(scope="module")
def gpu() -> Iterator[ModuleType]:
    """`benchmarks/gpu.py`, with its neighbours."""
    path = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    import gpu

    yield gpu
    sys.path[:] = path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `rollouts`, 8 toy episodes of 16x16 frames in 2 shards, and `shortest`, one of a single action."""
    folder = tmp_path_factory.mktemp("gpu")
    collect(stamp_config(folder / "rollouts", frame_size=16, episodes_per_shard=4))
    collect(stamp_config(folder / "shortest", frame_size=16, episodes=1, max_steps=1))
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a machine without the packages that the script does without; every process that it starts finds the same."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(f"import sys\nfor name in {ABSENT}: sys.modules[name] = None\n")
    return os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def command(data: Path, out: Path, *options: str) -> list[str]:
    given = ("--data", data / "rollouts", "--shortest", data / "shortest", "--out", out, "--device", "cpu", "--small")
    return [sys.executable, str(FOLDER / "gpu.py"), *map(str, given), *options]


def run(arguments: list[str], environment: dict[str, str], code: int = 0) -> str:
    """What it prints; it must leave with this code."""
    finished = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert finished.returncode == code, finished.stdout + finished.stderr
    return finished.stdout


def found(out: Path, gpu: ModuleType) -> dict[str, Any]:
    """What gpu.json holds; gpu.md must say the same."""
    content = json.loads((out / "gpu.json").read_text())
    from _gpu_record import as_markdown

    assert (out / "gpu.md").read_text() == as_markdown(content)
    return content


def states(content: dict[str, Any]) -> dict[str, str]:
    return {part["name"]: part["state"] for part in content["parts"]}


@pytest.fixture(scope="module")
def whole(gpu: ModuleType, data: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All parts, and what they found."""
    out = tmp_path_factory.mktemp("whole")
    run(command(data, out), environment)
    return found(out, gpu)


def figures(content: dict[str, Any], part: str) -> dict[str, Any]:
    (lines,) = [one["lines"] for one in content["parts"] if one["name"] == part]
    return {line["what"]: line["figure"] for line in lines}


def test_every_part_runs_and_what_must_hold_holds(whole: dict[str, Any], gpu: ModuleType) -> None:
    assert states(whole) == {part.name: "done" for part in gpu.PARTS}
    lines = [line for part in whole["parts"] for line in part["lines"]]
    assert [line for line in lines if line["holds"] is False or line["figure"] in ("left out", "failed")] == []
    assert whole["device"] == "the CPU"
    assert "183 frames of worldmodel_v/Stamp-v0 in 2 shards" in whole["data"]
    assert "looped" in whole["data"]


def test_a_step_is_the_cpus_for_every_architecture_and_likelihood(whole: dict[str, Any]) -> None:
    steps = figures(whole, "step")
    networks = [f"{name}, calibrated" for name in ("conv", "resnet", "mlp")]
    networks += ["conv, gaussian", "conv, bernoulli", "conv, calibrated, conditional on the action"]
    for name in networks:
        assert steps[f"{name}, fp32: the loss"] < 1e-6
        assert steps[f"{name}, fp32: the gradient that is furthest off"] < 1e-4
        assert steps[f"{name}, bf16: the loss"] < 0.01
        assert 0 < steps[f"{name}, bf16: the gradient that is furthest off"] < 1


def test_a_repeated_and_a_killed_training_are_the_same_to_the_bit(whole: dict[str, Any]) -> None:
    repeated = figures(whole, "repeated")
    assert list(repeated.values()) == [True, True]
    ((what, is_same),) = figures(whole, "killed").items()
    assert what.startswith("killed behind step ")
    assert is_same is True


def test_encoding_gives_the_same_bytes_whatever_the_way(whole: dict[str, Any]) -> None:
    same = figures(whole, "bytes")
    shortest = [what for what in same if "two rows" in what]
    assert len(shortest) == 1
    assert same.pop(shortest[0]) < 1e-4
    assert len(same) == 5
    assert set(same.values()) == {True}
    assert list(figures(whole, "processes").values()) == [True, True]


def test_encoding_is_near_to_float64(whole: dict[str, Any]) -> None:
    errors = figures(whole, "precision")
    assert errors["fp32: the largest error of mu"] < 1e-5
    assert errors["fp32: the largest error of mu"] < errors["bf16: the largest error of mu"] < 0.1
    assert figures(whole, "frame") == {"Encoder on one frame: the largest difference of mu": pytest.approx(0, abs=1e-5)}
    assert len(figures(whole, "exported")) == 4


def test_what_cannot_be_is_refused_in_words(whole: dict[str, Any]) -> None:
    (refused,) = [part["lines"] for part in whole["parts"] if part["name"] == "memory"]
    assert [line["note"] for line in refused[:2]] == [
        "batch_size=1048576: does not fit in the memory of cpu; lower it",
        "batch_size=65536: does not fit in the memory of cpu; lower it",
    ]
    (device,) = [part["lines"] for part in whole["parts"] if part["name"] == "device"]
    assert device[0]["note"].startswith("device='cuda:1': cannot be used: ")


def test_every_aim_has_figures_which_only_the_right_device_is_judged_by(whole: dict[str, Any]) -> None:
    assert {aim["verdict"] for aim in whole["aims"]} == {"not judged: the CPU is no H100"}
    assert [len(aim["figures"]) for aim in whole["aims"]] == [2, 2, 1, 4]
    assert all(figure > 0 for aim in whole["aims"] for figure in aim["figures"].values())


def test_aims_are_met_by_all_figures_by_some_or_by_none(gpu: ModuleType) -> None:
    from _gpu_record import judged

    lines = [{"what": f"{name} {figure}", "figure": figure, "aim": name} for name, figure in (("plain", 5.0), ("fed", 0.95))]
    lines += [{"what": "fed 0.5", "figure": 0.5, "aim": "fed"}, {"what": "epoch", "figure": 61.0, "aim": "epoch"}]
    verdicts = [aim["verdict"] for aim in judged([{"lines": lines}], "NVIDIA H100 80GB HBM3")]
    assert verdicts == ["met", "met in part", "not met", "not measured"]


def test_a_run_that_is_killed_keeps_what_it_found(data: Path, environment: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(command(data, tmp_path, "--only", "device", "step"), env=environment, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while not ((tmp_path / "gpu.json").exists() and figures_of_last(tmp_path)):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert states(content)["step"] in ("cut off", "done")
    assert content["parts"][0]["lines"]
    assert "### One training step against the CPU" in (tmp_path / "gpu.md").read_text()


def figures_of_last(out: Path) -> list[Any]:
    return (json.loads((out / "gpu.json").read_text())["parts"] or [{"lines": []}])[-1]["lines"]


def test_without_time_everything_is_skipped_and_said(
    gpu: ModuleType, data: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    printed = run(command(data, tmp_path, "--minutes", "0"), environment)
    content = found(tmp_path, gpu)
    assert states(content) == {part.name: "skipped" for part in gpu.PARTS}
    assert content["parts"][0]["reason"] == "it may take 2 s, and 0 s are left"
    assert f"{len(gpu.PARTS)} parts skipped; 0 lines do not hold" in printed


def test_a_part_that_fails_is_recorded_and_the_rest_goes_on(
    gpu: ModuleType, data: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    collect(stamp_config(tmp_path / "rollouts", frame_size=16, episodes_per_shard=4))
    (tmp_path / "rollouts" / "shards" / "000001.h5").unlink()
    arguments = [*command(data, tmp_path, "--only", "precision", "device", "latency"), "--data", str(tmp_path / "rollouts")]
    run(arguments, environment, code=1)
    content = found(tmp_path, gpu)
    assert states(content) == {"precision": "failed", "device": "done", "latency": "done"}
    assert content["parts"][0]["reason"].startswith("ShardDamaged: ")
    assert "000001.h5: the shard is missing" in content["parts"][0]["reason"]


def test_a_worker_that_dies_or_hangs_is_replaced(gpu: ModuleType, data: Path, tmp_path: Path) -> None:
    setting = gpu.Setting(device="cpu", small=True, data=data / "rollouts", shortest=None, folder=tmp_path)
    with gpu.Worker(setting) as worker:
        with pytest.raises(gpu.PartFailed, match="it took longer than it may, and was stopped"):
            list(worker.lines(gpu.BY_NAME["step"], 0.0))
        lines = worker.lines(gpu.BY_NAME["step"], 300)
        next(lines)
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(gpu.PartFailed, match="its process died, with the exit code -9"):
            list(lines)
        assert [line.holds for line in worker.lines(gpu.BY_NAME["device"], 300)] == [True]


def test_a_gpu_that_is_not_there_is_named_before_anything_is_written(
    data: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = [*command(data, tmp_path / "out"), "--device", "cuda"]
    finished = subprocess.run(
        arguments, env=environment | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False, timeout=300
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: --device cuda cannot be used: ")
    assert not (tmp_path / "out").exists()
