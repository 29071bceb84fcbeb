"""Shared by the benchmarks of training: a run that writes nothing, and timing."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _machine import describe_machine

from worldmodel_v.storage import Rollouts, open_dataset
from worldmodel_v.training import TrainConfig
from worldmodel_v.training.run import TrainingRun


def training(path: Path, **settings: Any) -> TrainingRun:
    """A training as wm-train begins it, which writes nothing."""
    config = TrainConfig(data=path, out=path / "nowhere", **settings)
    return TrainingRun(config, {}, torch.device(config.device), open_dataset(path), None)


def describe_trainings(arguments: argparse.Namespace, dataset: Rollouts, about: str) -> str:
    """Hardware, versions, data, settings and date of trainings on the same data; `about` ends the last line."""
    where = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else f"{torch.get_num_threads()} threads"
    return (
        f"{describe_machine('torch', 'torchmetrics', 'numpy')}\n"
        f"{dataset.num_episodes} episodes, {dataset.num_rows} frames of {dataset.spec.env}, {dataset.spec.policy}\n"
        f"{arguments.steps} steps of {arguments.batch_size} frames on {where}, {about}\n"
    )


def seconds_of(work: Callable[[], object], times: int, device: str) -> float:
    """Seconds that `work` takes, done `times` times; on CUDA until the device is done."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    for _ in range(times):
        work()
    synchronize()
    return (time.perf_counter() - start) / times
