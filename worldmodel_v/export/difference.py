"""The difference between an exported encoder or decoder and the original on held-out frames, and how large it may be.

The original is the VAE as wm-encode runs it, not the module that was exported. The first batch has one row, the second two,
the others many, so a file that works only for the number of rows of the examples does not pass.
"""

from dataclasses import dataclass

import numpy as np
import torch

from worldmodel_v.autoencoders import output_to_frames
from worldmodel_v.autoencoders.gaussian import GaussianAutoencoder
from worldmodel_v.encoding import encode_frames
from worldmodel_v.errors import ModelFailed
from worldmodel_v.export.formats import Arrays, Runner
from worldmodel_v.surface import option

BATCH = 64
ROUNDING = 1e-3
"""The largest error of mu and logvar, as a share of the largest value (or of 1): float32 in another order gives 1e-5."""

QUANTISATION = 0.2
"""The largest error of 8-bit mu, as a share of mu's spread over frames; both are root mean squares."""

PIXEL_LEVELS = 1
"""The largest error of a decoded pixel, in levels of 255, because rounding may give the neighbouring level."""


@dataclass(frozen=True)
class Probe:
    """Held-out frames: the inputs of encoder and decoder, and the outputs of the original."""

    encoder_inputs: Arrays
    latents: Arrays
    """mu, logvar: float32 (n, Z) or (n, h, w, c)"""

    decoder_inputs: Arrays
    """mu, and for a conditional VAE the condition."""

    frames: np.ndarray
    """uint8 (n, H, W, 3): what is decoded from mu."""


def probe(model: GaussianAutoencoder, inputs: Arrays) -> Probe:
    """Run the original on frames, uint8 (n, H, W, 3), and for a conditional VAE their conditions, float32 (n, K)."""
    cpu = torch.device("cpu")

    def encode(frames: np.ndarray, condition: np.ndarray | None = None) -> Arrays:
        latents = encode_frames(model, frames, cpu, condition_BK=condition)
        return tuple(latents[name].numpy() for name in ("mu", "logvar"))

    def decode(z: np.ndarray, condition: np.ndarray | None = None) -> Arrays:
        with torch.inference_mode():
            told = None if condition is None else torch.from_numpy(condition)
            return (output_to_frames(model.decode({"mu": torch.from_numpy(z)}, told)).numpy(),)

    latents = in_batches(encode, inputs)
    decoder_inputs = (latents[0], *inputs[1:])
    return Probe(inputs, latents, decoder_inputs, in_batches(decode, decoder_inputs)[0])


def in_batches(run: Runner, inputs: Arrays) -> Arrays:
    """The outputs for all rows: first of one row alone, then of two, then of 64 at a time."""
    cuts = [1, 3, *range(3 + BATCH, len(inputs[0]), BATCH)]
    pieces = zip(*(np.split(array, [cut for cut in cuts if cut < len(array)]) for array in inputs), strict=True)
    return tuple(np.concatenate(outputs) for outputs in zip(*(run(*piece) for piece in pieces), strict=True))


def encoder_difference(name: str, run: Runner, expected: Probe, *, quantised: bool) -> dict[str, float]:
    """The error of mu and logvar; raises ModelFailed if it is larger than rounding, or quantisation, explains."""
    found = in_batches(run, expected.encoder_inputs)
    (mu, logvar), errors = expected.latents, [np.abs(a - b) for a, b in zip(found, expected.latents, strict=True)]
    spread = float(np.sqrt(np.square(mu - mu.mean(axis=0)).mean()))
    difference = {
        "max_mu": float(errors[0].max()),
        "mean_mu_in_sigma": float((errors[0] / np.exp(0.5 * logvar)).mean()),
        "rms_mu_in_spread": float(np.sqrt(np.square(errors[0]).mean())) / max(spread, 1e-12),
        "max_logvar": float(errors[1].max()),
    }
    if quantised:
        _require(difference["rms_mu_in_spread"], QUANTISATION, f"{name}: mu in 8 bits is off by {{}} of its spread")
    else:
        for what, error, values in zip(("mu", "logvar"), errors, expected.latents, strict=True):
            share = float(error.max()) / max(1.0, float(np.abs(values).max()))
            _require(share, ROUNDING, f"{name}: {what} is off by {{}} of the largest")
    return difference


def decoder_difference(name: str, run: Runner, expected: Probe) -> dict[str, float]:
    """The error of pixels, in levels of 255; raises ModelFailed if it is larger than rounding explains."""
    (found,) = in_batches(run, expected.decoder_inputs)
    levels = np.abs(found.astype(np.int16) - expected.frames)
    difference = {"max_levels": float(levels.max()), "mean_levels": float(levels.mean())}
    _require(difference["max_levels"], PIXEL_LEVELS, f"{name}: pixels are off by up to {{}} of 255 levels")
    return difference


def _require(found: float, allowed: float, what: str) -> None:
    if not found <= allowed:  # NaN is no difference that is allowed
        raise ModelFailed(
            f"{what.format(f'{found:.2g}')} on held-out frames, {allowed:g} is allowed; nothing was written",
            remedy=f"leave the format out of {option('formats')}, or train the VAE further",
        )
