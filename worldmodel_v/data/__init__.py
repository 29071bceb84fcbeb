"""Committed shards -> what a training loop needs: shuffled frames for the VAE, latent windows for an MDN-RNN."""

from worldmodel_v.data.conditions import condition_reader, condition_rows, measure_condition, read_conditions
from worldmodel_v.data.frames import FrameBatch, FrameStream, read_frames
from worldmodel_v.data.latent_stream import LatentStream
from worldmodel_v.data.sequences import LatentSequences
from worldmodel_v.data.split import Split, is_held_out, require_split

__all__ = [
    "FrameBatch",
    "FrameStream",
    "LatentSequences",
    "LatentStream",
    "Split",
    "condition_reader",
    "condition_rows",
    "is_held_out",
    "measure_condition",
    "read_conditions",
    "read_frames",
    "require_split",
]
