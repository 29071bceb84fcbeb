"""`wm-import FORMAT`: other people's recordings as a rollout dataset."""

import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, Union

import tyro

from worldmodel_v.cli.following import after_import
from worldmodel_v.cli.main import leave_with_error, parse, run, spelled
from worldmodel_v.cli.tables import print_import
from worldmodel_v.errors import ConfigError
from worldmodel_v.importing import FORMATS, import_recordings

CHOICES = tuple(FORMATS)
PATH_OPTIONS = ("--from", "--out")
"""The word after one of these is a path, even if it is the name of a format."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The format; its options may come before or after it."""

    format: tyro.conf.Positional[Literal[CHOICES]]  # type: ignore[valid-type]
    """What the recording is. `wm-import FORMAT --help` says what it holds, what it lacks, and the options."""


def main() -> None:
    """Entry point of `wm-import`. The first word that names a format selects it; the other words are its options."""
    words = sys.argv[1:]
    places = [
        place for place, (before, word) in enumerate(pairwise(["", *words])) if word in CHOICES and before not in PATH_OPTIONS
    ]
    if places:
        name = words.pop(places[0])
        run("wm-import", FORMATS[name], import_recordings, print_import, subcommand=name, args=words, following=after_import)
    elif {"-h", "--help"}.intersection(words):
        parse("wm-import", Overview, args=["--help"])
    elif any(word == "--version" or word.startswith("--tyro-") for word in words):
        parse("wm-import", _any_format(), args=words)
    else:
        found = f"unknown format {words[0]!r}" if words and not words[0].startswith("-") else "no format is named"
        example = "such as `wm-import npz --from DIRECTORY --out DATASET`"
        leave_with_error("wm-import", ConfigError(f"{found}; expected one of {', '.join(CHOICES)}, {example}"))


def _any_format() -> Any:
    """All formats as subcommands, as the completion of a shell has them."""
    configs = [Annotated[spelled(config), tyro.conf.subcommand(name)] for name, config in FORMATS.items()]
    return Union[tuple(configs)]  # noqa: UP007
