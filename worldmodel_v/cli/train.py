"""`wm-train`: fit a VAE to the frames of a rollout dataset."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from worldmodel_v.cli.following import after_train
from worldmodel_v.cli.main import Output, options_in, run
from worldmodel_v.own_modules import look_in
from worldmodel_v.process import output_to_stderr


def main() -> None:
    """Entry point of `wm-train`."""
    from worldmodel_v.training import train

    run("wm-train", config_of, train, following=after_train)


def config_of(words: Sequence[str]) -> type[Any]:
    """The class of a training's settings with the autoencoder that a command line names.

    Raises ConfigError if it cannot be loaded, or if an option is another one's.
    """
    from worldmodel_v.autoencoders import registry
    from worldmodel_v.training import train_config

    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--autoencoder", nargs="?")
    kind = finder.parse_known_args(words)[0].autoencoder or registry.DEFAULT
    if kind not in registry.BUILT_IN:
        look_in(str(Path.cwd()))
    with output_to_stderr():
        found = train_config(kind)
    registry.settings_class(kind, taken={"help", *(each.name for each in fields(Output))})
    registry.refuse_foreign(kind, [field for _, field in options_in(words)])
    return found
