"""Shared by the benchmarks of encoding: frames to encode, their latents in float64, and timing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _rollouts import repeated

from worldmodel_v.autoencoders import frames_to_input
from worldmodel_v.autoencoders.gaussian import VAE, load_vae
from worldmodel_v.encoding import EncodeConfig, encode, inference_encoder
from worldmodel_v.encoding.encoder import BATCH_SIZES, ShardEncoder
from worldmodel_v.encoding.inference import keep_freed_memory, reproducible_arithmetic
from worldmodel_v.storage import open_dataset


def timed(work: Callable[[int], int], num_frames: int) -> dict[str, float]:
    """The time of `work` after a warm-up; `work` encodes about the given number of frames and returns the exact number."""
    work(min(num_frames, 1_000))
    clocks = {"wall": time.perf_counter, "processor": time.process_time, "caller": time.thread_time}
    before = {name: clock() for name, clock in clocks.items()}
    frames = work(num_frames)
    return {"frames": frames} | {name: clock() - before[name] for name, clock in clocks.items()}


def end_to_end(data: Path, vae: Path, device: str, **settings: Any) -> dict[str, float]:
    """wm-encode, without the start of the interpreter and the one-time work of a process."""
    source = open_dataset(data)
    with tempfile.TemporaryDirectory(prefix="wm-benchmark-") as name:

        def work(num_frames: int) -> int:
            folder = Path(name) / str(num_frames)
            part = data if num_frames == source.num_rows else repeated(source, folder / "part", num_frames)
            return encode(EncodeConfig(data=part, vae=vae, out=folder / "latents", device=device, **settings)).new_rows

        return timed(work, source.num_rows)


def model_alone(
    data: Path,
    vae: Path,
    device: str,
    precision: str,
    compile: bool = False,
    eager: bool = False,
    batch_size: int | None = None,
) -> dict[str, float]:
    """The same arithmetic, repeated on one resident batch: on a CPU one batch for each core, on CUDA queued ahead.

    With `eager` it is PyTorch's own arithmetic, module by module.
    """
    keep_freed_memory()
    target = torch.device(device)
    frames = resident_frames(data, batch_size or BATCH_SIZES[device]).to(target)
    model = load_vae(vae).model.to(target)
    encode_batch = eager_encoder(model) if eager else inference_encoder(model, target, precision, compile=compile)
    num_threads = torch.get_num_threads() if device == "cpu" else 1

    def work(num_frames: int) -> int:
        num_batches = -(-num_frames // len(frames))
        for _ in threads.map(lambda _: encode_batch(frames, None), range(num_batches)):
            pass
        if device == "cuda":
            torch.cuda.synchronize()
        return num_batches * len(frames)

    with (
        ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as threads,
        reproducible_arithmetic(),
    ):
        return timed(work, open_dataset(data).num_rows)


def eager_encoder(model: VAE) -> Callable[..., Any]:
    return torch.inference_mode()(lambda frames, _: model.encode(frames_to_input(frames, model.config.channels)))


@contextmanager
def network_that_takes_no_time(latent_dim: int) -> Iterator[None]:
    """Within the block, wm-encode's latents are noise, so timing gives the rate that everything but the network can reach."""
    noise = torch.randn(max(BATCH_SIZES.values()), latent_dim)
    encode_batch = ShardEncoder._encode_batch
    at_once = lambda _, frames, condition: {"mu": noise[: len(frames)], "logvar": noise[: len(frames)]}  # noqa: E731
    ShardEncoder._encode_batch = at_once  # type: ignore[method-assign]
    try:
        yield
    finally:
        ShardEncoder._encode_batch = encode_batch  # type: ignore[method-assign]


def in_float64(exact: VAE) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
    """A function that computes mu and logvar of uint8 frames with a VAE in float64."""

    def encode_batch(frames_BSSC: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x_BCSS = frames_BSSC.permute(0, 3, 1, 2).double() / 255
        return exact.to_posterior(exact.encoder(x_BCSS).flatten(1)).chunk(2, dim=1)

    return encode_batch


def resident_frames(data: Path, count: int) -> torch.Tensor:
    """The first frames of the rollouts: uint8 (count, S, S, 3)."""
    dataset = open_dataset(data)
    with dataset.open_shard(dataset.entries[0]) as shard:
        frames = shard.rows("pixels", 0, min(count, shard.num_rows))
    return torch.from_numpy(np.resize(frames, (count, *frames.shape[1:])))


def spread_frames(data: Path, count: int) -> torch.Tensor:
    """About `count` frames, evenly spaced over all shards."""
    dataset = open_dataset(data)
    step = max(1, dataset.num_rows // count)
    parts = []
    for entry in dataset.entries:
        with dataset.open_shard(entry) as shard:
            parts.append(shard.rows("pixels")[::step])
    return torch.from_numpy(np.concatenate(parts))


@torch.no_grad()
def posteriors(encode_batch: Callable, frames: torch.Tensor) -> Iterator[torch.Tensor]:
    """mu and logvar of all frames, in float64."""
    found = [tuple(encode_batch(batch)) for batch in frames.split(64)]
    return (torch.cat(parts).double() for parts in zip(*found, strict=True))
