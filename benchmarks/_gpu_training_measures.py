"""How fast training is: a plain loop, ours, ours compiled, and ours fed from compressed shards; and its memory."""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _gpu_record import Line
from _gpu_setting import ARCHITECTURE, HOLDOUT_EVERY, Setting, peak_of_device, synchronize, tidy
from _training import seconds_of, training
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from worldmodel_v.autoencoders.gaussian import VAE
from worldmodel_v.data import FrameStream
from worldmodel_v.data.prefetch import prefetch
from worldmodel_v.errors import ConfigError
from worldmodel_v.storage import open_dataset
from worldmodel_v.training.run import TensorBatch, TrainingRun

EPOCH = 10_000_000
LOADERS = 4
SHARED_MEMORY = Path("/dev/shm")
COMPILED_SIZES = (1024,)
SECONDS_TO_COMPILE = 40
PREFETCHED = 4


def training_speed(setting: Setting, architecture: str) -> Iterator[Line]:
    """Frames per second of one architecture at each batch size."""
    data = setting.looped(setting.pick(60_000, 300))
    ceiling = bf16_product(setting)
    yield Line(what="the device's product of two bf16 matrices", figure=ceiling / 1e12, unit="TFLOP/s")
    done: dict[int, Rates] = {}
    for batch_size in setting.pick((1024, 256, 4096, 64), (16,)):
        if setting.seconds_left < 8:
            yield Line(what=f"{architecture}, batches of {batch_size}", figure="left out", note="no time is left for it")
            continue
        settings = {"architecture": architecture, "batch_size": batch_size, "device": setting.device}
        done[batch_size] = Rates(setting, data, settings)
        yield from done[batch_size].lines(ceiling)
        tidy(setting)
    if done:
        fastest = max(rates.fed for rates in done.values())
        size = next(size for size, rates in done.items() if rates.fed == fastest)
        aim = "epoch" if architecture == "conv" else ""
        what = f"{architecture}, an epoch of 10 million frames from shards, at the fastest batch size, {size}"
        yield Line(what=what, figure=EPOCH / fastest, unit="s", aim=aim, note="from the rate above, on looped frames")
    for size in setting.pick(COMPILED_SIZES, (16,) if architecture == ARCHITECTURE else ()):
        if size in done and setting.seconds_left > setting.pick(SECONDS_TO_COMPILE, 0):
            yield done[size].compiled_line(ceiling)


