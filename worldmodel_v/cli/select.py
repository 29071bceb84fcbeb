"""`wm-select`: merge, filter, split: chosen episodes of datasets into a new one."""

from worldmodel_v.cli.following import after_select
from worldmodel_v.cli.main import run


def main() -> None:
    """Entry point of `wm-select`."""
    from worldmodel_v.selection import SelectConfig, select

    run("wm-select", SelectConfig, select, following=after_select)
