"""Committed shards -> what a training loop eats: shuffled frames for the VAE, latent windows for an MDN-RNN."""

from worldmodel_v.data.frames import FrameBatch, FrameStream, read_frames
from worldmodel_v.data.sequences import LatentSequences
from worldmodel_v.data.split import is_held_out, require_split

__all__ = ["FrameBatch", "FrameStream", "LatentSequences", "is_held_out", "read_frames", "require_split"]
