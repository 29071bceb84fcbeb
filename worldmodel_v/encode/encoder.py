"""One rollout shard in, one latent shard out. No Ray here, and no files: bytes to bytes.

Legend: N rows of a shard, B batch, Z latent.

Frames are decompressed a chunk ahead of the model in a thread, and batched across episodes: an episode boundary is no
reason for a small batch. Rows stay in their place, so the other columns are copied as they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from worldmodel_v.data import FrameBatch, condition_reader
from worldmodel_v.data.prefetch import prefetch
from worldmodel_v.models import VAE, Posterior, frames_to_input, resolve_device
from worldmodel_v.models.weights import vae_from_bytes
from worldmodel_v.records import Episode, LatentSequence
from worldmodel_v.storage import IndexEntry, Shard, build_shard


@dataclass(frozen=True)
class EncodeTask:
    """A rollout shard to encode, with its bytes: a worker needs no access to the dataset's disk."""

    entry: IndexEntry
    image: bytes
    source: str
    """Where the bytes come from, for errors."""

    def __str__(self) -> str:
        return f"shard {self.entry.shard}"


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """What a worker needs to know to encode."""

    weights: bytes
    """The content of `vae.safetensors`."""

    spec_hash: str
    """Of the latent dataset."""

    vae_sha256: str
    device: str
    precision: str
    dtype: str
    batch_size: int


def shard_encoder(settings: EncoderSettings) -> Callable[[EncodeTask], bytes]:
    """What a worker does: the bytes of a rollout shard in, the bytes of its latent shard out."""
    device = resolve_device(settings.device)
    model = vae_from_bytes(settings.weights, "the VAE").model.to(device)

    def encode_shard(task: EncodeTask) -> bytes:
        with Shard.from_bytes(task.image, task.source) as shard:
            posterior = _encode_rows(model, shard, settings, device)
            sequences = [_sequence(shard, position, posterior) for position in range(shard.num_episodes)]
        attributes = {"vae_sha256": settings.vae_sha256, "source_sha256": task.entry.sha256}
        return build_shard(sequences, spec_hash=settings.spec_hash, attributes=attributes)

    return encode_shard


@torch.no_grad()
def encode_frames(
    model: VAE,
    frames_BHWC: np.ndarray,
    device: torch.device,
    precision: str = "fp32",
    condition_BK: np.ndarray | None = None,
) -> Posterior:
    """The posteriors of uint8 frames (B, H, W, 3), as float32 tensors on the CPU; the model must be in evaluation mode.

    A conditional VAE needs `condition_BK`, float32 (B, K).

    "fp32" is full float32 arithmetic: TF32 is switched off for the call, since its error reaches 1e-3.
    """
    x = frames_to_input(torch.from_numpy(frames_BHWC).to(device, non_blocking=True), model.config.channels)
    condition = None if condition_BK is None else torch.from_numpy(condition_BK).to(device, non_blocking=True)
    with (
        torch.backends.cudnn.flags(allow_tf32=False),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        posterior = model.encode(x, condition)
    return Posterior(posterior.mu.cpu(), posterior.logvar.cpu())


def _encode_rows(model: VAE, shard: Shard, settings: EncoderSettings, device: torch.device) -> dict[str, np.ndarray]:
    """mu and logvar of every row of a shard: each (N, Z) in the stored dtype."""
    batches = prefetch(_frame_batches(model, shard, settings.batch_size), depth=2)
    parts = [encode_frames(model, frames, device, settings.precision, condition) for frames, condition in batches]
    mu, logvar = (torch.cat(tensors).numpy().astype(settings.dtype) for tensors in zip(*parts, strict=True))
    return {"mu": mu, "logvar": logvar}


def _frame_batches(model: VAE, shard: Shard, batch_size: int) -> Iterator[FrameBatch]:
    condition = condition_reader(model.config.condition, model.config.condition_dim)
    for start in range(0, shard.num_rows, batch_size):
        stop = min(start + batch_size, shard.num_rows)
        yield FrameBatch(shard.rows("pixels", start, stop), condition and condition(shard, start, stop))


def _sequence(shard: Shard, position: int, posterior: dict[str, np.ndarray]) -> LatentSequence:
    """The latent sequence of one episode: the rollout's rows, with the posterior in place of the pixels."""
    start = int(shard.ep_offset[position])
    rows = slice(start, start + int(shard.ep_len[position]))
    copied = {name for name in shard.columns if name not in ("ep_len", "ep_offset", *Episode.observation_columns)}
    return LatentSequence(
        episode_id=int(shard.episode_ids[position]),
        seed=int(shard.seeds[position]),
        policy=shard.policies[position],
        state_names=shard.state_names,
        **{name: shard.rows(name, rows.start, rows.stop) for name in copied},
        **{name: rows_NZ[rows] for name, rows_NZ in posterior.items()},
    )
