"""Frames to latents, as fast as the hardware allows in the chosen precision.

Legend: B batch, H, W frame, Z latent, K values of the condition.

What was tried for the default VAE on a CPU (AVX-512 with bf16, torch 2.13). A naive batch of one whole episode of 1,001 frames
spends half of its time on page faults for fresh memory.

- batches of 64 in eager fp32, freed memory kept (`keep_freed_memory`), convolutions by Winograd's algorithm (`winograd`): this
  is used.
- the same with PyTorch's convolutions: 0.53 of that, and 0.4 to 0.5 since `products`. They take nine tenths of the time and
  reach 100 to 145 GFLOP/s. The points below were measured with these convolutions.
- without keeping freed memory: a fifth slower; batches of 32 in this way: a twentieth slower.
- NCHW instead of channels_last: the same, once there are no page faults.
- one batch for each core, instead of one batch with its operators split among the cores: a third faster on two cores.
- torch.compile, with or without frozen weights: 0.97 of eager for resnet, 1.05 for conv and ha2018; it costs 15 seconds.
- weights packed for oneDNN ahead of time and another GroupNorm: 1.05, but it needs private functions of PyTorch.
- bf16 (autocast or weights, the same): 1.3 for resnet, 1.9 for conv and ha2018, 2 for mlp, and the mean error is 17% of σ.
  Two thirds of it come from the first three convolutions; with those in fp32, it is 14% faster, with an error of 0.9% of σ.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder, Latents, frames_to_input
from worldmodel_v.device import blas_in_one_thread, compiled

Precision = Literal["fp32", "bf16"]

FrameEncoder = Callable[[torch.Tensor, torch.Tensor | None], Latents]
"""(uint8 (B, H, W, 3), float32 (B, K) or None; on any device) -> the autoencoder's columns, on its device."""

FRAMES_AT_FIRST = 8
"""The smallest batch that uses the compiled convolutions."""

MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 256 << 20
LARGEST_KEPT_BYTES = 1 << 25
"""The largest block that glibc takes from its heap."""


def inference_encoder(
    model: Autoencoder, device: torch.device, precision: str = "fp32", *, compile: bool = False
) -> FrameEncoder:
    """A function that encodes batches of frames without gradients; `model` must be on the device, in evaluation mode.

    "fp32" is float32 arithmetic throughout; the autoencoder defines "bf16" (`Autoencoder.for_inference`). On a CPU, numba's
    compilation happens here, in the caller's thread, where an interruption ends it. `compile` compiles at the first call of
    each batch size, and raises ConfigError if PyTorch cannot compile. Several threads may call the function at once; on CUDA it
    returns before the device is done. For frames in pinned memory the transfer is asynchronous.
    """
    encode = _encoder(model.for_inference(device, precision, compile=compile), device, compile)
    if device.type == "cpu" and not compile:
        num_values = model.config.condition_dim
        frames_BHWC = torch.zeros((FRAMES_AT_FIRST, *model.config.frame_shape, 3), dtype=torch.uint8)
        with reproducible_arithmetic():
            encode(frames_BHWC, torch.zeros((FRAMES_AT_FIRST, num_values)) if num_values else None)
    return encode


def _encoder(model: Autoencoder, device: torch.device, compile: bool = False) -> FrameEncoder:
    def latents(frames_BHWC: torch.Tensor, condition_BK: torch.Tensor | None) -> Latents:
        return model.encode(frames_to_input(frames_BHWC, model.config.channels), condition_BK)

    compute = compiled(latents, device) if compile else latents

    @torch.inference_mode()
    def encode(frames_BHWC: torch.Tensor, condition_BK: torch.Tensor | None = None) -> Latents:
        condition_BK = None if condition_BK is None else condition_BK.to(device, non_blocking=True)
        return compute(frames_BHWC.to(device, non_blocking=True), condition_BK)

    return encode


def encode_frames(
    model: Autoencoder,
    frames_BHWC: np.ndarray,
    device: torch.device,
    precision: str = "fp32",
    condition_BK: np.ndarray | None = None,
) -> Latents:
    """The latents of uint8 frames (B, H, W, 3), on the CPU. It is for a few frames and needs no preparation;
    `inference_encoder` is for many batches."""
    with reproducible_arithmetic():
        condition = None if condition_BK is None else torch.from_numpy(condition_BK)
        model = model if precision == "fp32" else model.for_inference(device, precision)
        latents = _encoder(model, device)(torch.from_numpy(frames_BHWC), condition)
        return {name: rows.cpu() for name, rows in latents.items()}


@contextmanager
def reproducible_arithmetic() -> Iterator[None]:
    """Within the block, in all threads, cuDNN computes the same bits every time, in full float32 (TF32 keeps only 10 bits),
    and products of NumPy and SciPy run in the calling thread. Several threads may be in such a block at once."""
    global _num_within
    with _lock:
        if not _num_within:
            _settings.enter_context(
                torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            )
            _settings.enter_context(blas_in_one_thread())
        _num_within += 1
    try:
        yield
    finally:
        with _lock:
            _num_within -= 1
            if not _num_within:
                _settings.close()


_lock = threading.RLock()  # re-entrant: a generator that takes it at its end may be collected while its thread holds it
_num_within = 0
_settings = ExitStack()


def keep_freed_memory() -> None:
    """Make glibc keep up to 256 MiB of freed memory for the next batch, instead of returning it and faulting it in again.

    This saves a quarter of the time of encoding on a CPU. It applies to the process from now on; without glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MALLOC_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(MALLOC_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
