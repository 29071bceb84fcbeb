"""Frames -> a VAE.

The loop (`trainer`) and its settings (`config`), a step (`run`), several cores (`parts`) and several processes taking it
together (`share`, `distributed`), its optimiser (`optimizers`) and what changes with the step (`schedules`), losses beside the
autoencoder's own (`extras`, chosen by `extra_settings`; those against blur in `sharpness`, that against dependent latents in
`correlation`; networks that learn beside it, `adversary`), its state (`checkpoint`, `best`), its record (`metrics`),
its health (`health`), what it leaves (`publication`). `open_training` is for a loop of one's own.
"""

from worldmodel_v.training.config import LoopConfig, TrainConfig, train_config
from worldmodel_v.training.run import TrainingRun
from worldmodel_v.training.trainer import TrainReport, open_training, train

__all__ = ["LoopConfig", "TrainConfig", "TrainReport", "TrainingRun", "open_training", "train", "train_config"]
