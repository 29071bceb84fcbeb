"""Frames -> a VAE: the loop (`trainer`), its settings (`config`), its state (`checkpoint`), its record (`metrics`)."""

from worldmodel_v.train.config import TrainConfig
from worldmodel_v.train.trainer import TrainReport, train

__all__ = ["TrainConfig", "TrainReport", "train"]
