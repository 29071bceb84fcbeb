"""Frames to latents and back: the interface (`base`), autoencoders by name (`registry`), a trained one on disk (`artifact`),
the VAE (`gaussian`). Needs torch, numpy and safetensors only."""

from worldmodel_v.autoencoders.artifact import Trained, TrainedOn, load, save
from worldmodel_v.autoencoders.base import (
    Autoencoder,
    AutoencoderConfig,
    AutoencoderSettings,
    Batch,
    Drawn,
    Latents,
    Loss,
    Reconstructed,
    Score,
)
from worldmodel_v.autoencoders.frames import frames_to_input, output_to_frames
from worldmodel_v.autoencoders.registry import autoencoder_class

__all__ = [
    "Autoencoder",
    "AutoencoderConfig",
    "AutoencoderSettings",
    "Batch",
    "Drawn",
    "Latents",
    "Loss",
    "Reconstructed",
    "Score",
    "Trained",
    "TrainedOn",
    "autoencoder_class",
    "frames_to_input",
    "load",
    "output_to_frames",
    "save",
]
