"""Frames to latents and back. Needs torch, numpy and safetensors only."""

from worldmodel_v.autoencoders.frames import frames_to_input, output_to_frames

__all__ = ["frames_to_input", "output_to_frames"]
