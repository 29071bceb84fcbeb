"""`wm-collect`: roll out episodes into a dataset."""

from worldmodel_v.cli.hashing import hash_alike


def main() -> None:
    """Entry point of `wm-collect`."""
    hash_alike()
    from worldmodel_v.cli.following import after_collect
    from worldmodel_v.cli.main import run
    from worldmodel_v.collection import CollectConfig, collect
    from worldmodel_v.execution import Apart

    run("wm-collect", CollectConfig, collect, beside=lambda config: Apart(), following=after_collect)
