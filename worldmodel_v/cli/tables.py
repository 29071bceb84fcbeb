"""Results as tables for a person to read."""

import re
from typing import Any

from rich.table import Table

from worldmodel_v.cli.terminal import plain, results
from worldmodel_v.words import counted, figure_in_words, sized

SHA256 = re.compile("[0-9a-f]{64}")
NOTHING: tuple[Any, ...] = (None, [], (), {}, "{}", "")
"""What is left out of facts."""


def print_facts(facts: dict[str, Any]) -> None:
    """Print facts by name, nested facts indented, numbers rounded."""
    table = facts_table()
    add_facts(table, facts)
    results().print(table)


def facts_table() -> Table:
    """A table of names and what they are."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def print_model_export(report: Any) -> None:
    """Print the files of an exported model, and how far each is from the original."""
    console = results()
    console.print(
        plain(f"{report.out}  compared with the original on {report.checked_frames} held-out frames:"), soft_wrap=True
    )
    for file in report.files:
        console.print(plain(f"- {file}"), soft_wrap=True)


def print_hub_export(report: Any) -> None:
    """Print what was written for the Hub, and where it is or how it gets there."""
    console = results()
    console.print("done", style="bold")
    console.print(plain(f"{report.out}  {report.kind}: {counted(report.files, 'file')}, {sized(report.bytes)}"), soft_wrap=True)
    for note in report.notes:
        console.print(plain(f"- {note}"), soft_wrap=True)
    console.print(plain(f"uploaded to {report.url}" if report.url else f"upload it: {report.upload_with}"), soft_wrap=True)


def print_pipeline(report: Any) -> None:
    """Print what a pipeline made, and how good its autoencoder is on held-out episodes."""
    from worldmodel_v.autoencoders.base import readable_figures

    console = results()
    heldout = report.train.heldout
    figures = readable_figures({name: value for name, value in heldout.items() if name != "num_frames"})
    title = f"The autoencoder on {counted(heldout['num_frames'], 'frame')} of held-out episodes"
    quality = Table(show_header=False)
    quality.add_column(style="bold")
    quality.add_column(justify="right")
    for name, figure in figures.items():
        quality.add_row(plain(figure_in_words(name)), plain(figure))
    console.print("everything was done already" if report.did_nothing else "done", style="bold")
    console.print(plain(title), soft_wrap=True)
    console.print(quality)
    made = {
        report.collect.out: f"rollouts: {counted(report.collect.episodes, 'episode')}, {report.collect.frames} frames",
        report.preview: "frames of some of the rollouts",
        report.train.out: f"autoencoder: {counted(report.train.steps, 'step')}",
        report.train.picture: "held-out frames above their reconstructions",
        **({report.eval.page: "what its latents are worth, one page"} if report.eval else {}),
        report.encode.out: f"latents: {counted(report.encode.episodes, 'episode')}, {counted(report.encode.rows, 'row')}",
    }
    for path, what in made.items():
        console.print(plain(f"{path}  {what}"), soft_wrap=True)


def print_evaluation(report: Any) -> None:
    """Print how good the latents of a VAE are, and where the page is."""
    console, summary = results(), report.summary
    measured = f"{counted(summary.num_frames, 'frame')} of {counted(summary.num_episodes, 'held-out episode')}"
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("PSNR", f"{summary.psnr_db:.2f} dB")
    table.add_row("SSIM", f"{summary.ssim:.3f}")
    if summary.without_zoom is not None:
        table.add_row("PSNR without the zoom-in", f"{summary.without_zoom.psnr_db:.2f} dB")
        table.add_row("SSIM without the zoom-in", f"{summary.without_zoom.ssim:.3f}")
    if summary.elbo_nats is not None:
        _add_gaussian_rows(table, summary)
    if summary.perplexity is not None:
        _add_token_rows(table, summary)
    console.print("everything was done already" if report.did_nothing else "done", style="bold")
    console.print(plain(f"The autoencoder on {measured}"), soft_wrap=True)
    console.print(table)
    console.print(plain(f"{report.page}  open it in a browser"), soft_wrap=True)


def _add_gaussian_rows(table: Table, summary: Any) -> None:
    table.add_row("ELBO", f"{summary.elbo_nats:.1f} nats")
    table.add_row("bits per dimension", f"{summary.bits_per_dimension:.3f}")
    table.add_row("KL", f"{summary.kl_nats:.1f} nats")
    table.add_row("active units", f"{summary.active_units} of {summary.latent_dim}")
    table.add_row("distance from the prior", f"{summary.prior_kl_nats:.1f} nats")
    table.add_row("SAP, MIG", f"{_or_dash(summary.sap, '.3f')}, {_or_dash(summary.mig, '.3f')}")


def _add_token_rows(table: Table, summary: Any) -> None:
    table.add_row("perplexity of the codes", f"{summary.perplexity:.1f}")
    table.add_row("dead codes", f"{summary.dead_codes} of {summary.num_codes}")
    table.add_row("entropy of a frame's tokens", f"{summary.entropy_bits:.1f} of {summary.capacity_bits:.1f} bits")


def print_export(report: Any) -> None:
    """Print what an export wrote, how its rows align, and what its format does not hold."""
    console = results()
    what = f"{counted(report.episodes, 'episode')}, {counted(report.rows, 'row')}, {sized(report.bytes)}"
    console.print("done", style="bold")
    console.print(plain(f"{report.out}  {report.format}: {what}"), soft_wrap=True)
    console.print(plain(f"rows: {report.alignment}"), soft_wrap=True)
    console.print("nothing is lost" if not report.notes else "what differs from the dataset:", style="bold")
    for note in report.notes:
        console.print(plain(f"- {note}"), soft_wrap=True)


def print_import(report: Any) -> None:
    """Print what an import made, what the recording lacks, and where its actions are."""
    console = results()
    console.print("done", style="bold")
    what = f"{counted(report.episodes, 'episode')}, {report.frames} frames ({counted(report.new_episodes, 'new episode')})"
    console.print(plain(f"{report.out}  from {report.format}: {what}"), soft_wrap=True)
    if report.alignment:
        console.print(plain(f"actions: {report.alignment}"), soft_wrap=True)
    console.print("nothing is lost" if not report.notes else "what the recording lacks, or is left out:", style="bold")
    for note in report.notes:
        console.print(plain(f"- {note}"), soft_wrap=True)


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def add_facts(table: Table, facts: dict[str, Any], indent: str = "") -> None:
    """A row for each fact. The facts in a list, and the columns of a dataset, are rows below it."""
    for name, value in facts.items():
        if value is not None and value in NOTHING:  # JSON has it
            continue
        nested = value if isinstance(value, list) else [value] if name == "columns" else []
        if nested and all(isinstance(item, dict) and item for item in nested):
            table.add_row(plain(indent + name), "")
            for item in nested:
                add_facts(table, item, indent + "  ")
        else:
            table.add_row(plain(indent + name), plain(in_words(value)))


def in_words(value: Any) -> str:
    """A value for a person: numbers are rounded, hashes cut, facts and lists on one line, without what is empty."""
    if value is None or value == {}:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(item)}" for name, item in value.items() if item not in NOTHING)
    return ", ".join(map(in_words, value)) if isinstance(value, list | tuple) else rounded(value)


def rounded(value: Any) -> str:
    """A number with four digits, or with all those before the point; what is no such number as it is."""
    if isinstance(value, str) and SHA256.fullmatch(value):
        return f"{value[:12]}…"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
