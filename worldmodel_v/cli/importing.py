"""`wm-import FORMAT`: other people's recordings as a rollout dataset."""

import sys
from dataclasses import dataclass
from typing import Literal

import tyro

from worldmodel_v.cli.following import after_import
from worldmodel_v.cli.formats import run_format
from worldmodel_v.cli.main import run
from worldmodel_v.cli.tables import print_import
from worldmodel_v.importing import FORMATS, import_recordings

CHOICES = tuple(FORMATS)
PATH_OPTIONS = ("--from", "--out", "--actions")
"""The word after one of these is a path, even if it is the name of a format."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The format; its options may come before or after it."""

    format: tyro.conf.Positional[Literal[CHOICES]]  # type: ignore[valid-type]
    """What the recording is. `wm-import FORMAT --help` says what it holds, what it lacks, and the options."""


def main() -> None:
    """Entry point of `wm-import`. The first word that names a format selects it; the other words are its options."""
    run_format(
        "wm-import",
        sys.argv[1:],
        CHOICES,
        _run,
        take_a_word=PATH_OPTIONS,
        overview=Overview,
        configs=lambda: FORMATS,
        example="wm-import npz --from DIRECTORY --out DATASET",
    )


def _run(format_: str, options: list[str]) -> None:
    run(
        "wm-import", FORMATS[format_], import_recordings, print_import, subcommand=format_, args=options, following=after_import
    )
