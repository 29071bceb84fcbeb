"""What `wm-inspect` shows a person: one screen, with rounded figures; `--json` has everything."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table

from worldmodel_v.cli.tables import NOTHING, add_facts, facts_table, in_words, rounded
from worldmodel_v.cli.terminal import plain, results
from worldmodel_v.storage.layout import MAX_ROWS_PER_EPISODE
from worldmodel_v.words import counted, sized

HEAD = ("kind", "path", "episodes", "rows", "shards", "bytes", "bytes_per_row")
PER_POLICY = ("tiles_visited", "full_laps", "off_road", "spinning", "standing")
"""Columns of the table of policies beside the number of episodes: means over episodes, and shares of frames."""

SAID = ("alignment", "driving", "run", "set_aside")
"""Facts that have rows or tables of their own."""

FIGURES = {"train": "training", "held-out": "held out, sample", "held_out": "held out, all"}
MAX_SET_ASIDE = 5
"""Failed episodes that are listed."""


def print_overview(facts: dict[str, Any]) -> None:
    """Print the facts of a dataset or of a training: what there is, how far it is, then its content and its settings."""
    console, table = results(), facts_table()
    table.add_row(plain(facts["kind"]), plain(facts["path"]))
    if "rows" in facts:
        table.add_row("content", plain(_content(facts)))
    if run := facts.get("run"):
        unit = "steps" if facts["kind"] == "vae" else "episodes"
        table.add_row("state", plain(_state(run, unit)))
        table.add_row("latest run", plain(_latest_run(run, unit)))
    failed = facts.get("set_aside") or []
    for number, episode in enumerate(failed[:MAX_SET_ASIDE]):
        words = f"episode {episode['episode']} (seed {episode['seed']}, {episode['tries']} tries): {episode['reason']}"
        table.add_row("" if number else "set aside", plain(words))
    if len(failed) > MAX_SET_ASIDE:
        table.add_row("", f"and {len(failed) - MAX_SET_ASIDE} more, which --json lists")
    if judged := facts.get("alignment"):
        table.add_row("actions", plain(_alignment(judged)))
    left = {name: value for name, value in facts.items() if name not in (*HEAD, *SAID)}
    settings = _settings(left.pop("settings", None) or {}, {**facts, **(facts.get("model") or {})})
    settings, imported = _without_import(settings)
    settings, selection = _without_selection(settings)
    figures = {**(left.pop("latest", None) or {}), "held_out": left.pop("held_out", None)}
    add_facts(table, left)
    for name in ("env", "policy"):
        if name in settings:
            table.add_row(name, plain(in_words(settings.pop(name))))
    add_facts(table, {"settings": settings})
    if imported:
        table.add_row("imported", plain(_import_text(imported)))
    for name, words in selection:
        table.add_row(name, plain(words))
    console.print(table)
    for more in (_policies(facts.get("driving") or []), _figures(figures)):
        if more:
            console.print()
            console.print(more)


def _content(facts: Mapping[str, Any]) -> str:
    """The sizes of a dataset."""
    shards = f"{counted(facts['shards'], 'shard', ',')} of {sized(facts['bytes'])}"
    return f"{counted(facts['episodes'], 'episode', ',')}, {counted(facts['rows'], 'frame', ',')}, {shards}"


def _state(run: Mapping[str, Any], unit: str) -> str:
    wanted = "" if run["wanted"] is None else f" of {run['wanted']:,}"
    halves = f"; {counted(len(run['temporaries']), 'file')} half-written" if run["temporaries"] else ""
    return f"{run['state']}: {run['done']:,}{wanted} {unit}{halves}"


def _latest_run(run: Mapping[str, Any], unit: str) -> str:
    """When the present or last process began, and what it has brought."""
    words = f"started {_moment(run['started'])}"
    if run["per_second"] is not None:
        words += f", latest {_moment(run['latest'])}, {rounded(run['per_second'])} {unit}/s"
    elif run["latest"] is not None:
        words += f", nothing new since ({_moment(run['latest'])})"
    return f"{words}; process {run['process']}"


def _alignment(judged: Mapping[str, Any]) -> str:
    """The verdict and its evidence."""
    by = f" by {judged['rows']}" if judged["rows"] else ""
    return f"{judged['verdict']}{by}: {judged['evidence']}"


def _moment(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"


def _settings(settings: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that say something, and are not said already; `max_steps` of whole episodes says nothing."""
    said = {"max_steps": MAX_ROWS_PER_EPISODE - 1, **said}
    return {name: value for name, value in settings.items() if value not in NOTHING and said.get(name, NOTHING) != value}


