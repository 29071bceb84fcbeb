"""Rollouts -> latents: a batch of frames (`inference`), one shard (`encoder`), the whole run (`stage`)."""

from worldmodel_v.encode.config import EncodeConfig
from worldmodel_v.encode.inference import encode_frames, inference_encoder
from worldmodel_v.encode.stage import EncodeReport, encode

__all__ = ["EncodeConfig", "EncodeReport", "encode", "encode_frames", "inference_encoder"]
