"""How often `wm-inspect --alignment` finds a shift: 14 worlds, three ways to drive, three seeds, five shifts each.

    python benchmarks/alignment_verdicts.py RESULTS.jsonl [--only PONG …] [--rows N] [--seeds N] > docs/benchmarks/alignment.md

Each dataset is judged as it is and with its actions shifted by up to two rows in either direction; once by its frames, and
once with the environment's own observation beside them, where that is numbers. Thresholds were chosen on the development worlds
with the first seed; no threshold was chosen on the check worlds. What it prints is the page.

It takes hours on one core. Each dataset's verdicts are a line of RESULTS.jsonl, and a run that was stopped goes on with the
next dataset. Begin a new file after a change of the code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from _alignment_worlds import DRIVERS, WORLDS, Played, World, play, shifted
from _machine import describe_machine

from worldmodel_v.alignment import Rows, Verdict, judge
from worldmodel_v.alignment.rows import MOST_ROWS, averaged, with_scaled_numbers

SHIFTS = (-2, -1, 0, 1, 2)
FRAMES, BESIDE = "frames", "frames, observation"
PACKAGES = ("gymnasium", "numpy", "Box2D", "pygame-ce", "ale-py", "minigrid")
OUTCOMES = ("found", "in a tie", "undecidable", "wrong")
NAMES = ("world", "driver", "seen", "seed", "rows", "shift")
HEAD = """# Verdicts on alignment

How often `wm-inspect --alignment` finds by how many rows actions are off. {worlds} worlds, frames of 64x64, at least {rows:,}
rows each (of a larger dataset, the command reads {read:,}), number of seeds: {seeds}. Seen are the frames alone, or with the
environment's own observation beside them, where that is numbers (`wm-collect --record observation`). Three ways to drive:
uniformly random; by a hand-written policy that looks at the world, with noise (four actions in ten are uniform; Gaussian noise
where actions are continuous; Ornstein-Uhlenbeck in CarRacing); by the same policy without noise. Each as it is, and with
actions shifted by 1 and 2 rows in either direction (late by one: row t holds a_t-1). Made by

```sh
python benchmarks/alignment_verdicts.py RESULTS.jsonl > docs/benchmarks/alignment.md
```

