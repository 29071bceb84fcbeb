"""`wm-export FORMAT`: rollouts, latents or a VAE in the formats of other projects."""

import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from worldmodel_v.cli.formats import run_format
from worldmodel_v.cli.main import run
from worldmodel_v.cli.tables import print_export, print_hub_export, print_model_export
from worldmodel_v.export import FORMATS, export

MODEL, HUB = "model", "hub"
CHOICES = (*FORMATS, MODEL, HUB)
PATH_OPTIONS = ("--data", "--vae", "--out")
"""The word after one of these is a directory, even if it is the name of a format."""

KEPT = "nothing is left of it, and the same command begins anew"


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The format; its options may come before or after it."""

    format: Annotated[
        tyro.conf.Positional[Literal[CHOICES]],  # type: ignore[valid-type]
        tyro.conf.arg(
            help="Whose format to write. From latents: hardmaru, zacwellmer, adsp. From rollouts: ctallec, minari, lerobot, "
            "dreamer4. From either: stable-worldmodel, lance, parquet, npz. From a VAE: model. From each: hub. "
            "`wm-export FORMAT --help` says for whom, what is written, and the options."
        ),
    ]


def main() -> None:
    """Entry point of `wm-export`. The first word that names a format selects it; the other words are its options."""
    run_format(
        "wm-export",
        sys.argv[1:],
        CHOICES,
        _run,
        take_a_word=PATH_OPTIONS,
        overview=Overview,
        configs=_all_configs,
        example="wm-export npz --data DATASET --out DIRECTORY",
    )


def _all_configs() -> dict[str, type[Any]]:
    from worldmodel_v.export.hub import HubConfig
    from worldmodel_v.export.model import ModelExportConfig

    return {**FORMATS, MODEL: ModelExportConfig, HUB: HubConfig}


def _run(format_: str, options: list[str]) -> None:
    if format_ == MODEL:
        from worldmodel_v.export.model import ModelExportConfig, export_model

        show = print_model_export
        run("wm-export", ModelExportConfig, export_model, show=show, subcommand=format_, args=options, kept=KEPT)
    elif format_ == HUB:
        from worldmodel_v.export.hub import HubConfig, export_hub

        run("wm-export", HubConfig, export_hub, show=print_hub_export, subcommand=format_, args=options, kept=KEPT)
    else:
        run("wm-export", FORMATS[format_], export, show=print_export, subcommand=format_, args=options, kept=KEPT)
