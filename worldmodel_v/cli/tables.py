"""Results as tables for a person to read."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 240


def print_facts(facts: dict[str, Any]) -> None:
    """Facts by name; nested ones indented below theirs."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    _add_rows(table, facts, indent="")
    _console().print(table)


def print_pipeline(report: Any) -> None:
    """What a pipeline made, and how good its VAE is on held-out episodes."""
    console = _console()
    heldout = report.train.heldout
    quality = Table(title=f"The VAE on {heldout.num_frames} frames of held-out episodes", title_justify="left")
    for heading in ("PSNR", "squared error a frame", "KL", "active units"):
        quality.add_column(heading, justify="right")
    quality.add_row(
        f"{heldout.psnr_db:.1f} dB",
        f"{heldout.squared_error:.1f}",
        f"{heldout.kl_nats:.1f} nats",
        f"{heldout.active_units} of {heldout.latent_dim}",
    )
    console.print("everything was done already" if report.did_nothing else "done", style="bold")
    console.print(quality)
    made = {
        report.collect.out: f"rollouts: {report.collect.episodes} episodes, {report.collect.frames} frames",
        report.preview: "frames of some of the rollouts",
        report.train.out: f"VAE: {report.train.steps} steps",
        report.train.picture: "held-out frames above their reconstructions",
        report.encode.out: f"latents: {report.encode.episodes} sequences, {report.encode.rows} rows",
    }
    for path, what in made.items():
        console.print(Text(f"{path}  {what}"), soft_wrap=True)


def _console() -> Console:
    """As wide as the terminal; piped, so wide that no path or hash is folded."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def _add_rows(table: Table, facts: dict[str, Any], indent: str) -> None:
    for name, value in facts.items():
        nested = value if isinstance(value, list) else [value]
        if nested and all(isinstance(item, dict) and item and not _is_short(item) for item in nested):
            table.add_row(Text(indent + name), "")
            for item in nested:
                _add_rows(table, item, indent + "  ")
        else:
            table.add_row(Text(indent + name), Text(_text(value)))


def _text(value: Any) -> str:
    if value is None or value == {} or value == []:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_short(value: dict[str, Any]) -> bool:
    return all(isinstance(item, int | float) for item in value.values())
