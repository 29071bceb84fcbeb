"""`python -m worldmodel_v`: every command by its name without `wm-`."""

import importlib
import sys
from typing import Any

from worldmodel_v.cli.main import leave_with_error, print_version
from worldmodel_v.cli.terminal import print_lines
from worldmodel_v.errors import ConfigError

PROGRAM = "python -m worldmodel_v"
COMMANDS = ("collect", "import", "train", "eval", "encode", "view", "select", "export", "inspect", "pipeline")
MODULES = {"import": "importing"}
"""The module of a command whose name is no name in Python."""


def main() -> None:
    """Run the command that the first word names with the words after it, or list the commands."""
    name, words = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if name in COMMANDS:
        sys.argv = [f"wm-{name}", *words]
        module_of(name).main()
    elif name == "--version":
        print_version("worldmodel_v")
    elif name in ("-h", "--help"):
        print_lines(f"usage: {PROGRAM} COMMAND …, the same as wm-COMMAND …; its options: {PROGRAM} COMMAND --help\n\n")
        for command in COMMANDS:
            text = module_of(command).__doc__ or ""
            print_lines(f"  {command:<9} {text.splitlines()[0].partition(': ')[2]}\n")
    else:
        leave_with_error(PROGRAM, ConfigError(f"unknown command {name!r}; expected one of {', '.join(COMMANDS)}"))


def module_of(command: str) -> Any:
    """The module of a command, imported."""
    return importlib.import_module(f"worldmodel_v.cli.{MODULES.get(command, command)}")
