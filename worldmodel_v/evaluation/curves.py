"""The course of a training, from the `metrics.jsonl` that it left beside the weights.

It is read as a stranger's file: a line that is damaged is skipped, since a page about the weights needs no whole record.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldmodel_v.autoencoders.artifact import METRICS_NAME
from worldmodel_v.errors import NotAFile
from worldmodel_v.settings import MAX_NUMBER
from worldmodel_v.storage import files
from worldmodel_v.storage.index import MAX_NUMBER as MAX_STEP
from worldmodel_v.untrusted import parse_object

MAX_LINE_BYTES = 1 << 16
MAX_POINTS = 200
TITLES = {
    "loss": "Loss of the training's batches",
    "psnr_db": "PSNR of held-out frames (dB)",
    "elbo_nats": "ELBO of held-out frames (nats)",
    "kl_nats": "KL of held-out frames (nats)",
    "perplexity": "Perplexity of the codes of held-out frames",
    "minimised": "Loss with what is added to it",
    "weighted_error": "Weighted errors of the training's batches",
    "perceptual": "Distance of features, without its weight",
    "generator_loss": "Generator's loss, without its weight",
    "adversarial_weight": "Weight of the generator's loss",
    "discriminator_loss": "Discriminator's loss (0: it wins, 1: it says nothing)",
    "total_correlation": "Total correlation of the latents (nats), without its weight",
    "mutual_information": "Mutual information of latents and frames (nats)",
    "dimension_wise_kl": "KL of each latent's distribution to the prior, summed (nats)",
    "overlap": "Overlap of a batch's posteriors (0: none, and the estimate says nothing)",
    "latent_discriminator_loss": "Loss of the discriminator of latents (0: it wins, 1: it guesses)",
}
"""Of the figures that have a curve, in this order."""

_ADDED = (
    *("minimised", "weighted_error", "perceptual", "generator_loss", "adversarial_weight", "discriminator_loss"),
    *("total_correlation", "mutual_information", "dimension_wise_kl", "overlap", "latent_discriminator_loss"),
)
FIGURES = {"train": ("loss", *_ADDED), "held-out": ("psnr_db", "elbo_nats", "kl_nats", "perplexity")}
"""A group of lines -> its figures that have a curve."""


@dataclass(frozen=True)
class Curve:
    """A figure over the steps of a training: float64 (n,) each."""

    title: str
    steps: np.ndarray
    values: np.ndarray


def read_curves(vae: Path) -> list[Curve]:
    """The curves that the training in this directory recorded; none if its record is missing or cannot be read."""
    points: dict[str, dict[int, float]] = defaultdict(dict)
    try:
        with files.open_stream(vae / METRICS_NAME) as file:
            while line := file.readline(MAX_LINE_BYTES):
                for name, step, value in _points(line):
                    points[name][step] = value
    except (OSError, NotAFile):
        return []
    return [_curve(TITLES[name], points[name]) for name in TITLES if len(points[name]) > 1]


def _points(line: bytes) -> list[tuple[str, int, float]]:
    try:
        record = parse_object(line)
    except ValueError:
        return []
    step, names = record.get("step"), FIGURES.get(str(record.get("group")), ())
    if type(step) is not int or not 0 <= step < MAX_STEP:
        return []
    found = {name: record[name] for name in names if type(record.get(name)) in (int, float)}
    return [(name, step, float(value)) for name, value in found.items() if abs(value) <= MAX_NUMBER]


def _curve(title: str, points: dict[int, float]) -> Curve:
    """In order of its steps; many points become the means of neighbours."""
    steps, values = np.array(sorted(points.items()), dtype=np.float64).T
    groups = np.array_split(np.arange(len(steps)), min(len(steps), MAX_POINTS))
    means = [(steps[group].mean(), values[group].mean()) for group in groups]
    return Curve(title, *np.array(means).T)
