"""Encoding inside a controller's loop: uint8 frames in (raw from the environment, or as recorded), latents out.

Legend: B batch, H, W frame, Z latent, K condition.

A raw frame is cropped and resized by the same code that wm-collect uses, with the settings in the VAE's weights. So its
latents are those that wm-encode writes for it. The network runs unchanged; it takes a tenth of the 20 ms that a controller
has at 50 Hz. Rejected: TorchScript, at best a quarter faster, and deprecated; torch.compile, which needs a compiler on the
controller's machine. If you need every tenth of a millisecond, use the ONNX encoder of `wm-export model`, which is three
times as fast on one frame.

Whoever steps many environments at once loads it with `for_batches`: it then computes as wm-encode does, with compiled
convolutions, which take half the time a frame in batches of 64.

PyTorch uses a thread for each core. For one frame this is no faster, and it slows down a simulation on the same machine: call
`torch.set_num_threads(1)` first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder, Latents, Trained, load
from worldmodel_v.device import resolve_device
from worldmodel_v.encoding.inference import encode_frames, inference_encoder, reproducible_arithmetic
from worldmodel_v.errors import ConfigError, FramesNotUsable, ModelNotUsable, PackageMissing
from worldmodel_v.process import plain_tensors
from worldmodel_v.profiles import profile_of
from worldmodel_v.schema import Draw


@dataclass(frozen=True, eq=False)
class Encoding:
    """The latents of a frame, or of a batch with B in front, as numpy arrays. Each column is an attribute, for a VAE `mu` and
    `logvar`, float32 (Z,); `columns[name]` gives the same."""

    columns: Mapping[str, np.ndarray]
    draws: tuple[Draw, ...]

    def __getattr__(self, name: str) -> np.ndarray:
        columns = self.__dict__.get("columns", {})
        if name in columns:
            return columns[name]
        raise AttributeError(f"{type(self).__name__} has no column {name!r}; it has {', '.join(columns)}")

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """z ~ N(mean, exp(logvar)), drawn from `rng`: float32, of the mean's shape. Raises ModelNotUsable if nothing
        is to be drawn."""
        if not self.draws:
            raise ModelNotUsable(
                f"the latents {', '.join(self.columns)} have no distribution to draw from; take them as they are"
            )
        mean, logvar = (self.columns[name] for name in self.draws[0].columns)
        return mean + np.exp(0.5 * logvar) * rng.standard_normal(mean.shape, dtype=np.float32)


class Encoder:
    """An autoencoder's encoder for the frames of an environment. Make one with `Encoder.load`, and call it."""

    @plain_tensors()
    def __init__(self, vae: Trained[Autoencoder], device: torch.device, source: str, *, for_batches: bool = False) -> None:
        """`source` names the VAE in errors."""
        self._model, self._trained_on, self._device, self._source = vae.model.to(device), vae.trained_on, device, source
        self._frame_shape = vae.model.config.frame_shape
        self._is_size_ambiguous = vae.trained_on is not None and vae.trained_on.preprocessing.changes_frames_of_its_size()
        self._columns, self._draws = vae.model.latents("float32")
        self._resize: dict[tuple[int, ...], Any] = {}
        self._encode_batch = inference_encoder(self._model, device) if for_batches else None

    @classmethod
    def load(
        cls, path: str | Path, *, device: str = "cpu", autoencoder: str | None = None, for_batches: bool = False
    ) -> "Encoder":
        """From the directory that wm-train wrote; raises ModelNotUsable or ConfigError.

        `device` is cpu, cuda, cuda:1, … or auto; `autoencoder` is module:Class if it is one of your own. `for_batches` prepares
        it for batches of many frames: on a CPU it compiles wm-encode's convolutions, which takes a minute the first time.
        """
        target = resolve_device(device)
        return cls(load(Path(path), autoencoder), target, str(path), for_batches=for_batches)

    def __repr__(self) -> str:
        height, width = self._frame_shape
        kind = self._model.kind
        return f"Encoder({self._source!r}: {kind}, frames of {height}x{width} to {self.latent_shapes}, on {self._device})"

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each column for one frame: for a VAE (Z,) for `mu` and `logvar`."""
        return {column.name: column.row_shape for column in self._columns}

    @plain_tensors()
    @torch.inference_mode()
    def __call__(
        self, frames: np.ndarray, condition: np.ndarray | None = None, *, preprocessed: bool | None = None
    ) -> Encoding:
        """The latents of uint8 frames: (H, W, 3) gives (Z,), (B, H, W, 3) gives (B, Z); one grey channel works too.

        Frames of the VAE's height and width count as preprocessed, all others as raw. If raw frames have that size too and
        still need preprocessing, `preprocessed` says which ones are given. A conditional VAE needs `condition`, (K,) or
        (B, K), in the data's own units. The first raw frame takes a second or more, because it loads the compiled resizing.

        Raises FramesNotUsable (another type, layout or size), ModelNotUsable (the condition is missing or of another size) or
        PackageMissing (raw frames, without numba or Gymnasium).
        """
        _require_frames(frames)
        single = frames.ndim == 3
        frames_BHWC = self._preprocess(frames[None] if single else frames, preprocessed)
        encoded = self._encode(frames_BHWC, self._condition(condition, frames, single))
        columns = {each.name: encoded[each.name].numpy().astype(each.dtype, copy=False) for each in self._columns}
        return Encoding({name: rows[0] for name, rows in columns.items()} if single else columns, self._draws)

    def _encode(self, frames_BHWC: np.ndarray, condition_BK: np.ndarray | None) -> Latents:
        """On the CPU."""
        if self._encode_batch is None:
            return encode_frames(self._model, frames_BHWC, self._device, condition_BK=condition_BK)
        with reproducible_arithmetic():
            given = None if condition_BK is None else torch.from_numpy(condition_BK)
            return {name: rows.cpu() for name, rows in self._encode_batch(torch.from_numpy(frames_BHWC), given).items()}

    def _preprocess(self, frames_BHWC: np.ndarray, preprocessed: bool | None) -> np.ndarray:
        """uint8 (B, H, W, 3) of the VAE's size, contiguous and writable, so that torch needs no copy and gives no warning."""
        frames_BHWC = np.require(frames_BHWC, requirements=["C", "W"])
        shape = frames_BHWC.shape[1:]
        if self._are_preprocessed(shape, preprocessed):
            return frames_BHWC if shape[2] == 3 else frames_BHWC.repeat(3, axis=3)
        resize = self._resize.get(shape) or self._resize.setdefault(shape, self._resizing(shape))
        sized = np.empty((len(frames_BHWC), *self._frame_shape, 3), np.uint8)
        for raw, out in zip(frames_BHWC, sized, strict=True):
            resize(raw, out)
        return sized

    def _are_preprocessed(self, shape: tuple[int, ...], said: bool | None) -> bool:
        """Whether frames (H, W, C) are already preprocessed; raises FramesNotUsable if `said` does not fit their shape."""
        has_size = shape[:2] == self._frame_shape
        if said and not has_size:
            raise FramesNotUsable(f"{self._given(shape)}; leave out preprocessed=True for the environment's frames")
        if has_size and said is None and self._is_size_ambiguous:
            assert self._trained_on is not None
            raise FramesNotUsable(
                f"frames of {shape[0]}x{shape[1]} may be recorded ones or the environment's own, which are cropped to "
                f"{self._trained_on.preprocessing.crop} for the VAE: say which with preprocessed=True or preprocessed=False"
            )
        return has_size if said is None else said

    def _given(self, shape: tuple[int, ...]) -> str:
        height, width = self._frame_shape
        return f"expected frames of {height}x{width}, got {shape[0]}x{shape[1]}"

    def _resizing(self, raw_shape: tuple[int, ...]) -> Any:
        """The function from a frame of this shape to one of the VAE's size; raises FramesNotUsable if it is not known."""
        given = self._given(raw_shape)
        if self._trained_on is None:
            height, width = self._frame_shape
            raise FramesNotUsable(
                f"{given}, and the weights of {self._source} do not say how frames are preprocessed",
                remedy=f"train the VAE with wm-train, or give frames that are preprocessed to {height}x{width}",
            )
        try:
            from worldmodel_v.envs.frames import FramePreprocessor
        except ModuleNotFoundError as error:
            raise PackageMissing(
                f"{given}; resizing them needs {error.name}, which is not installed",
                remedy=f"pip install {error.name}, or give preprocessed frames",
            ) from None

        env, preprocessing = self._trained_on.env, self._trained_on.preprocessing
        crop, profile = preprocessing.crop, profile_of(env)
        if profile and crop == profile.crop and raw_shape[:2] != profile.sides:
            raise FramesNotUsable(
                f"{given}; of {env} give the agent's frames, {profile.sides[0]}x{profile.sides[1]}, or preprocessed ones"
            )
        try:
            return FramePreprocessor(raw_shape, preprocessing)
        except ConfigError:
            raise FramesNotUsable(
                f"{given}, which the crop {crop} of {env} does not fit; give the environment's frames, or preprocessed ones"
            ) from None

    def _condition(self, condition: np.ndarray | None, frames: np.ndarray, single: bool) -> np.ndarray | None:
        """float32 (B, K); raises ModelNotUsable unless there is one for each frame."""
        if condition is None:
            return None
        values = np.array(condition, np.float32)
        expected = (self._model.config.condition_dim,) if single else (len(frames), self._model.config.condition_dim)
        if values.shape != expected:
            raise ModelNotUsable(
                field="condition", expected=f"the shape {expected} for frames of {frames.shape}", got=values.shape
            )
        return values[None] if single else values


def _require_frames(frames: np.ndarray) -> None:
    """Raise FramesNotUsable unless it is a uint8 array (H, W, C) or (B, H, W, C) with C = 3 or 1."""
    if not isinstance(frames, np.ndarray):
        raise FramesNotUsable(expected="frames as a numpy array", got=type(frames).__name__)
    if frames.dtype != np.uint8:
        raise FramesNotUsable(expected="frames of uint8, 0 to 255 as the environment gives them", got=frames.dtype)
    if frames.ndim not in (3, 4) or frames.shape[-1] not in (1, 3):
        first = frames.ndim in (3, 4) and frames.shape[-3] in (1, 3)
        hint = "; the channels stand first: np.moveaxis(frames, -3, -1) puts them last" if first else ""
        raise FramesNotUsable(expected="frames of shape (H, W, 3) or (B, H, W, 3)", got=f"{frames.shape}{hint}")
    if frames.size == 0:
        raise FramesNotUsable(expected="at least one frame", got=f"the shape {frames.shape}")
