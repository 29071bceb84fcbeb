"""Checks that wm-encode on the device agrees with float64, and gives the same bytes for all runs, batches and threads."""

from __future__ import annotations

import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _encoding import in_float64, posteriors, spread_frames
from _gpu_record import Line
from _gpu_setting import Setting
from _gpu_training_checks import too_large_a_batch
from _machine import in_process

from worldmodel_v.autoencoders.gaussian import Posterior, load_vae
from worldmodel_v.device import resolve_device
from worldmodel_v.encoding import EncodeConfig, Encoder, encode, encode_frames, encoder, inference_encoder
from worldmodel_v.encoding.inference import FrameEncoder
from worldmodel_v.errors import ConfigError
from worldmodel_v.export.formats import write_torch_export, write_torchscript
from worldmodel_v.export.modules import Part, parts
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import train

CPU = torch.device("cpu")
GPU_FILE = str(Path(__file__).parent / "gpu.py")
SPARE_BYTES = 256 << 20
"""What is left of the device's memory, or of the address space, for a batch that must not fit."""

FLOAT32_SIGMAS = 0.01
"""The largest error of mu in fp32 that is allowed, in σ of the posterior."""


# Precision


def precision(setting: Setting) -> Iterator[Line]:
    """mu and logvar in each precision, against float64 on the CPU, in units of the posterior's σ."""
    vae = load_vae(setting.vae())
    frames = spread_frames(setting.data, setting.pick(1000, 100))
    expected = Posterior(*posteriors(in_float64(load_vae(setting.vae()).model.double()), frames))
    sigma = torch.exp(0.5 * expected.logvar)
    where = f"{len(frames)} frames, mean σ {sigma.mean():.3f}, {_which(setting)}"
    for name in ("fp32", "bf16"):
        encode_batch = inference_encoder(vae.model.to(setting.target), setting.target, name)
        with encoder.reproducible_arithmetic():
            found = Posterior(
                *posteriors(lambda batch, run=encode_batch: [part.cpu() for part in run(batch, None).values()], frames)
            )
        mu = (found.mu - expected.mu).abs() / sigma
        largest = float(mu.max())
        must = largest < FLOAT32_SIGMAS if name == "fp32" else None
        yield Line(what=f"{name}: the largest error of mu", figure=largest, unit="σ", holds=must, note=where)
        yield Line(what=f"{name}: the mean error of mu", figure=float(mu.mean()), unit="σ")
        logvar = float((found.logvar - expected.logvar).abs().mean() / 2)
        yield Line(what=f"{name}: the mean error of log σ", figure=logvar, note="half that of logvar")


def _on_the_cpu(encode_batch: FrameEncoder) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    return lambda batch: [rows.cpu() for rows in encode_batch(batch, None).values()]


def _which(setting: Setting) -> str:
    return "a VAE with fresh weights" if setting.vae().name.startswith("fresh") else "the VAE that was trained here"


# Bytes


def same_bytes(setting: Setting) -> Iterator[Line]:
    """The bytes of latent shards, for other runs, batch sizes, streams and threads."""
    default = _latents(setting)
    yield _same("fp32, twice", _latents(setting), default)
    with mock.patch.object(encoder, "STREAMS", 1):
        where = "" if setting.on_cuda else " (CUDA's; a CPU has none)"
        yield _same(f"one stream against two{where}", _latents(setting), default)
    with _one_thread():
        yield _same("one thread against all", _latents(setting), default)
    bf16 = _latents(setting, precision="bf16")
    yield _same("bf16, twice", _latents(setting, precision="bf16"), bf16)
    for batch_size in setting.pick((64, 256, 2048, 4096), (128,)):
        found = _latents(setting, batch_size=batch_size)
        is_same = found.images == default.images
        yield Line(what=f"--batch-size {batch_size}, the same bytes as by default", figure=is_same)
        if not is_same:
            off = _furthest(found, default)
            yield Line(
                what=f"--batch-size {batch_size}, the largest difference of mu",
                figure=off,
                unit="σ",
                holds=off < FLOAT32_SIGMAS,
            )
    yield from _shortest(setting)


class Latents:
    """The shards of latents: their bytes, and mu and logvar of all rows."""

    def __init__(self, path: Path) -> None:
        dataset = open_dataset(path)
        self.images = [dataset.shard_path(entry).read_bytes() for entry in dataset.entries]
        episodes = [dataset.episode(entry.first_episode + i) for entry in dataset.entries for i in range(entry.num_episodes)]
        self.mu, self.logvar = (np.concatenate([getattr(one, name) for one in episodes]) for name in ("mu", "logvar"))


def _latents(setting: Setting, data: Path | None = None, **settings: Any) -> Latents:
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        out = Path(folder) / "latents"
        encode(EncodeConfig(data=data or setting.data, vae=setting.vae(), out=out, device=setting.device, **settings))
        return Latents(out)


def _same(what: str, found: Latents, expected: Latents) -> Line:
    is_same = found.images == expected.images
    note = "" if is_same else f"mu differs by up to {_furthest(found, expected):.3g} σ"
    return Line(what=f"{what}: the same bytes", figure=is_same, holds=is_same, note=note)


def _furthest(found: Latents, expected: Latents) -> float:
    return float((np.abs(found.mu - expected.mu) / np.exp(0.5 * expected.logvar)).max())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Within the block, wm-encode has one thread, on CUDA and on a CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with mock.patch.object(encoder, "num_cores", return_value=1):
            yield
    finally:
        torch.set_num_threads(threads)