"""
LEGEND = """
**Found** is the right verdict with the right number of rows. **In a tie**: undecidable, but the verdict names the shifts
that are possible, the true one among them ("actions are early by 1, or the world answers 1 row late"). **Undecidable**
names none, or not the true one. **Wrong** is any other verdict; for aligned data it is a false alarm.
"""
Result = dict[str, Any]
"""One verdict: `NAMES`, outcome, verdict, evidence, seconds of CPU."""


def as_rows(episodes: list[Played], seen: str) -> list[Rows]:
    """As `wm-inspect` reads them from a dataset."""
    actions = np.concatenate([played.action for played in episodes])
    values = np.unique(actions) if actions.dtype.kind in "iu" and actions.ndim == 1 else None

    def vectors(action: np.ndarray) -> np.ndarray:
        return (action[:, None] == values if values is not None else action.reshape(len(action), -1)).astype(np.float64)

    def observation(played: Played) -> tuple[np.ndarray, ...]:
        return (averaged(played.frames), played.numbers) if seen == BESIDE else (averaged(played.frames),)

    rows = [Rows(observation(played), vectors(played.action), played.reward) for played in episodes]
    return with_scaled_numbers(rows) if seen == BESIDE else rows


def outcome(verdict: Verdict, shift: int) -> str:
    if verdict.answer == "undecidable":
        return "in a tie" if shift in verdict.possible else "undecidable"
    return "found" if verdict.possible == (shift,) else "wrong"


def measure(world: World, driver: str, seed: int, rows: int) -> Iterator[Result]:
    """The verdicts on one dataset: by what is seen, and for each shift."""
    episodes = play(world, driver, seed, rows)
    for seen in (FRAMES, BESIDE) if episodes[0].numbers.size else (FRAMES,):
        for shift in SHIFTS:
            start = time.process_time()
            verdict = judge(as_rows(list(shifted(episodes, shift)), seen))
            said = {"outcome": outcome(verdict, shift), "verdict": str(verdict), "evidence": verdict.evidence}
            place = zip(NAMES, (world.env, driver, seen, seed, rows, shift), strict=True)
            yield {**dict(place), **said, "seconds": time.process_time() - start}


def measured(path: Path) -> list[Result]:
    """What earlier runs have written: a line of JSON for each dataset. A torn last line is removed."""
    text = path.read_text() if path.exists() else ""
    path.write_text(text[: text.rfind("\n") + 1])
    return [result for line in path.read_text().splitlines() for result in json.loads(line)]


def outcomes(results: list[Result]) -> Counter[str]:
    return Counter(result["outcome"] for result in results)


def share(counts: Counter[str], name: str) -> str:
    return f"{100 * counts[name] / max(1, counts.total()):.0f}%"


def groups(results: list[Result], *names: str) -> dict[tuple[Any, ...], list[Result]]:
    """Results that agree in these names, in the order of the first of each."""
    found = defaultdict(list)
    for result in results:
        found[tuple(result[name] for name in names)].append(result)
    return found


def summary(results: list[Result]) -> list[str]:
    """A table: for each group of worlds, what is seen, each way to drive and each kind of shift, the shares of outcomes."""
    kinds = {"aligned": (0,), "late": (1, 2), "early": (-1, -2)}
    lines = ["| worlds | seen | driven | data | " + " | ".join(OUTCOMES) + " | of |", "|" + "---|" * 9]
    for name, is_development in (("development", True), ("check", False)):
        worlds = {world.env for world in WORLDS if world.development == is_development}
        chosen = groups([result for result in results if result["world"] in worlds], "seen", "driver")
        for (seen, driver), its in sorted(chosen.items(), key=lambda each: (each[0][0], DRIVERS.index(each[0][1]))):
            for kind, shifts in kinds.items():
                counts = outcomes([result for result in its if result["shift"] in shifts])
                cells = " | ".join(share(counts, each) for each in OUTCOMES)
                lines.append(f"| {name} | {seen} | {driver} | {kind} | {cells} | {counts.total()} |")
    return lines


def by_world(results: list[Result]) -> list[str]:
    """A table: for each world, what is seen and way to drive, the number of seeds with each outcome for each shift."""
    headings = ("2 early", "1 early", "aligned", "1 late", "2 late")
    lines = ["| world | seen | driven | " + " | ".join(headings) + " |", "|" + "---|" * 8]
    for world in WORLDS:
        chosen = groups([result for result in results if result["world"] == world.env], "seen", "driver")
        for (seen, driver), its in sorted(chosen.items(), key=lambda each: (each[0][0], DRIVERS.index(each[0][1]))):
            cells = [_cell(outcomes([result for result in its if result["shift"] == shift])) for shift in SHIFTS]
            name = f"`{world.env}`" + (" (development)" if world.development else "")
            lines.append(f"| {name} | {seen} | {driver} | " + " | ".join(cells) + " |")
    return lines


def _cell(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name])


def told(result: Result) -> str:
    place = f"{result['world']} {result['driver']} ({result['seen']}) seed {result['seed']}, shift {result['shift']:+d}"
    return f"{place}: {result['verdict']}, {result['evidence']}"


def page(results: list[Result], rows: int) -> str:
    """All of what is printed, in Markdown."""
    aligned = outcomes([result for result in results if result["shift"] == 0])
    moved = outcomes([result for result in results if result["shift"] != 0])
    with_chance = outcomes([result for result in results if result["shift"] and result["driver"] != "deterministic"])
    said = outcomes(results)["found"] + outcomes(results)["wrong"]
    seconds = [result["seconds"] for result in results]
    worlds, seeds = len(groups(results, "world")), len(groups(results, "seed"))
    wrong = [f"- {told(result)}" for result in results if result["outcome"] == "wrong"]
    lines = [
        HEAD.format(worlds=worlds, rows=rows, seeds=seeds, read=MOST_ROWS) + describe_machine(*PACKAGES).replace("\n", "  \n"),
        "",
        f"{len(results)} verdicts of {np.mean(seconds):.1f} s of CPU, at most {max(seconds):.1f} s.\n"
        f"Of {aligned.total()} aligned datasets {aligned['wrong']} were called shifted.\n"
        f"Of {moved.total()} shifted ones {moved['found']} were found. Driven at random or with noise:\n"
        f"{with_chance['found']} of {with_chance.total()}, and {with_chance['in a tie']} are in a tie.\n"
        f"Of {said} verdicts that name one shift {outcomes(results)['found']} were right.\n"
        "Where no verdict is given, the data say too little or leave a tie.",
        LEGEND,
        *summary(results),
        *("", *by_world(results), "", "## Wrong verdicts", "", *(wrong or ["None."])),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, metavar="RESULTS.jsonl", help="verdicts so far; new ones are added")
    parser.add_argument("--only", nargs="*", default=[""], help="worlds whose names hold one of these")
    parser.add_argument("--rows", type=int, default=MOST_ROWS)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    chosen = [world for world in WORLDS if any(word.lower() in world.env.lower() for word in arguments.only)]
    results = [result for result in measured(arguments.results) if result["rows"] == arguments.rows]
    done = set(groups(results, "world", "driver", "seed"))
    for seed in range(arguments.seeds):
        for world in chosen:
            for driver in DRIVERS:
                if (world.env, driver, seed) not in done:
                    new = list(measure(world, driver, seed, arguments.rows))
                    with arguments.results.open("a") as file:
                        file.write(json.dumps(new) + "\n")
                    results += new
                    for result in new:
                        print(f"{result['outcome']:11}  {told(result)}", file=sys.stderr, flush=True)
    print(page(results, arguments.rows))


if __name__ == "__main__":
    main()
