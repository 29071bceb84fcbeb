"""A user's loop: it stops when it likes, and the same call continues."""

from contextlib import closing

from worldmodel_v.training import TrainConfig, open_training


def train_until(config: TrainConfig, last_step: int) -> list[float]:
    """The loss of each step up to `last_step`."""
    losses = []
    with open_training(config) as run, closing(run.batches()) as batches:
        while run.step < last_step:
            losses.append(float(run.take_step(next(batches))["loss"]))
        run.save()
    return losses
