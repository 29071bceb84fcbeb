"""The command that most people give next, after each stage: complete, with the paths of what was just made.

It is suggested on a terminal alone, where a person reads it.
"""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TRAINS_FROM = 10
"""Episodes that `wm-train` needs by default, to hold one out."""

Following = Callable[[Any, Any], Iterator[list[object]]]
"""(the config of a stage, its report) -> commands, each as its words."""


def after_collect(config: Any, report: Any) -> Iterator[list[object]]:
    """Training, if there is an episode to hold out."""
    if report.episodes > 1:
        fewer = ["--holdout-every", report.episodes] if report.episodes < TRAINS_FROM else []
        yield ["wm-train", "--data", config.out, "--out", _beside(config.out, "rollouts", "vae"), *fewer]


def after_train(config: Any, report: Any) -> Iterator[list[object]]:
    """Evaluation and encoding of the rollouts that it was trained on."""
    both = ["--data", *config.data, "--vae", config.out, *_own(config)]
    yield ["wm-eval", *both, "--out", _beside(config.out, "vae", "eval")]
    yield ["wm-encode", *both, "--out", _beside(config.out, "vae", "latents")]


def after_eval(config: Any, report: Any) -> Iterator[list[object]]:
    """Encoding, and a page to look into the VAE."""
    latents, page = _beside(config.out, "eval", "latents"), _beside(config.out, "eval", "view").with_suffix(".html")
    both = ["--data", *config.data, "--vae", config.vae, *_own(config)]
    yield ["wm-encode", *both, "--out", latents]
    yield ["wm-view", *both, "--out", page]


def after_encode(config: Any, report: Any) -> Iterator[list[object]]:
    """A check of every byte, and of what the latents were made of."""
    yield ["wm-inspect", config.out, "--verify", "--data", *config.data, "--vae", config.vae]


def after_import(config: Any, report: Any) -> Iterator[list[object]]:
    """A look at frames, and at what was recorded."""
    yield ["wm-inspect", config.out, "--preview", _beside(config.out, "rollouts", "frames").with_suffix(".png")]


def after_select(config: Any, report: Any) -> Iterator[list[object]]:
    """A check of every byte."""
    yield ["wm-inspect", config.out, "--verify"]


def in_one_line(words: list[object]) -> str:
    """A command as a shell takes it."""
    return shlex.join(map(str, words))


def _own(config: Any) -> list[object]:
    from worldmodel_v.autoencoders.registry import DEFAULT  # which the stage has imported

    return [] if config.autoencoder in (None, DEFAULT) else ["--autoencoder", config.autoencoder]


def _beside(out: Path, usual: str, name: str) -> Path:
    """A directory for the next stage, named after this one's."""
    return out.with_name(name if out.name == usual else f"{out.name}-{name}")
