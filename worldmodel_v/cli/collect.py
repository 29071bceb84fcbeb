"""`wm-collect`: roll out episodes into a dataset."""

from worldmodel_v.cli.following import after_collect
from worldmodel_v.cli.main import run


def main() -> None:
    """Entry point of `wm-collect`."""
    from worldmodel_v.collection import CollectConfig, collect
    from worldmodel_v.execution import Apart

    run("wm-collect", CollectConfig, collect, beside=lambda config: Apart(), following=after_collect)
