"""Encoding as a step of a Ray Data pipeline. It does not import Ray: it is a plain callable class.

    frames.map_batches(
        EncodeBatch, fn_constructor_args=("runs/quickstart/vae",), compute=ray.data.ActorPoolStrategy(size=4), batch_size=1024
    )

Ray Data makes one object for each actor of the pool, so each actor loads the weights once. For latents on disk, committed and
resumable, use `wm-encode --workers`.

Legend: B batch, H, W frame, Z latent, K condition.
"""

from pathlib import Path

import numpy as np
import torch

from worldmodel_v.autoencoders import load
from worldmodel_v.device import resolve_device
from worldmodel_v.encoding.encoder import BATCH_SIZES
from worldmodel_v.encoding.inference import inference_encoder, keep_freed_memory, reproducible_arithmetic
from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.process import plain_tensors


class EncodeBatch:
    """Takes batches with frames, and returns the same batches with latents instead of the frames."""

    @plain_tensors()
    def __init__(
        self,
        vae: str | Path,
        device: str = "auto",
        precision: str = "fp32",
        frames: str = "pixels",
        condition: str = "condition",
        autoencoder: str | None = None,
    ) -> None:
        """`vae` is the directory that wm-train wrote, at the same path on every node; `frames` and `condition` name columns;
        `autoencoder` is module:Class if it is one of your own.

        Raises ModelNotUsable or ConfigError.
        """
        self._device = resolve_device(device)
        self._model = load(Path(vae), autoencoder).model.to(self._device)
        self._encode = inference_encoder(self._model, self._device, precision)
        self._frames, self._condition = frames, condition
        keep_freed_memory()

    @plain_tensors()
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch with the autoencoder's columns instead of its frames; for a VAE mu and logvar, float32 (B, Z).

        The frames are uint8 (B, H, W, 3); a conditional VAE needs its condition too, float32 (B, K), as
        `worldmodel_v.data.condition_rows` makes it. Raises ModelNotUsable if one is missing or has another dtype or shape.
        """
        frames_BHWC = self._required(batch)
        condition_BK = batch[self._condition] if self._model.config.condition else None
        columns, _ = self._model.latents("float32")
        encoded = {column.name: [np.empty((0, *column.row_shape), column.dtype)] for column in columns}
        size = BATCH_SIZES[self._device.type]
        with reproducible_arithmetic():
            for start in range(0, len(frames_BHWC), size):
                rows = slice(start, start + size)
                condition = None if condition_BK is None else _tensor(condition_BK[rows])
                latents = self._encode(_tensor(frames_BHWC[rows]), condition)
                for column in columns:
                    encoded[column.name].append(latents[column.name].cpu().numpy().astype(column.dtype, copy=False))
        kept = {name: column for name, column in batch.items() if name != self._frames}
        return kept | {name: np.concatenate(parts) for name, parts in encoded.items()}

    def _required(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """The frames of a batch, after the checks of `__call__`."""
        frame_shape, names = (*self._model.config.frame_shape, 3), [self._frames]
        names += [self._condition] if self._model.config.condition else []
        if missing := [name for name in names if name not in batch]:
            raise ModelNotUsable(
                f"the batch has no column {missing[0]!r}; it has {', '.join(batch)}", remedy="name yours to EncodeBatch"
            )
        frames = batch[self._frames]
        if frames.dtype != np.uint8 or frames.shape[1:] != frame_shape:
            raise ModelNotUsable(
                where=self._frames,
                expected=f"uint8 frames of {frame_shape}, as the VAE takes them",
                got=f"{frames.dtype} of {frames.shape[1:]}",
            )
        return frames


def _tensor(values: np.ndarray) -> torch.Tensor:
    """A tensor with a copy of the values: Ray's arrays are read-only, and PyTorch warns about them."""
    return torch.from_numpy(np.array(values))
