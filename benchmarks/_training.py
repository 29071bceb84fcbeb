"""Shared by the benchmarks of training: a run that writes nothing, and timing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from worldmodel_v.storage import open_dataset
from worldmodel_v.training import TrainConfig
from worldmodel_v.training.run import TrainingRun


def training(path: Path, **settings: Any) -> TrainingRun:
    """A training as wm-train begins it, which writes nothing."""
    config = TrainConfig(data=path, out=path / "nowhere", **settings)
    return TrainingRun(config, {}, torch.device(config.device), open_dataset(path), None)


def seconds_of(work: Callable[[], object], times: int, device: str) -> float:
    """Seconds that `work` takes, done `times` times; on CUDA until the device is done."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    for _ in range(times):
        work()
    synchronize()
    return (time.perf_counter() - start) / times
