"""Killed at any moment and run again: nothing lost, nothing doubled, and the same bytes as an unbroken run."""

import signal
from pathlib import Path

import pytest

from tests.builders import digests
from tests.commands import committed, finish, options, start, wait_until
from tests.conftest import stamp_config
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.errors import DatasetBusy
from worldmodel_v.storage import open_dataset, verify
from worldmodel_v.training.best import load_best
from worldmodel_v.training.checkpoint import load_checkpoint

CAR_RACING = {"env": "CarRacing-v3", "episodes": 6, "episodes_per_shard": 1, "max_steps": 100, "seed": 3}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same real CarRacing episodes, collected in one go in one process."""
    out = tmp_path_factory.mktemp("unbroken") / "rollouts"
    collect(CollectConfig(out=out, workers=0, **CAR_RACING))  # type: ignore[arg-type]
    return out


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_driver_killed_with_sigkill_and_run_again_gives_the_bytes_of_an_unbroken_run(
    tmp_path: Path, unbroken: Path, workers: int
) -> None:
    out = tmp_path / "rollouts"
    command = ("wm-collect", "--out", out, "--workers", workers, *options(CAR_RACING))
    driver = start(*command)
    wait_until(lambda: committed(out) >= 2, driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert 2 <= committed(out) < 6
    finish(*command)
    assert verify(open_dataset(out)) == []
    assert digests(out) == digests(unbroken)
    assert committed(out) == 6


@pytest.mark.slow
def test_a_driver_interrupted_with_ctrl_c_leaves_with_130_and_continues(tmp_path: Path, unbroken: Path) -> None:
    out = tmp_path / "rollouts"
    command = ("wm-collect", "--out", out, "--workers", 2, *options(CAR_RACING))
    driver = start(*command)
    wait_until(lambda: committed(out) >= 1, driver)
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate()
    assert driver.returncode == 130, errors
    assert "wm-collect: interrupted; what is committed is kept, and the same command continues" in errors
    assert "Traceback" not in errors
    collect(CollectConfig(out=out, workers=0, **CAR_RACING))  # type: ignore[arg-type]
    assert verify(open_dataset(out)) == []
    assert digests(out) == digests(unbroken)


def test_a_worker_killed_with_sigkill_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, out = tmp_path / "killed", tmp_path / "rollouts"
    policy = "tests.integration.deadly_policy:DiesOnce"
    settings = {"env": "worldmodel_v/Stamp-v0", "episodes": 8, "episodes_per_shard": 2, "seed": 7, "policy": policy}
    driver = start("wm-collect", "--out", out, "--workers", 2, *options(settings), DEADLY_MARKER=str(marker))
    _, errors = driver.communicate()
    assert driver.returncode == 0, errors
    assert marker.exists()
    assert "a worker died" in errors
    assert "is given to another worker (attempt 2)" in errors
    assert verify(open_dataset(out)) == []
    monkeypatch.setenv("DEADLY_MARKER", str(marker))
    collect(stamp_config(tmp_path / "unbroken", **settings))
    assert digests(out) == digests(tmp_path / "unbroken")


def test_a_second_collector_on_the_same_directory_is_told(tmp_path: Path) -> None:
    out = tmp_path / "rollouts"
    settings = CAR_RACING | {"episodes": 200}
    driver = start("wm-collect", "--out", out, "--workers", 0, *options(settings))
    wait_until(lambda: committed(out) >= 1, driver)
    with pytest.raises(DatasetBusy, match=r"another process \(process \d+ on .+\) is writing there"):
        collect(CollectConfig(out=out, workers=0, **settings))  # type: ignore[arg-type]
    driver.send_signal(signal.SIGKILL)
    driver.communicate()


@pytest.mark.slow
def test_training_killed_or_interrupted_and_continued_gives_the_weights_of_an_unbroken_run(
    tmp_path: Path, stamp_rollouts: Path
) -> None:
    def command(out: Path) -> tuple[object, ...]:
        settings = {
            "data": stamp_rollouts,
            "steps": 60,
            "batch_size": 8,
            "latent_dim": 4,
            "holdout_every": 4,
            "architecture": "conv",
        }
        return ("wm-train", "--out", out, *options(settings | {"checkpoint_every": 10, "log_every": 1}))

    straight, broken = tmp_path / "straight", tmp_path / "broken"
    finish(*command(straight))
    for interruption, after, code in ((signal.SIGKILL, 12, -9), (signal.SIGINT, 23, 130), (signal.SIGTERM, 43, 130)):
        process = start(*command(broken))
        metrics = broken / "metrics.jsonl"
        wait_until(lambda path=metrics, step=after: path.exists() and f'"step": {step},' in path.read_text(), process)
        process.send_signal(interruption)
        _, errors = process.communicate()
        assert process.returncode == code, errors
        assert "Traceback" not in errors
        assert not (broken / "vae.safetensors").exists()
        if code == 130:
            assert "wm-train: interrupted; what is committed is kept, and the same command continues" in errors
            checkpoint = load_checkpoint(broken)
            assert checkpoint is not None
            assert checkpoint.step >= after
    finish(*command(broken))
    assert (broken / "vae.safetensors").read_bytes() == (straight / "vae.safetensors").read_bytes()
    assert training_lines(broken) == training_lines(straight)
    assert best_figures(broken) == best_figures(straight)


def best_figures(folder: Path) -> tuple[int, float]:
    best = load_best(folder)
    assert best is not None
    return best.step, best.heldout["elbo_nats"]


def training_lines(folder: Path) -> list[str]:
    return [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
