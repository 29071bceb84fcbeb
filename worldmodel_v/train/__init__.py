"""Frames -> a VAE.

The loop (`trainer`), its settings (`config`), one step (`run`), steps by several processes together (`share`, `distributed`),
the optimiser (`optimizers`), settings that change with the step (`schedules`), the state on disk (`checkpoint`, `best`), the
record (`metrics`), warnings (`health`), and the results (`publication`). `open_training` is for a loop of your own.
"""

from worldmodel_v.train.config import TrainConfig
from worldmodel_v.train.run import TrainingRun
from worldmodel_v.train.trainer import TrainReport, open_training, train

__all__ = ["TrainConfig", "TrainReport", "TrainingRun", "open_training", "train"]
