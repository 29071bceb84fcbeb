"""Frames -> a VAE.

The loop (`trainer`) and its settings (`config`), a step (`run`) and several processes taking it together (`share`,
`distributed`), its state (`checkpoint`, `best`), its record (`metrics`), its health (`health`), what it leaves (`publication`).
"""

from worldmodel_v.train.config import TrainConfig
from worldmodel_v.train.trainer import TrainReport, train

__all__ = ["TrainConfig", "TrainReport", "train"]