class Rates:
    """The contestants at one architecture and batch size, in frames a second."""

    def __init__(self, setting: Setting, data: Path, settings: dict[str, Any]) -> None:
        self._setting, self._data = setting, data
        self._settings = {"holdout_every": HOLDOUT_EVERY, **settings}
        self._name = f"{settings['architecture']}, batches of {settings['batch_size']}"
        self._warm_up = setting.pick(3, 1)
        self.plain = self.resident = self.fed = self.flops = 0.0

    def lines(self, ceiling: float) -> Iterator[Line]:
        """All lines but the compiled one."""
        self.plain, note = self._plain()
        yield self._line("a plain loop: eager, fp32, NCHW, a DataLoader over decoded arrays", self.plain, note)
        run = training(self._data, **self._settings)
        with closing(run.batches()) as batches:
            self.resident, self.fed = self._resident_and_fed(run, batches)
            batch = next(batches)
        over_plain = f"{self.resident / self.plain:.2f} times the plain loop"
        yield self._line("wm-train on one resident batch", self.resident, over_plain)
        yield self._line("wm-train on compressed shards", self.fed, "looped")
        over = f"{self._name}: wm-train on shards, over the plain loop"
        yield Line(what=over, figure=self.fed / self.plain, unit="times", aim="plain")
        yield Line(what=f"{self._name}: on shards, over resident", figure=self.fed / self.resident, unit="times", aim="fed")
        self.flops = self._flops(batch) / len(batch.x)
        arithmetic = self.flops * self.resident
        what = f"{self._name}: arithmetic on the resident batch"
        yield Line(what=what, figure=arithmetic / 1e12, unit="TFLOP/s", note=_share(arithmetic, ceiling))
        with peak_of_device(self._setting) as peak:
            run.take_step(batch)
        if peak:
            yield Line(what=f"{self._name}: memory of the device in a step", figure=peak[0], unit="MB")

    def compiled_line(self, ceiling: float) -> Line:
        """The line with --compile, after `lines`; if PyTorch cannot compile, the reason."""
        try:
            rate = self._compiled()
        except ConfigError as error:
            return Line(what=f"{self._name}: wm-train --compile", figure="failed", holds=False, note=str(error))
        ratios = f"{rate / self.resident:.2f} times that without, {rate / self.plain:.2f} times the plain loop"
        return self._line("wm-train --compile on one resident batch", rate, f"{ratios}; {_share(self.flops * rate, ceiling)}")

    def _line(self, what: str, rate: float, note: str = "") -> Line:
        return Line(what=f"{self._name}: {what}", figure=rate, unit="frames/s", note=note)

    def _resident_and_fed(self, run: TrainingRun, batches: Iterator[TensorBatch]) -> tuple[float, float]:
        """Frames a second, in turns; medians of the rounds. What was prefetched in one round is used up before the next."""
        resident = next(batches)
        works = [lambda: run.take_step(resident), lambda: run.take_step(next(batches))]
        found: tuple[list[float], list[float]] = ([], [])
        for work in works:
            seconds_of(work, self._warm_up, self._setting.device)
        steps = self._steps(works[0])
        for _ in range(self._setting.pick(3, 1)):
            for work, rates in zip(works, found, strict=True):
                seconds_of(work, self._setting.pick(2 * PREFETCHED, 1), self._setting.device)
                rates.append(self._settings["batch_size"] / seconds_of(work, steps, self._setting.device))
        return statistics.median(found[0]), statistics.median(found[1])

    def _steps(self, work: Callable[[], object]) -> int:
        """The number of steps of a round, which takes about half a second."""
        if self._setting.small:
            return 1
        return int(np.clip(0.5 / seconds_of(work, self._warm_up, self._setting.device), 8, 500))

    def _flops(self, batch: TensorBatch) -> int:
        """The floating-point operations of a step."""
        run = training(self._data, **self._settings)
        with FlopCounterMode(display=False) as counter:
            run.take_step(batch)
        return counter.get_total_flops()

    def _compiled(self) -> float:
        run = training(self._data, **self._settings, compile=True)
        with closing(run.batches()) as batches:
            batch = next(batches)
        work = functools.partial(run.take_step, batch)
        seconds_of(work, self._warm_up, self._setting.device)
        steps = self._steps(work)
        rounds = [seconds_of(work, steps, self._setting.device) for _ in range(self._setting.pick(3, 1))]
        return len(batch.x) / statistics.median(rounds)

    def _plain(self) -> tuple[float, str]:
        """A plain loop without this package: its frames per second, and its number of loaders."""
        device, batch_size = self._setting.target, self._settings["batch_size"]
        frames = decoded(self._setting.data, limit=20_000)
        loaders = _num_loaders(batch_size * frames[0].numel())
        torch.manual_seed(0)
        model = plain_model(self._setting, self._settings["architecture"]).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        steps = self._setting.pick(max(12, 6144 // batch_size), 2)
        sampler = RandomSampler(TensorDataset(frames), replacement=True, num_samples=batch_size * (2 * self._warm_up + steps))
        loader = DataLoader(
            TensorDataset(frames), batch_size, sampler=sampler, num_workers=loaders, pin_memory=self._setting.on_cuda
        )
        start = 0.0
        for number, (batch,) in enumerate(loader):
            if number == 2 * self._warm_up:
                synchronize(self._setting)
                start = time.perf_counter()
            plain_step(model, optimizer, batch.to(device, non_blocking=True))
        synchronize(self._setting)
        return steps * batch_size / (time.perf_counter() - start), f"{loaders} loaders"


def plain_model(setting: Setting, architecture: str) -> VAE:
    """The same network, in the layout that PyTorch has by default."""
    config = training(setting.data, architecture=architecture, holdout_every=HOLDOUT_EVERY, device="cpu").model.config
    return VAE(config).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def plain_step(model: VAE, optimizer: torch.optim.Optimizer, frames_BHWC: torch.Tensor) -> None:
    """A step as tutorials have it: squared errors and the KL, over N(0, I) noise."""
    x = frames_BHWC.permute(0, 3, 1, 2).contiguous().float() / 255
    mu, logvar = model.posterior(x)
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    reconstruction = torch.sigmoid(model.decode_logits(z))
    squared_error = (reconstruction - x).square().sum() / len(x)
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum() / len(x)
    optimizer.zero_grad()
    (squared_error + kl).backward()
    optimizer.step()


def decoded(data: Path, limit: int) -> torch.Tensor:
    """The first frames of the rollouts, whole in memory: uint8 (N, S, S, 3)."""
    dataset, parts, num_rows = open_dataset(data), [], 0
    for entry in dataset.entries:
        with dataset.open_shard(entry) as shard:
            parts.append(shard.rows("pixels"))
        num_rows += len(parts[-1])
        if num_rows >= limit:
            break
    return torch.from_numpy(np.concatenate(parts)[:limit])


def _num_loaders(batch_bytes: int) -> int:
    """As many as the cores allow, or none if the shared memory for their batches is too small."""
    wanted = min(LOADERS, len(os.sched_getaffinity(0)) - 1)
    if not SHARED_MEMORY.exists():
        return 0
    free = os.statvfs(SHARED_MEMORY)
    return wanted if free.f_bavail * free.f_bsize > 4 * wanted * batch_bytes else 0


def bf16_product(setting: Setting) -> float:
    """Floating-point operations per second of a large product in bfloat16: the most that the device reaches."""
    size, times = setting.pick((8192, 30), (256, 2))
    matrix = torch.randn(size, size, device=setting.target, dtype=torch.bfloat16)
    seconds_of(lambda: matrix @ matrix, 3, setting.device)
    return 2 * size**3 / seconds_of(lambda: matrix @ matrix, times, setting.device)


def _share(flops: float, ceiling: float) -> str:
    return f"{100 * flops / ceiling:.1f} % of the bf16 product"


def training_feeder(setting: Setting) -> Iterator[Line]:
    """The stream of frames alone, without training, for each number of cores."""
    data = setting.looped(setting.pick(60_000, 300))
    batch_size = setting.pick(1024, 32)
    cores = sorted(os.sched_getaffinity(0))
    for count in sorted({1, min(4, len(cores)), len(cores)}):
        os.sched_setaffinity(0, cores[:count])
        try:
            stream = FrameStream(open_dataset(data), lambda _: True, batch_size=batch_size, seed=0)
            with closing(prefetch(iter(stream), depth=4)) as batches:
                seconds_of(lambda: next(batches), setting.pick(60, 4), "cpu")
                rate = batch_size / seconds_of(lambda: next(batches), setting.pick(100, 8), "cpu")
        finally:
            os.sched_setaffinity(0, cores)
        yield Line(what=f"frames for training, {count} of {len(cores)} cores", figure=rate, unit="frames/s", note="looped")