def _without_import(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings without whose recording the episodes are, and that; a selection of several has it in its origins."""
    source = settings.get("source") or {}
    selection = settings.get("selection") or source.get("selection") or {"differ": []}
    is_one = "imported" not in selection["differ"]
    imported = (settings.get("imported") or source.get("imported") or {}) if is_one else {}
    left = {name: value for name, value in settings.items() if name != "imported"}
    if source:
        left["source"] = {name: value for name, value in source.items() if name != "imported"}
    return left, imported


def _import_text(imported: Mapping[str, Any]) -> str:
    """In one line; `--json` names every file."""
    files = f"{counted(imported['num_files'], 'file', ',')} (list {imported['files_sha256'][:12]}…)"
    licence = f"licence {imported['licence']}" if imported["licence"] else "no licence named"
    lacks = f"lacks {', '.join(imported['lacks'])}" if imported["lacks"] else "lacks nothing"
    return f"from {imported['format']}, {files}, {licence}, {lacks}"


def _import_of(settings: Mapping[str, Any], differ: Sequence[str]) -> dict[str, str]:
    """How a collection was imported, if the collections of a selection differ in that."""
    return {"imported": _import_text(settings["imported"])} if "imported" in differ and settings.get("imported") else {}


def _without_selection(settings: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The settings that all episodes have in common, and for a selection what was asked for and where its episodes are from."""
    source = settings.get("source") or {}
    selection = settings.get("selection") or source.get("selection")
    if not selection:
        return settings, []
    left = {name: value for name, value in settings.items() if name not in ("selection", "source", *selection["differ"])}
    if source:
        left["source"] = {name: value for name, value in source.items() if name not in ("selection", *selection["differ"])}
    asked = {name: value for name, value in selection.items() if name not in ("datasets", "origins", "differ")}
    origins = [
        {name: original["settings"].get(name) for name in ("env", "policy", "seed")}
        | _import_of(original["settings"], selection["differ"])
        | {"spec_hash": original["spec_hash"]}
        for original in selection["origins"]
    ]
    datasets = [{name: value for name, value in each.items() if name != "selection"} for each in selection["datasets"]]
    lines: list[tuple[str, list[Any]]] = [("selected", [asked or "all"]), ("selected from", datasets), ("made by", origins)]
    return left, [("" if place else name, in_words(each)) for name, values in lines for place, each in enumerate(values)]


def _policies(driving: list[dict[str, Any]]) -> Table | None:
    """How each policy drove: a row each."""
    if not driving:
        return None
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("policy", overflow="fold")
    for name in ("episodes", *(name.replace("_", "\n") for name in PER_POLICY), "usual speed\n(units/s)"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in driving:
        speeds = row["frames_by_speed"]
        shares = [f"{row[name]:.0%}" for name in PER_POLICY]
        table.add_row(plain(row["policy"]), str(row["episodes"]), *shares, max(speeds, key=speeds.__getitem__))
    return table


def _figures(figures: Mapping[str, Mapping[str, Any] | None]) -> Table | None:
    """What a training has measured: a row for each figure, a column for each group that has some."""
    groups = {FIGURES[name]: group for name, group in figures.items() if group}
    if not groups:
        return None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("figure", style="bold")
    for name in groups:
        table.add_column(name, justify="right")
    for figure in dict.fromkeys(name for group in groups.values() for name in group):
        table.add_row(plain(figure), *(plain(rounded(group[figure])) if figure in group else "" for group in groups.values()))
    return table
