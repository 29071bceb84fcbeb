"""How often `wm-inspect --alignment` finds a shift: 14 worlds, three ways to drive, three seeds, five shifts each.

    python benchmarks/alignment_verdicts.py [--only PONG …] [--rows N] [--seeds N] > docs/benchmarks/alignment.md

Each dataset is judged as it is and with its actions shifted by up to two rows in either direction. Thresholds were chosen on
the development worlds with the first seed; no threshold was chosen on the check worlds. All of it takes about half an hour on
one core; what it prints is the page.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, defaultdict

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from _alignment_worlds import DRIVERS, WORLDS, Played, World, play, shifted
from _machine import describe_machine

from worldmodel_v.alignment import Rows, Verdict, judge
from worldmodel_v.alignment.rows import averaged

SHIFTS = (-2, -1, 0, 1, 2)
PACKAGES = ("gymnasium", "numpy", "Box2D", "pygame-ce", "ale-py", "minigrid")
OUTCOMES = ("found", "in a tie", "undecidable", "wrong")
HEAD = """# Verdicts on alignment

How often `wm-inspect --alignment` finds by how many rows actions are off. {worlds} worlds (frames of 32x32, at least
{rows:,} rows each, without `state`), number of seeds: {seeds}. Three ways to drive: uniformly random; by a hand-written
policy that looks at the world, with noise (four actions in ten are uniform; Gaussian noise where actions are continuous;
Ornstein-Uhlenbeck in CarRacing); by the same policy without noise. Each as it is, and with actions shifted by 1 and 2
rows in either direction (late by one: row t holds a_t-1). Made by

```sh
python benchmarks/alignment_verdicts.py > docs/benchmarks/alignment.md
```

"""
LEGEND = """
**Found** is the right verdict with the right number of rows. **In a tie**: undecidable, but the verdict names the shifts
that are possible, the true one among them ("actions are early by 1, or the world answers 1 row late"). **Undecidable**
names none, or not the true one. **Wrong** is any other verdict; for aligned data it is a false alarm.
"""


def as_rows(episodes: list[Played]) -> list[Rows]:
    """As `wm-inspect` reads them from a dataset, without state."""
    actions = np.concatenate([played.action for played in episodes])
    values = np.unique(actions) if actions.dtype.kind in "iu" and actions.ndim == 1 else None

    def vectors(action: np.ndarray) -> np.ndarray:
        return (action[:, None] == values if values is not None else action.reshape(len(action), -1)).astype(np.float64)

    return [Rows((averaged(played.frames),), vectors(played.action), played.reward) for played in episodes]


def outcome(verdict: Verdict, shift: int) -> str:
    if verdict.answer == "undecidable":
        return "in a tie" if shift in verdict.possible else "undecidable"
    return "found" if verdict.possible == (shift,) else "wrong"


def measure(world: World, driver: str, seed: int, rows: int) -> dict[int, tuple[str, Verdict]]:
    """The outcome and the verdict for each shift."""
    episodes = play(world, driver, seed, rows)
    verdicts = {shift: judge(as_rows(list(shifted(episodes, shift)))) for shift in SHIFTS}
    return {shift: (outcome(verdict, shift), verdict) for shift, verdict in verdicts.items()}


def share(counts: Counter[str], name: str) -> str:
    return f"{100 * counts[name] / max(1, counts.total()):.0f}%"


def summary(found: dict[tuple[World, str, int], Counter[str]], title: str) -> list[str]:
    """A table: for each group of worlds, each way to drive and each kind of shift, the shares of outcomes."""
    kinds = {"aligned": (0,), "late": (1, 2), "early": (-1, -2)}
    lines = [f"| {title} | driven | data | " + " | ".join(OUTCOMES) + " | of |", "|" + "---|" * 8]
    for name, is_development in (("development", True), ("check", False)):
        for driver in DRIVERS:
            for kind, shifts in kinds.items():
                counts: Counter[str] = Counter()
                for (world, by, shift), its in found.items():
                    if world.development == is_development and by == driver and shift in shifts:
                        counts += its
                if counts:
                    cells = " | ".join(share(counts, each) for each in OUTCOMES)
                    lines.append(f"| {name} | {driver} | {kind} | {cells} | {counts.total()} |")
    return lines


def by_world(found: dict[tuple[World, str, int], Counter[str]]) -> list[str]:
    """A table: for each world and way to drive, how many seeds were found (and tied) for each shift."""
    headings = ("2 early", "1 early", "aligned", "1 late", "2 late")
    lines = ["| world | driven | " + " | ".join(headings) + " |", "|" + "---|" * 7]
    for world, driver in dict.fromkeys((world, driver) for world, driver, _ in found):
        cells = [_cell(found[world, driver, shift]) for shift in SHIFTS]
        name = f"`{world.env}`" + (" (development)" if world.development else "")
        lines.append(f"| {name} | {driver} | " + " | ".join(cells) + " |")
    return lines


def _cell(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name])


def page(found: dict[tuple[World, str, int], Counter[str]], wrong: list[str], *, rows: int, seeds: int, took: float) -> str:
    """All of what is printed, in Markdown."""
    total: Counter[str] = sum(found.values(), Counter())
    aligned: Counter[str] = sum((its for (_, _, shift), its in found.items() if shift == 0), Counter())
    shifted: Counter[str] = total - aligned
    said = total["found"] + total["wrong"]
    lines = [
        HEAD.format(worlds=len({world for world, _, _ in found}), rows=rows, seeds=seeds)
        + describe_machine(*PACKAGES).replace("\n", "  \n"),
        "",
        f"{total.total()} datasets, {took:.0f} s. Of {aligned.total()} aligned ones {aligned['wrong']} were called shifted.\n"
        f"Of {shifted.total()} shifted ones {shifted['found']} were found. Of {said} verdicts {total['found']} were right.\n"
        "Where no verdict is given, the data say too little or leave a tie.",
        LEGEND,
        *summary(found, "worlds"),
        *("", *by_world(found), "", "## Wrong verdicts", "", *(wrong or ["None."])),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[""], help="worlds whose names hold one of these")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    chosen = [world for world in WORLDS if any(word.lower() in world.env.lower() for word in arguments.only)]
    found: dict[tuple[World, str, int], Counter[str]] = defaultdict(Counter)
    wrong, start = [], time.perf_counter()
    for seed in range(arguments.seeds):
        for world in chosen:
            for driver in DRIVERS:
                for shift, (result, verdict) in measure(world, driver, seed, arguments.rows).items():
                    found[world, driver, shift][result] += 1
                    line = f"{world.env} {driver} seed {seed}, shift {shift:+d}: {verdict}, {verdict.evidence}"
                    print(f"{time.perf_counter() - start:6.0f} s  {result:11}  {line}", file=sys.stderr, flush=True)
                    if result == "wrong":
                        wrong.append(f"- {line}")
    print(page(found, wrong, rows=arguments.rows, seeds=arguments.seeds, took=time.perf_counter() - start))


if __name__ == "__main__":
    main()
