"""`wm-train`: fit a VAE to the frames of a rollout dataset."""

from worldmodel_v.cli.following import after_train
from worldmodel_v.cli.main import run


def main() -> None:
    """Entry point of `wm-train`."""
    from worldmodel_v.training import TrainConfig, train

    run("wm-train", TrainConfig, train, following=after_train)
