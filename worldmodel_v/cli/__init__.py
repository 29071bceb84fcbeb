"""The commands: each parses, builds, runs and exits with a code. Only this package prints."""

from worldmodel_v.cli.terminal import open_closed_streams

open_closed_streams()  # before anything else is opened
