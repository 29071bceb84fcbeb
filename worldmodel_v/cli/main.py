"""What all commands share: parsing, output, and the way from an error to an exit code."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from worldmodel_v.cli.progress import open_progress
from worldmodel_v.cli.tables import print_facts
from worldmodel_v.errors import WorldModelError, WriteFailed
from worldmodel_v.interrupts import EXIT_INTERRUPTED, interruptible
from worldmodel_v.jobs import refuse_temporary_output
from worldmodel_v.progress import Progress

Config = TypeVar("Config")
Result = TypeVar("Result")
PARSING = (tyro.conf.FlagCreatePairsOff, tyro.conf.CascadeSubcommandArgs, tyro.conf.OmitSubcommandPrefixes)


@dataclass(frozen=True, kw_only=True)
class Output:
    """How a command tells of itself."""

    quiet: bool = False
    """Print no progress, only the result."""

    json: bool = False
    """Print the result as one JSON object."""


def run(
    program: str,
    config_class: type[Config],
    work: Callable[[Config, Progress], Result],
    show: Callable[[Result], None] | None = None,
    *,
    subcommand: str = "",
    args: Sequence[str] | None = None,
    kept: str = "what is committed is kept, and the same command continues",
) -> None:
    """Parse the command line into `config_class`, do the work, print its result and exit.

    `work` returns a dataclass or dictionary, which `show` prints (default: a table of its facts). `subcommand` stands after
    the program in its help, `args` are the words to parse (default: all of the command line), and `kept` is what an
    interruption leaves. Exit codes: 0 done, 1 failed, 2 asked wrongly, 130 interrupted.
    """
    config, output = parse(program, config_class, subcommand=subcommand, args=args)
    sys.path.insert(0, str(Path.cwd()))  # a user's own module:factory and module:EnvId
    try:
        if isinstance(out := getattr(config, "out", None), Path):
            refuse_temporary_output(out)
        with interruptible(), open_progress(quiet=output.quiet) as progress, contextlib.redirect_stdout(sys.stderr):
            result = work(config, progress)
        if output.json:
            print(json.dumps(_facts(result), default=str, indent=2))
        else:
            (show or _show_facts)(result)
        sys.stdout.flush()
    except WorldModelError as error:
        leave_with_error(program, error)
    except BrokenPipeError:
        _leave_a_closed_pipe()
    except OSError as error:
        leave_with_error(program, WriteFailed(f"the system refused: {error}"))
    except KeyboardInterrupt:
        print(f"{program}: interrupted; {kept}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def parse(
    program: str, config_class: type[Config], *, subcommand: str = "", args: Sequence[str] | None = None
) -> tuple[Config, Output]:
    """The command line as a config and output options; prints help or an error and exits if it must."""

    def command(config: Any, output: Any) -> tuple[Any, Any]:
        return config, output

    command.__annotations__ = {
        "config": tyro.conf.OmitArgPrefixes[config_class],  # type: ignore[misc, valid-type]
        "output": tyro.conf.OmitArgPrefixes[Output],
    }
    try:
        return tyro.cli(command, prog=f"{program} {subcommand}".strip(), args=args, description="", config=PARSING)
    except WorldModelError as error:
        leave_with_error(program, error)
    except BrokenPipeError:
        _leave_a_closed_pipe()


def leave_with_error(program: str, error: WorldModelError) -> NoReturn:
    """Print one line for each line of the error, and exit with its code."""
    for line in str(error).splitlines():
        print(f"{program}: {line}", file=sys.stderr)
    sys.exit(error.exit_code)


def _show_facts(result: Any) -> None:
    print_facts(_facts(result))


def _leave_a_closed_pipe() -> NoReturn:
    """Whoever read the output has seen enough (`| head`): leave quietly, and keep Python from flushing into nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _facts(result: Any) -> dict[str, Any]:
    return dataclasses.asdict(result) if dataclasses.is_dataclass(result) and not isinstance(result, type) else result