def _shortest(setting: Setting) -> Iterator[Line]:
    """The shortest possible shard: one action, so two rows."""
    what = "a shard of two rows (one action; the shortest): the largest difference of mu from the CPU's"
    if setting.shortest is None:
        yield Line(what=what, figure="left out", note="give --shortest")
        return
    found = _latents(setting, setting.shortest)
    episode = open_dataset(setting.shortest).episode(0)
    expected = encode_frames(load_vae(setting.vae()).model, episode.pixels, CPU)
    off = float((np.abs(found.mu - expected["mu"].numpy()) / np.exp(0.5 * expected["logvar"].numpy())).max())
    yield Line(what=what, figure=off, unit="σ", holds=off < FLOAT32_SIGMAS, note=f"{len(found.mu)} rows")


# Errors


def too_large(setting: Setting) -> Iterator[Line]:
    """The errors of wm-encode and wm-train for a batch that does not fit in memory."""
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        size = setting.pick(4096, 1 << 20)
        config = EncodeConfig(
            data=setting.data, vae=setting.vae(), out=Path(folder) / "latents", device=setting.device, batch_size=size
        )
        with _little_memory(setting):
            yield _refusal("wm-encode, a batch that does not fit", lambda: encode(config), f"batch_size={size}")
    with _little_memory(setting):
        yield _refusal("wm-train, a batch that does not fit", lambda: train(too_large_a_batch(setting)), "batch_size=65536")
    found = _latents(setting)
    is_same = found.images == _latents(setting).images
    yield Line(what="encoding works afterwards: the same bytes twice", figure=is_same, holds=is_same)


def no_such_device(setting: Setting) -> Iterator[Line]:
    """The error for a missing GPU."""
    name = f"cuda:{max(1, torch.cuda.device_count())}"
    yield _refusal(f"--device {name}, which is not there", lambda: resolve_device(name), "try auto or cpu")


def _refusal(what: str, call: Any, expected: str) -> Line:
    """Whether a call raises ConfigError with these words in it."""
    try:
        call()
    except ConfigError as error:
        return Line(what=f"{what}: is refused", figure=True, holds=expected in str(error), note=str(error))
    return Line(what=f"{what}: is refused", figure=False, holds=False)


@contextmanager
def _little_memory(setting: Setting) -> Iterator[None]:
    """Within the block, the device (or on a CPU this process) gets almost no further memory."""
    if setting.on_cuda:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + SPARE_BYTES) / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    limits = resource.getrlimit(resource.RLIMIT_AS)
    present = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (present + SPARE_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


# Beside wm-encode


def one_frame(setting: Setting) -> Iterator[Line]:
    """`Encoder` on one frame, against the CPU."""
    frame = spread_frames(setting.data, 1)[0].numpy()
    found = Encoder.load(setting.vae(), device=setting.device)(frame)
    expected = encode_frames(load_vae(setting.vae()).model, frame[None], CPU)
    sigma = np.exp(0.5 * expected["logvar"].numpy()[0])
    off = float((np.abs(found.mu - expected["mu"].numpy()[0]) / sigma).max())
    yield Line(what="Encoder on one frame: the largest difference of mu", figure=off, unit="σ", holds=off < FLOAT32_SIGMAS)


def exported(setting: Setting) -> Iterator[Line]:
    """Both halves as TorchScript and torch.export, loaded onto the device, against the modules on the CPU."""
    model = load_vae(setting.vae()).model
    frames = spread_frames(setting.data, setting.pick(100, 20))
    given = {"encoder": frames, "decoder": encode_frames(model, frames.numpy(), CPU)["mu"]}
    for name in ("TorchScript", "torch.export"):
        for part in parts(model):
            with torch.inference_mode():
                run = _exported(setting, part, name)
                found = run(given[part.name].to(setting.target))
                expected = part.module(given[part.name])
            found, expected = (one if isinstance(one, tuple) else (one,) for one in (found, expected))
            pairs = zip(found, expected, strict=True)
            off = max(float((one.cpu().float() - other.float()).abs().max()) for one, other in pairs)
            unit, bound = ("of 255 levels", 1.0) if part.name == "decoder" else ("", 0.02)
            what = f"{name}, {part.name} on {setting.device}: the largest difference"
            yield Line(what=what, figure=off, unit=unit, holds=off <= bound, note=f"{len(frames)} frames")


def _exported(setting: Setting, part: Part, name: str) -> Any:
    """An encoder or decoder, written on the CPU as `wm-export model` does, and loaded onto the device."""
    if name == "TorchScript":
        file = setting.folder / f"{part.name}.pt"
        write_torchscript(part, file)
        return torch.jit.load(str(file), map_location=setting.target)
    from torch.export.passes import move_to_device_pass

    file = setting.folder / f"{part.name}.pt2"
    write_torch_export(part, file)
    return move_to_device_pass(torch.export.load(file), setting.target).module()


def two_processes(setting: Setting) -> Iterator[Line]:
    """Two processes that encode on one device at once, against one."""
    alone = _latents(setting)
    outs = [setting.folder / f"process_{number}" for number in range(2)]
    for out in outs:
        shutil.rmtree(out, ignore_errors=True)
    settings = {"data": str(setting.data), "vae": str(setting.vae()), "device": setting.device}
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda out: in_process(GPU_FILE, "encode_alone", **settings, out=str(out)), outs))
    for number, out in enumerate(outs, start=1):
        yield _same(f"process {number} of two at once", Latents(out), alone)


def encode_alone(data: Path, vae: Path, out: str, device: str) -> int:
    """In a separate process: wm-encode; returns the rows that it encoded."""
    return encode(EncodeConfig(data=data, vae=vae, out=Path(out), device=device)).new_rows
