"""Trackers get what the record gets, continue their run, and never end a training."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import stamp_config
from worldmodel_v import TrainConfig, collect, train
from worldmodel_v.errors import PackageMissing
from worldmodel_v.progress import Silent
from worldmodel_v.training import metrics, trackers
from worldmodel_v.training.trackers import Tracking


class Told(Silent):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        if name == "training_warning" and "goes on without it" in message:
            self.warnings.append(message)


class Kept:
    """A tracker that keeps everything."""

    def __init__(self, out: Path, settings: Any, run_id: str | None) -> None:
        self.run_id, self.continues = run_id or "first", run_id is not None
        self.steps: list[int] = []
        self.names: set[str] = set()
        self.pictures: list[tuple[int, str]] = []
        self.closed = False
        kept.append(self)

    def add(self, step: int, values: Any) -> None:
        self.steps += [step] * ("train/loss" in values)
        self.names |= values.keys()

    def picture(self, step: int, name: str, png: bytes) -> None:
        assert png.startswith(b"\x89PNG")
        self.pictures.append((step, name))

    def close(self) -> None:
        self.closed = True


kept: list[Kept] = []


def config(folder: Path, steps: int, track: str, **changes: Any) -> TrainConfig:
    small: dict[str, Any] = {"architecture": "mlp", "latent_dim": 4, "batch_size": 8, "log_every": 1, "checkpoint_every": 2}
    return TrainConfig(
        data=folder / "data",
        out=folder / "vae",
        steps=steps,
        device="cpu",
        track=track,
        **small | changes,  # type: ignore[arg-type]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    collect(stamp_config(tmp_path / "data", episodes=12))
    return tmp_path


def test_a_continued_training_continues_its_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.clear()
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Kept)
    for steps in (2, 4):
        train(config(folder, steps, "wandb"))
    first, second = kept
    assert (first.continues, second.continues, second.run_id) == (False, True, "first")
    assert first.steps + second.steps == [1, 2, 3, 4]
    assert first.pictures == [(2, "reconstructions"), (2, "prior")]
    assert first.closed
    assert second.closed
    lines = (folder / "vae" / "metrics.jsonl").read_text().splitlines()
    written = {
        f"{record['group']}/{name}" for record in map(json.loads, lines) for name in record if name not in ("step", "group")
    }
    assert first.names | second.names == written
    assert not (folder / "vae" / "tensorboard").exists()
    train(config(folder, 2, "wandb", resume=False))
    assert not kept[2].continues


def test_what_is_tracked_changes_no_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", Kept)
    assert config(folder, 2, "mlflow").identity() == config(folder, 2, "tensorboard").identity()


def broken(out: Path, settings: Any, run_id: str | None) -> Kept:
    raise ConnectionError("no network\nat all")


class BreaksLater(Kept):
    def add(self, step: int, values: Any) -> None:
        raise RuntimeError("full")


@pytest.mark.parametrize(
    ("tracker", "reason"),
    [(broken, "ConnectionError: no network"), (BreaksLater, "RuntimeError: full")],
    ids=["at once", "later"],
)
def test_a_tracker_that_fails_is_told_once(folder: Path, monkeypatch: pytest.MonkeyPatch, tracker: Any, reason: str) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", tracker)
    told = Told()
    assert train(config(folder, 4, "wandb"), told).steps == 4
    (warning,) = told.warnings
    assert warning.startswith(f"train: wandb failed: {reason}")


@pytest.mark.parametrize("how", ["queue", "close"])
def test_a_tracker_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    let_go, told = threading.Event(), list[str]()

    class Hangs(Kept):
        def add(self, step: int, values: Any) -> None:
            let_go.wait()

    monkeypatch.setitem(trackers.TRACKERS, "wandb", Hangs)
    monkeypatch.setattr(trackers, "SECONDS_AT_THE_END", 0.1)
    monkeypatch.setattr(trackers, "MOST_QUEUED", 2 if how == "queue" else 100)
    tracking = Tracking("wandb", tmp_path, {}, 0, told.append)
    try:
        log = metrics.MetricsLog(tmp_path, 0, tracking)
        for step in range(10):
            log.write(step, "train", {"loss": 1.0})
        log.close()
        assert told == [
            f"train: wandb {'does not keep up' if how == 'queue' else 'has not taken everything after 0 s'}; "
            "the training goes on without it"
        ]
    finally:
        let_go.set()
        tracking._thread.join()


def test_a_missing_package_is_refused_before_anything_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PackageMissing, match=r"track='mlflow' needs mlflow; pip install 'worldmodel_v\[mlflow\]'"):
        train(config(folder, 2, "mlflow"))
    assert not (folder / "vae").exists()


TRAIN = """
import sys
from pathlib import Path
from tests.training.test_trackers import Told, config, train
for steps in (2, 4):
    told = Told()
    train(config(Path.cwd(), steps, sys.argv[1]), told)
    assert told.warnings == [], told.warnings
"""


def trained(folder: Path, track: str) -> str:
    """Train and continue, in a process of its own, with the tracker's package offline; returns the run's id there."""
    offline = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    paths = {"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(folder)}
    command = [sys.executable, "-c", TRAIN, track]
    done = subprocess.run(command, cwd=folder, env=os.environ | offline | paths, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return str(json.loads((folder / "vae" / "tracker.json").read_text())[track])


@pytest.mark.slow
def test_weights_and_biases_takes_numbers_and_pictures(folder: Path) -> None:
    pytest.importorskip("wandb")
    run_id = trained(folder, "wandb")
    runs = sorted((folder / "vae" / "wandb").glob(f"offline-run-*-{run_id}"))
    assert len(runs) == 2
    for run in runs:
        (record,) = run.glob("*.wandb")
        assert b"held-out/psnr_db" in record.read_bytes()
        pictures = {file.name.split("_")[0] for file in (run / "files" / "media" / "images" / "samples").glob("*.png")}
        assert pictures == {"reconstructions", "prior"}


@pytest.mark.slow
def test_mlflow_takes_numbers_and_pictures(folder: Path) -> None:
    pytest.importorskip("mlflow")
    run_id = trained(folder, "mlflow")
    read = f"""
from mlflow.tracking import MlflowClient
client = MlflowClient("sqlite:///{folder}/mlflow.db")
run = client.get_run({run_id!r})
print(run.info.status, run.info.run_name, run.data.params["latent_dim"])
print(*[each.step for each in client.get_metric_history({run_id!r}, "train/loss")])
print(len([each for each in client.list_artifacts({run_id!r}, "images") if each.path.endswith(".png")]))
"""
    command = [sys.executable, "-c", read]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert told.stdout.splitlines() == ["FINISHED vae 4", "1 2 3 4", "4"], told.stderr
