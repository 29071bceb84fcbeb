"""`wm-pipeline run FILE --out DIR`: all stages from one file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from worldmodel_v.cli.main import run
from worldmodel_v.cli.tables import print_pipeline
from worldmodel_v.progress import Progress


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Run collect, train, encode and verify in order from one file, skipping what is complete.

    Run again after an interruption, it continues where it stopped.
    """

    command: tyro.conf.Positional[Literal["run"]]
    """What to do with the file."""

    file: tyro.conf.Positional[Path]
    """A pipeline file such as pipelines/quickstart.yaml."""

    out: Path
    """Where rollouts/, vae/ and latents/ go."""


def main() -> None:
    """Entry point of `wm-pipeline`."""
    run("wm-pipeline", PipelineConfig, _work, show=print_pipeline)


def _work(config: PipelineConfig, progress: Progress) -> Any:
    from worldmodel_v.pipeline import run_pipeline

    return run_pipeline(config.file, config.out, progress)
