"""Rollouts -> latents: a batch of frames (`inference`), shards (`encoder`), the whole run (`stage`), and one frame in a
controller's loop (`controller`)."""

from worldmodel_v.encoding.config import EncodeConfig
from worldmodel_v.encoding.controller import Encoder, Encoding
from worldmodel_v.encoding.inference import encode_frames, inference_encoder
from worldmodel_v.encoding.stage import EncodeReport, encode

__all__ = ["EncodeConfig", "EncodeReport", "Encoder", "Encoding", "encode", "encode_frames", "inference_encoder"]
