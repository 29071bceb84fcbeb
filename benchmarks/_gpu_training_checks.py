"""Checks that training on the device agrees with a CPU, and gives the same results when it is repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from _gpu_record import Line
from _gpu_setting import ARCHITECTURE, FLOAT32_GRADIENT, FLOAT32_LOSS, HOLDOUT_EVERY, Setting, peak_of_device, tidy
from _training import training

from worldmodel_v.autoencoders.artifact import WEIGHTS_NAME
from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.autoencoders.gaussian.architectures import ARCHITECTURES
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import TrainConfig, train
from worldmodel_v.training.checkpoint import CHECKPOINT_NAME, load_checkpoint
from worldmodel_v.training.run import TensorBatch, TrainingRun

CPU = torch.device("cpu")
SECONDS_TO_THE_FIRST_CHECKPOINT = 90

Weights = dict[str, torch.Tensor]


# One step


def one_step(setting: Setting) -> Iterator[Line]:
    """The loss and every gradient of one step, against the same step in fp32 on the CPU, in PyTorch's default layout."""
    spec = open_dataset(setting.data).spec
    sides = spec.frame_height, spec.frame_width
    architectures = [
        name
        for name, architecture in ARCHITECTURES.items()
        if architecture.min_size <= min(sides) and max(sides) <= architecture.max_size
    ]
    variants: dict[str, dict[str, Any]] = {f"{name}, calibrated": {"architecture": name} for name in architectures}
    variants |= {f"conv, {name}": {"architecture": "conv", "likelihood": name} for name in ("gaussian", "bernoulli")}
    variants["conv, calibrated, conditional on the action"] = {"architecture": "conv", "condition": ("action",)}
    for name, settings in variants.items():
        yield from _step_of(setting, name, settings)


def _step_of(setting: Setting, name: str, settings: dict[str, Any]) -> Iterator[Line]:
    settings = {"batch_size": setting.pick(64, 8), "holdout_every": HOLDOUT_EVERY, **settings}
    reference = training(setting.data, device="cpu", precision="fp32", **settings)
    reference.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with closing(reference.batches()) as batches:
        batch = next(batches)
    noise = torch.randn(settings["batch_size"], reference.config.latent_dim, generator=torch.Generator().manual_seed(0))
    expected = _step(reference, TensorBatch(batch.x.contiguous(), batch.condition), noise)
    ways = {"fp32": False, "bf16": False} | ({"fp32 with TF32, as wm-train has it": True} if setting.on_cuda else {})
    for way, allow_tf32 in ways.items():
        run = training(setting.data, device=setting.device, precision=way[:4], **settings)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=allow_tf32):
            loss, gradients = _step(run, _on_device(batch, setting.target), noise)
        parameter, off = max(_differences(gradients, expected[1]).items(), key=lambda pair: pair[1])
        must = way == "fp32"
        loss_off = abs(loss / expected[0] - 1)
        yield Line(what=f"{name}, {way}: the loss", figure=loss_off, holds=loss_off < FLOAT32_LOSS if must else None)
        yield Line(
            what=f"{name}, {way}: the gradient that is furthest off",
            figure=off,
            unit="of its largest value",
            holds=off < FLOAT32_GRADIENT if must else None,
            note=f"{parameter}, of {len(gradients)}",
        )


def _step(run: TrainingRun, batch: TensorBatch, noise: torch.Tensor) -> tuple[float, Weights]:
    """The loss, and each parameter's gradient on the CPU, after a step as wm-train takes it, but with this noise."""
    run._draw_noise = lambda: noise.to(run.device)  # type: ignore[method-assign]
    terms = run.take_step(batch)
    return float(terms["loss"]), {name: part.grad.cpu() for name, part in run.model.named_parameters() if part.grad is not None}


def _on_device(batch: TensorBatch, device: torch.device) -> TensorBatch:
    return TensorBatch(batch.x.to(device), None if batch.condition is None else batch.condition.to(device))


def _differences(found: Weights, expected: Weights) -> dict[str, float]:
    """For each tensor, the largest difference as a share of its largest value."""
    return {name: float((found[name] - one).abs().max() / one.abs().max().clamp_min(1e-30)) for name, one in expected.items()}


# Many steps


def repeated_steps(setting: Setting) -> Iterator[Line]:
    """Steps with one seed, twice."""
    steps = setting.pick(100, 10)
    for precision in ("fp32", "bf16"):
        settings = {"architecture": ARCHITECTURE, "precision": precision, "batch_size": setting.pick(256, 16)}
        first, second = (_weights_after(setting, steps, **settings) for _ in range(2))
        yield from _equal(f"{steps} steps in {precision} with one seed, twice", first, second, must=not setting.on_cuda)


def _weights_after(setting: Setting, steps: int, **settings: Any) -> Weights:
    run = training(setting.data, device=setting.device, holdout_every=HOLDOUT_EVERY, **settings)
    with closing(run.batches()) as batches:
        for _ in range(steps):
            run.take_step(next(batches))
    return {name: tensor.detach().cpu().contiguous() for name, tensor in run.model.state_dict().items()}


