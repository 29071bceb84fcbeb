"""Rollouts -> latents: one shard (`encoder`), the whole run (`stage`)."""

from worldmodel_v.encode.config import EncodeConfig
from worldmodel_v.encode.encoder import encode_frames
from worldmodel_v.encode.stage import EncodeReport, encode

__all__ = ["EncodeConfig", "EncodeReport", "encode", "encode_frames"]
