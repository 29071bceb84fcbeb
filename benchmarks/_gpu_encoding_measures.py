"""How fast wm-encode is: only the model, everything but the model, and both; and which of them is the limit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _encoding import end_to_end, model_alone, network_that_takes_no_time, resident_frames
from _gpu_record import Line
from _gpu_setting import Setting, peak_of_device, tidy

from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.encoding import Encoder, encoder
from worldmodel_v.storage import open_dataset

EPOCH = 10_000_000


def encoding_speed(setting: Setting) -> Iterator[Line]:
    """From shards to shards, compared with the model alone and with everything else alone."""
    data = setting.looped(setting.pick(1_000_000, 1_500))  # more than `timed` takes to get warm
    num_rows = open_dataset(data).num_rows
    ceilings = {}
    for threads in (*setting.pick((1, 4), (1,)), None):
        name = "all threads" if threads is None else f"{threads} thread{'s' * (threads > 1)}"
        with network_that_takes_no_time(load_vae(setting.vae()).model.config.latent_dim), _threads(threads):
            found = end_to_end(data, setting.vae(), setting.device)
        feeder, committer = found["frames"] / found["wall"], found["frames"] / found["caller"]
        note = f"{num_rows:,} frames, looped"
        yield Line(what=f"everything but the model, {name}", figure=feeder, unit="frames/s", note=note)
        ceilings = {"the feeder": feeder, "the committing thread": committer}
    yield Line(what="the thread that commits, alone", figure=committer, unit="frames/s", note="by its own processor time")
    for vae in (setting.vae(), setting.fresh_vae("conv")):
        for precision in ("fp32", "bf16"):
            if setting.seconds_left < 5:
                yield Line(what=f"{vae.name}, {precision}", figure="left out", note="no time is left for it")
                continue
            yield from _from_shards_to_shards(setting, data, vae, precision, ceilings)


def _from_shards_to_shards(setting: Setting, data: Path, vae: Path, precision: str, others: dict[str, float]) -> Iterator[Line]:
    name = f"{load_vae(vae).model.config.architecture}, {precision}"
    with _intra_op_threads_kept():
        alone = model_alone(data, vae, setting.device, precision)
    model = alone["frames"] / alone["wall"]
    yield Line(what=f"{name}: the model alone on a resident batch", figure=model, unit="frames/s")
    with peak_of_device(setting) as peak:
        found = end_to_end(data, vae, setting.device, precision=precision)
    rate = found["frames"] / found["wall"]
    ceilings = {"the model": model, **others}
    binding = min(ceilings, key=lambda one: ceilings[one])
    note = f"{binding} is the limit; {rate / ceilings[binding]:.2f} of it"
    yield Line(what=f"{name}: wm-encode, from shards to shards", figure=rate, unit="frames/s", note=note, aim="encoding")
    yield Line(what=f"{name}: wm-encode, 10 million frames", figure=EPOCH / rate, unit="s")
    if peak:
        yield Line(what=f"{name}: wm-encode, memory of the device", figure=peak[0], unit="MB")
    tidy(setting)


def encoding_batch_sizes(setting: Setting) -> Iterator[Line]:
    """The model alone by batch size, and the device's memory; and compiled."""
    data, vae = setting.looped(setting.pick(60_000, 300)), setting.vae()
    name = load_vae(vae).model.config.architecture
    ways: list[tuple[str, dict[str, Any]]] = [
        (f"{precision}, batches of {size}", {"precision": precision, "batch_size": size})
        for precision in ("fp32", "bf16")
        for size in setting.pick((64, 256, 1024, 4096), (64,))
    ]
    for precision in setting.pick(("fp32", "bf16"), ("fp32",)):
        ways.append((f"{precision} --compile", {"precision": precision, "compile": True}))
    for way, settings in ways:
        if setting.seconds_left < (20 if "compile" in settings else 3):
            yield Line(what=f"{name}, {way}", figure="left out", note="no time is left for it")
            continue
        with _intra_op_threads_kept(), peak_of_device(setting) as peak:
            found = model_alone(data, vae, setting.device, **settings)
        note = f"{peak[0]:,.0f} MB of the device" if peak else ""
        yield Line(what=f"{name}, {way}", figure=found["frames"] / found["wall"], unit="frames/s", note=note)
        tidy(setting)


def latency(setting: Setting) -> Iterator[Line]:
    """`Encoder` on one frame after another."""
    one, frames = Encoder.load(setting.vae(), device=setting.device), resident_frames(setting.data, 64).numpy()
    seconds = []
    for number in range(setting.pick(320, 30)):
        start = time.perf_counter()
        one(frames[number % len(frames)])
        seconds.append(time.perf_counter() - start)
    seconds = seconds[20:]
    yield Line(what="Encoder on one frame, the median", figure=1e3 * statistics.median(seconds), unit="ms")
    yield Line(what="Encoder on one frame, 99 of 100 within", figure=1e3 * float(np.quantile(seconds, 0.99)), unit="ms")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Within the block, wm-encode has `count` threads, or its default number."""
    with _intra_op_threads_kept():
        if count is None:
            yield
            return
        torch.set_num_threads(count)
        with mock.patch.object(encoder, "num_cores", return_value=count):
            yield


@contextmanager
def _intra_op_threads_kept() -> Iterator[None]:
    """Restores the setting that threads make for themselves, which would also apply to later threads."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
