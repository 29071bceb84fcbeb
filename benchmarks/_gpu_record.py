"""The results of `gpu.py`, written to disk after every line: `gpu.json`, and `gpu.md`, which is made only from that."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worldmodel_v.storage.publish import publish

JSON_NAME, TABLES_NAME = "gpu.json", "gpu.md"
JUDGED_ON = "H100"
"""The aims are for devices with this in their name."""

Figure = float | int | bool | str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One finding."""

    what: str
    figure: Figure
    unit: str = ""
    holds: bool | None = None
    """Whether the result is as required; None if nothing is required."""

    note: str = ""
    aim: str = ""
    """The name of the aim in `AIMS` that it counts for."""


@dataclass(frozen=True)
class Aim:
    """A goal for some figures on one H100."""

    text: str
    bound: float
    at_least: bool = True

    def is_met(self, figure: float) -> bool:
        return figure >= self.bound if self.at_least else figure <= self.bound


AIMS = {
    "plain": Aim("training on shards, over the plain loop: at least 5 times its frames a second", 5.0),
    "fed": Aim("training on shards, over training on a resident batch: at least 0.9", 0.9),
    "epoch": Aim("an epoch of 10 million frames for conv: at most 60 s", 60.0, at_least=False),
    "encoding": Aim("encoding from shards to shards: at least 1,000,000 frames a second", 1e6),
}


class Record:
    """The parts so far; every change rewrites the files."""

    def __init__(self, out: Path, head: dict[str, Any]) -> None:
        """`head` records the device, the versions and the data of the figures."""
        self._out = out
        self._content: dict[str, Any] = {**head, "parts": [], "aims": judged([], head["device"])}
        out.mkdir(parents=True, exist_ok=True)

    @property
    def is_sound(self) -> bool:
        """Whether no part has failed, and every required result holds."""
        parts = self._content["parts"]
        return all(part["state"] != "failed" and all(line["holds"] is not False for line in part["lines"]) for part in parts)

    @property
    def summary(self) -> str:
        """The number of parts in each state, and the number of lines that do not hold."""
        states = Counter(part["state"] for part in self._content["parts"])
        broken = sum(line["holds"] is False for part in self._content["parts"] for line in part["lines"])
        return f"{', '.join(f'{count} parts {state}' for state, count in states.items())}; {broken} lines do not hold"

    def begin(self, name: str, title: str, kind: str) -> None:
        """A part has begun. Until it ends, it is recorded as cut off."""
        part = {"name": name, "title": title, "kind": kind, "state": "cut off", "reason": "the run ended here", "seconds": None}
        self._content["parts"].append(part | {"lines": []})
        self._write()

    def add(self, line: Line) -> None:
        """One more line of the part that has begun."""
        figure = line.figure
        if isinstance(figure, float) and not math.isfinite(figure):  # JSON has no such number
            figure = str(figure)
        self._content["parts"][-1]["lines"].append({**asdict(line), "figure": figure})
        self._content["aims"] = judged(self._content["parts"], self._content["device"])
        self._write()

    def end(self, state: str, seconds: float, reason: str = "") -> None:
        """The part that has begun is "done", "failed" or "skipped"."""
        self._content["parts"][-1] |= {"state": state, "seconds": round(seconds, 1), "reason": reason}
        self._write()

    def _write(self) -> None:
        content = json.dumps(self._content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        publish(self._out / JSON_NAME, content.encode())
        publish(self._out / TABLES_NAME, as_markdown(self._content).encode())


def judged(parts: Sequence[dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """Each aim, the figures that count for it, and whether all, some or none of them meet it."""
    aims = []
    for name, aim in AIMS.items():
        figures = {line["what"]: line["figure"] for part in parts for line in part["lines"] if line["aim"] == name}
        met = [isinstance(figure, float | int) and aim.is_met(figure) for figure in figures.values()]
        verdict = "not measured" if not met else "met" if all(met) else "met in part" if any(met) else "not met"
        if met and JUDGED_ON not in device:
            verdict = f"not judged: {device} is no {JUDGED_ON}"
        aims.append({"aim": aim.text, "figures": figures, "verdict": verdict})
    return aims


def as_markdown(content: dict[str, Any]) -> str:
    """`gpu.md`, from what `gpu.json` holds."""
    parts = content["parts"]
    blocks = [
        f"# On {content['device']}",
        "\n".join(f"- {name}: {value}" for name, value in content.items() if name not in ("device", "parts", "aims")),
        "## Aims\n\n" + _table(("aim, on one H100", "found", "verdict"), [_aim_cells(aim) for aim in content["aims"]]),
    ]
    for kind in ("check", "measure"):
        blocks.append(f"## {kind.capitalize()}s")
        blocks += [_part_block(part) for part in parts if part["kind"] == kind]
    return "\n\n".join(blocks) + "\n"


def _part_block(part: dict[str, Any]) -> str:
    seconds = "" if part["seconds"] is None else f", {part['seconds']} s"
    reason = f": {part['reason']}" if part["reason"] else ""
    block = f"### {part['title']}\n\n{part['state']}{seconds}{reason}"
    rows = [_cells(line) for line in part["lines"]]
    return f"{block}\n\n{_table(('', 'figure', 'holds', 'note'), rows)}" if rows else block


def _cells(line: dict[str, Any]) -> tuple[str, ...]:
    holds = {None: "", True: "yes", False: "**no**"}[line["holds"]]
    return line["what"], f"{in_words(line['figure'])} {line['unit']}".strip(), holds, line["note"]


def _aim_cells(aim: dict[str, Any]) -> tuple[str, ...]:
    found = "; ".join(f"{what}: {in_words(figure)}" for what, figure in aim["figures"].items())
    return aim["aim"], found, aim["verdict"]


def in_words(figure: Figure) -> str:
    """A figure as tables show it: three digits, or all of a large number's."""
    if isinstance(figure, bool):
        return "yes" if figure else "no"
    if isinstance(figure, str):
        return figure
    return f"{figure:,.0f}" if abs(figure) >= 1000 or figure == int(figure) else f"{figure:.3g}"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)