def _equal(what: str, found: Weights, expected: Weights, *, must: bool) -> Iterator[Line]:
    """Whether the weights are equal, and the largest difference if they are not."""
    is_equal = all(torch.equal(found[name], one) for name, one in expected.items())
    yield Line(what=f"{what}: the same weights to the bit", figure=is_equal, holds=is_equal if must else None)
    if not is_equal:
        name, off = max(_differences(found, expected).items(), key=lambda pair: pair[1])
        yield Line(what=f"{what}: the furthest weight", figure=off, unit="of the largest of its tensor", note=name)


def killed(setting: Setting) -> Iterator[Line]:
    """A training that is killed with kill -9 after a checkpoint and continued, against one that was not killed."""
    every = setting.pick(50, 2)
    settings = _training_settings(setting) | {"checkpoint_every": every}
    broken, whole = setting.folder / "killed", setting.folder / "unbroken"
    call = ["train_on", {**settings, "out": str(broken)}]
    command = [sys.executable, str(Path(__file__).parent / "gpu.py"), "--call", json.dumps(call)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(broken / CHECKPOINT_NAME, process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    checkpoint = load_checkpoint(broken)
    assert checkpoint is not None
    steps = checkpoint.step + every
    for out in (broken, whole):
        train(TrainConfig(**{**settings, "data": setting.data, "out": out, "steps": steps}))
    weights = [load_vae(out).model.state_dict() for out in (broken, whole)]
    yield from _equal(
        f"killed behind step {checkpoint.step} and continued to {steps}", weights[0], weights[1], must=not setting.on_cuda
    )


def train_on(data: Path, out: str, **settings: Any) -> None:
    """In a separate process: train until it is killed."""
    train(TrainConfig(data=data, out=Path(out), steps=1_000_000, **settings))


def _training_settings(setting: Setting) -> dict[str, Any]:
    """The settings of trainings by wm-train's own loop, as JSON values."""
    network = {"architecture": ARCHITECTURE, "batch_size": setting.pick(256, 16)}
    return {"data": str(setting.data), "device": setting.device, "holdout_every": HOLDOUT_EVERY, **network}


def _wait_for(file: Path, process: subprocess.Popen) -> None:
    """Wait until a file is there; raises RuntimeError if the process that writes it ends or takes too long."""
    until = time.monotonic() + SECONDS_TO_THE_FIRST_CHECKPOINT
    while not file.exists():
        if process.poll() is not None:
            raise RuntimeError(
                f"the training that was to be killed ended by itself, with {process.returncode}; see its errors above"
            )
        if time.monotonic() > until:
            raise RuntimeError(f"the training had no checkpoint after {SECONDS_TO_THE_FIRST_CHECKPOINT} s")
        time.sleep(0.02)


# Ways to compute a step


def ways(setting: Setting) -> Iterator[Line]:
    """--checkpoint-activations and --compile, against neither: the loss after some steps, and the device's memory."""
    steps = setting.pick(20, 3)
    options: dict[str, dict[str, bool]] = {
        "neither": {},
        "--checkpoint-activations": {"checkpoint_activations": True},
        "--compile": {"compile": True},
        "both": {"checkpoint_activations": True, "compile": True},
    }
    if setting.small:
        options.pop("both")
    expected = 0.0
    for name, option in options.items():
        run = training(
            setting.data,
            device=setting.device,
            architecture=ARCHITECTURE,
            batch_size=setting.pick(256, 16),
            precision="fp32",
            holdout_every=HOLDOUT_EVERY,
            **option,
        )
        start = time.perf_counter()
        with closing(run.batches()) as batches, peak_of_device(setting) as peak:
            losses = [run.take_step(next(batches))["loss"] for _ in range(steps)]
            loss = float(losses[-1])
        expected = expected or loss
        seconds = f"{time.perf_counter() - start:.1f} s with what is compiled"
        off = abs(loss / expected - 1)
        yield Line(what=f"{name}: the loss after {steps} steps", figure=off, holds=off < 1e-2, note=f"{loss:.6g}; {seconds}")
        if peak:
            yield Line(what=f"{name}: memory of the device", figure=peak[0], unit="MB")
        tidy(setting)


def too_large_a_batch(setting: Setting) -> TrainConfig:
    """A training whose batch is of the largest size."""
    return TrainConfig(
        **{**_training_settings(setting), "data": setting.data, "batch_size": 1 << 16, "steps": 1},
        out=setting.folder / "too_large_training",
    )


# A VAE for the checks of encoding


def a_vae(setting: Setting) -> Iterator[Line]:
    """A VAE that is trained here, by wm-train's own loop, so that errors in units of σ are those of a trained VAE."""
    steps = setting.pick(600, 3)
    network = {"architecture": setting.vae_architecture, "beta_warmup_steps": steps // 4}
    config = {**_training_settings(setting), **network, "data": setting.data, "checkpoint_every": steps, "steps": steps}
    start = time.perf_counter()
    report = train(TrainConfig(**config, out=setting.folder / "vae"))
    seconds = time.perf_counter() - start
    assert (report.out / WEIGHTS_NAME).exists()
    yield Line(
        what=f"{network['architecture']} after {steps} steps of {config['batch_size']} frames: PSNR on held-out frames",
        figure=report.heldout["psnr_db"],
        unit="dB",
        note=f"KL {report.heldout['kl_nats']:.1f} nats, {report.heldout['active_units']} active units; {seconds:.1f} s",
    )
