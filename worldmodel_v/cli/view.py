"""`wm-view`: one page to scrub through episodes, move the latents, and drive inside the world model."""

from worldmodel_v.cli.main import run


def main() -> None:
    """Entry point of `wm-view`."""
    from worldmodel_v.view import ViewConfig, view

    run("wm-view", ViewConfig, view, kept="nothing is written, and the same command begins anew")
