"""The results of `dreams.py`: a file of JSON lines, one for each recipe and seed, and the tables made from it alone."""

import json
import math
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

Result = dict[str, Any]

REFERENCE = "ha2018"
THRESHOLD = 0.75
"""The error that ends a horizon, in standard deviations: saying the mean of the state has an error of about 1."""
MIN_RECIPES = 5
"""With fewer, ranks agree by chance."""
TOGETHER = ("PSNR", "PSNR at edges", "kerb recall", "kerb F1", "probe R²", "R² of draws", "steering R²", "rate, nats")
"""The figures that are compared with those of the dreams."""
GAINS = ("nats over constant", "nats over staying")


def read_results(path: Path) -> list[Result]:
    """The lines of a results file, without a last one that an interruption cut short. Raises SystemExit if another is no JSON,
    or if the budgets differ."""
    results: list[Result] = []
    for number, line in enumerate(whole_lines(path).splitlines(), start=1):
        try:
            results.append(json.loads(line))
        except ValueError:
            raise SystemExit(f"{path}:{number} is no JSON: remove the line") from None
        if results[-1]["budget"] != results[0]["budget"]:
            raise SystemExit(f"{path}:{number} has another budget than the lines before it: remove the line")
    return results


def whole_lines(path: Path) -> bytes:
    """The bytes of a file up to its last line break."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def append_result(path: Path, result: Result) -> None:
    """Add a line, in the place of one that was cut short, and wait until it is on the disk."""
    with path.open("ab") as file:
        file.truncate(len(whole_lines(path)))
        file.write(json.dumps(result).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def is_done(results: list[Result], recipe: str, seed: int, settings: dict[str, Any]) -> bool:
    """Whether this was measured; raises SystemExit if it was with other settings."""
    for result in results:
        if (result["recipe"], result["seed"]) == (recipe, seed):
            if result["settings"] != settings:
                raise SystemExit(f"{recipe} was measured with {result['settings']}, not {settings}: give another --out")
            return True
    return False


def by_recipe(results: list[Result], threshold: float = THRESHOLD) -> dict[str, list[dict[str, Any]]]:
    """The figures of each recipe, with horizons: a dict for each seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        found.setdefault(result["recipe"], []).append(with_horizons(result["figures"], threshold))
    return found


def with_horizons(figures: dict[str, Any], threshold: float) -> dict[str, Any]:
    """The figures, and what follows from their curves: horizons of dreams, overall and by variable, and of what stays."""
    curves = figures["curves"]
    dreamed = {f"horizon, {name}": horizon(curve, threshold) for name, curve in curves["dream"].items()}
    stays = {name: horizon(curves[name]["all"], threshold) for name in ("latent stays", "state stays")}
    read_error = float(np.sqrt(np.square(curves["real latents"]["all"]).mean()))
    overall = {"horizon": dreamed["horizon, all"], "known": known_steps(curves["dream"]["all"], curves["mean"]["all"])}
    return {**figures, **dreamed, **stays, **overall, "read error": read_error}


def known_steps(dream_H: list[float], mean_H: list[float]) -> float:
    """The share of the state's variance that dreams know, summed over their steps: 1 minus their squared error over that of the
    mean on the same rows, or 0 where that is negative."""
    return float(np.clip(1 - np.square(dream_H) / np.square(mean_H), 0, None).sum())


def horizon(curve_H: list[float], threshold: float) -> int:
    """How many steps a dream can be followed: those before the error first exceeds the threshold. If it never does, H, which is
    then a lower bound."""
    beyond = np.flatnonzero(~(np.array(curve_H) <= threshold))
    return int(beyond[0]) if len(beyond) else len(curve_H)


# Tables


def cell(values: list[float], digits: int, most: float = math.inf) -> str:
    """The mean over seeds, with the lowest and highest if they differ; with ">" if one of them reaches `most`."""
    if any(map(math.isnan, values)):
        return "–"
    low, mean, high = (f"{value:.{digits}f}" for value in (min(values), statistics.mean(values), max(values)))
    start = ">" if max(values) >= most else ""
    return f"{start}{mean}" if low == high else f"{start}{mean} ({low}–{high})"


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])


def contents_table(recipes: dict[str, list[dict[str, Any]]]) -> str:
    """What the latents hold: pictures, small things, rate, state, and what they cost."""
    columns = {"PSNR": 2, "SSIM": 3, "PSNR at edges": 2, "kerb recall": 2, "kerb F1": 2, "car F1": 2}
    columns |= {"rate, nats": 1, "probe R²": 2, "R² of draws": 2, "steering R²": 2, "bytes a frame": 0, "encoding, µs": 0}
    rows = [
        [name, seeds[0]["latent"], *(cell([seed[each] for seed in seeds], digits) for each, digits in columns.items())]
        for name, seeds in recipes.items()
    ]
    return markdown(["recipe", "latent", *columns], rows)


def dreams_table(recipes: dict[str, list[dict[str, Any]]], most: int) -> str:
    """How far one can dream: the horizon overall and by variable, beside what stays, and the NLL."""
    variables = [name for name in next(iter(recipes.values()))[0]["curves"]["dream"] if name != "all"]
    heads = ["recipe", "horizon, steps", f"over {REFERENCE}", "known steps", f"over {REFERENCE}"]
    heads += ["latent stays", "error of real latents", *variables, *GAINS]
    rows = []
    for name, seeds in recipes.items():
        row = [name, cell([seed["horizon"] for seed in seeds], 0, most), ratio(recipes, name, "horizon")]
        row += [cell([seed["known"] for seed in seeds], 1), ratio(recipes, name, "known")]
        row += [cell([seed["latent stays"] for seed in seeds], 0, most), cell([seed["read error"] for seed in seeds], 2)]
        row += [cell([seed[f"horizon, {variable}"] for seed in seeds], 0, most) for variable in variables]
        rows.append([*row, *(cell([seed[each] for seed in seeds], 1) for each in GAINS)])
    return markdown(heads, rows)


def ratio(recipes: dict[str, list[dict[str, Any]]], name: str, figure: str) -> str:
    """A recipe's figure over the reference's, if it was run and is not 0."""
    means = dict(zip(recipes, over_seeds(recipes, figure), strict=True))
    return f"{means[name] / means[REFERENCE]:.1f}×" if means.get(REFERENCE) else "–"


def together_table(recipes: dict[str, list[dict[str, Any]]]) -> str:
    """Spearman's rank correlation over recipes, and its p, of each figure with the two of the dreams."""
    rows = []
    for name in TOGETHER:
        found = [rank_correlation(over_seeds(recipes, name), over_seeds(recipes, of)) for of in ("horizon", "known")]
        rows.append([name, *("–" if math.isnan(rho) else f"{rho:+.2f} (p = {p:.3f})" for rho, p in found)])
    return markdown(["Spearman's ρ over recipes", "with the horizon", "with the known steps"], rows)


def over_seeds(recipes: dict[str, list[dict[str, Any]]], name: str) -> list[float]:
    """The mean of a figure over the seeds of each recipe."""
    return [statistics.mean(seed[name] for seed in seeds) for seeds in recipes.values()]


def rank_correlation(x: list[float], y: list[float]) -> tuple[float, float]:
    """Spearman's ρ and its p; NaN for fewer than `MIN_RECIPES`, or if one of both is constant. Pairs with NaN are left out."""
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if not math.isnan(a + b)]
    if len(pairs) < MIN_RECIPES or any(len(set(each)) == 1 for each in zip(*pairs, strict=True)):
        return math.nan, math.nan
    found = spearmanr(*zip(*pairs, strict=True))
    return float(found.statistic), float(found.pvalue)
