"""`wm-export FORMAT`: rollouts, latents or a VAE in the formats of others."""

import sys
from dataclasses import dataclass
from typing import Literal

import tyro

from worldmodel_v.cli.main import parse, run
from worldmodel_v.cli.tables import print_export, print_model_export
from worldmodel_v.export import FORMATS, export

MODEL = "model"
KEPT = "nothing is left of it, and the same command begins anew"


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Which format: the first word after the command."""

    format: tyro.conf.Positional[Literal[(*FORMATS, MODEL)]]  # type: ignore[valid-type]
    """Whose format to write. From latents: hardmaru, zacwellmer, adsp. From rollouts: ctallec, minari. From either:
    stable-worldmodel, npz. From a VAE: model. `wm-export FORMAT --help` says for whom, what is written, and the options."""


def main() -> None:
    """Entry point of `wm-export`. The first word that is no option names the format, which has options of its own."""
    words = sys.argv[1:]
    format_ = next((word for word in words if not word.startswith("-")), None)
    if format_ in (*FORMATS, MODEL):
        words.remove(format_)
        _run(format_, words)
    else:
        parse("wm-export", Overview)


def _run(format_: str, options: list[str]) -> None:
    if format_ == MODEL:
        from worldmodel_v.export.model import ModelExportConfig, export_model

        show = print_model_export
        run("wm-export", ModelExportConfig, export_model, show=show, subcommand=format_, args=options, kept=KEPT)
    else:
        run("wm-export", FORMATS[format_], export, show=print_export, subcommand=format_, args=options, kept=KEPT)
