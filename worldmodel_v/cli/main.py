"""What all commands share: parsing, output, and the way from an error to an exit code.

By default, PyTorch's threads spin while they wait for each other. If other programs use the cores too, spinning takes processor
time from the very thread that they wait for. So this module lets them sleep, unless the user has set OMP_WAIT_POLICY. PyTorch
reads the variable when it is loaded, and no command has loaded it before this module.
"""

import dataclasses
import errno
import functools
import inspect
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from worldmodel_v import __version__
from worldmodel_v.cli.examples import examples_of
from worldmodel_v.cli.following import Following, in_one_line
from worldmodel_v.cli.options import as_declared, constructors, spelled, takes_several
from worldmodel_v.cli.progress import open_progress, print_json_event
from worldmodel_v.cli.tables import print_facts
from worldmodel_v.cli.terminal import print_json, print_line, print_lines, take_streams
from worldmodel_v.errors import ConfigError, WorldModelError, WriteFailed, one_line
from worldmodel_v.interrupts import EXIT_INTERRUPTED, interruptible
from worldmodel_v.jobs import refuse_temporary_output
from worldmodel_v.own_modules import look_in
from worldmodel_v.process import output_to_stderr, output_to_stderr_at_exit
from worldmodel_v.progress import LogFormat, Progress
from worldmodel_v.surface import on_the_command_line, worded
from worldmodel_v.untrusted import printable

Config = TypeVar("Config")
Result = TypeVar("Result")
PARSING = (tyro.conf.FlagCreatePairsOff, tyro.conf.CascadeSubcommandArgs, tyro.conf.OmitSubcommandPrefixes)
SIDES, RULES = "│| ", "╰─╯+-"
"""What the parser draws beside its lines, and between its paragraphs."""

_NO_VALUE = re.compile("--[^=]+=")

os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a command prints."""

    quiet: bool = False
    """Print only the result and errors."""

    log_format: LogFormat = "text"
    """How events and errors are written on standard error: text, or one JSON object a line."""

    json: bool = False
    """Print the result, or what failed, as one JSON object."""

    version: bool = False
    """Print the version and exit."""


DEFAULT_OUTPUT = Output()


@worded(on_the_command_line)
def run(
    program: str,
    config_class: type[Config] | Callable[[Sequence[str]], type[Config]],
    work: Callable[..., Result],
    show: Callable[[Result], None] | None = None,
    *,
    beside: Callable[[Config], AbstractContextManager[Any]] | None = None,
    subcommand: str = "",
    args: Sequence[str] | None = None,
    kept: str = "what is committed is kept, and the same command continues",
    following: Following | None = None,
) -> None:
    """Parse the command line into `config_class`, or the class that this function of the words gives; do the work, print its
    result and exit.

    `work` takes the config and the progress; with `beside`, which makes a process while there are no threads, also that, as
    `apart`. It returns a dataclass or dictionary, which `show` prints (default: a table of its facts). `subcommand` follows the
    program's name in the help, `args` are the words to parse (default: the whole command line), `kept` is what an interruption
    leaves, and `following` gives the commands to suggest at the end, on a terminal. Exit codes: 0 done, 1 failed, 2 wrong
    usage, 130 interrupted.
    """
    config, output = parse(program, config_class, subcommand=subcommand, args=args)
    try:
        look_in(_directory_here())
        if isinstance(out := getattr(config, "out", None), Path):
            refuse_temporary_output(out)
        telling = open_progress(program, quiet=output.quiet, log_format=output.log_format)
        with interruptible(), beside(config) if beside else nullcontext() as apart, telling as progress, output_to_stderr():
            result = _worked(functools.partial(work, apart=apart) if beside else work, config, progress)
        with _written_to_standard_output(program, output):
            (_print_json if output.json else show or _print_facts)(result)
        if following and output == DEFAULT_OUTPUT and sys.stderr.isatty():
            for command in map(in_one_line, following(config, result)):
                print_line(f"next: {command}")
        output_to_stderr_at_exit()
    except WorldModelError as error:
        leave_with_error(program, error, output)
    except OSError as error:
        leave_with_error(program, _refusal(error, getattr(config, "out", None)), output)
    except KeyboardInterrupt:
        message = f"interrupted; {kept}"
        _leave(program, EXIT_INTERRUPTED, message, "interrupted", {}, output)
    finally:
        look_in(None)


def _directory_here() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        raise ConfigError("the working directory has been removed; cd to another one") from None


def _worked(work: Callable[..., Result], config: Config, progress: Progress) -> Result:
    """What `work` returns: only this is a success, whatever code of the user's asks Python to do."""
    try:
        return work(config, progress)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise WorldModelError(f"code that it ran ended it: {one_line(error)}", remedy="mend that code") from error


def parse(
    program: str,
    config_class: type[Config] | Callable[[Sequence[str]], type[Config]],
    *,
    subcommand: str = "",
    args: Sequence[str] | None = None,
) -> tuple[Config, Output]:
    """The command line as a config and output options; on `--help` or an error, prints that and exits."""
    take_streams()
    name = f"{program} {subcommand}".strip()

    def command(config: Any, output: Any) -> tuple[Any, Any]:
        return as_declared(config), as_declared(output)

    try:
        words = sys.argv[1:] if args is None else args
        _require_text(words)
        _require_once(words, config_class)
        if "--version" in words:
            print_version(program)
        found = spelled(_class_for(words, config_class))
        command.__annotations__ = {
            "config": tyro.conf.OmitArgPrefixes[found],  # type: ignore[misc, valid-type]
            "output": tyro.conf.OmitArgPrefixes[spelled(Output)],  # type: ignore[misc]
        }
        printing = _written_to_standard_output(program, DEFAULT_OUTPUT)
        with constructors(), printing, _examples_after_help(name, words), _refusals_for_programs(words):
            parse_words = functools.partial(tyro.cli, command, prog=name, description="", config=PARSING)
            if (shown := list(map(printable, words))) != list(words):
                with suppress(WorldModelError):
                    parse_words(args=shown)  # what tyro refuses, it prints
            return parse_words(args=words)
    except WorldModelError as error:
        leave_with_error(program, error, output_asked_for(args))


def print_version(program: str) -> NoReturn:
    """Print it and exit."""
    take_streams()
    with _written_to_standard_output(program, DEFAULT_OUTPUT):
        print_lines(f"{program} {__version__}\n")
    sys.exit()


@contextmanager
def _examples_after_help(program: str, words: Sequence[str]) -> Iterator[None]:
    """If the block prints the help and exits, examples follow."""
    try:
        yield
    except SystemExit as end:
        if not end.code and not {"-h", "--help"}.isdisjoint(words):
            print_lines(examples_of(program, words))
        raise


@contextmanager
def _refusals_for_programs(words: Sequence[str]) -> Iterator[None]:
    """What the parser refuses in a box for people, the block raises as ConfigError where the words ask for JSON."""
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            yield
    except SystemExit as end:
        box = printed.getvalue()
        output = output_asked_for(words) if end.code else DEFAULT_OUTPUT
        if output.json or output.log_format == "json":
            raise ConfigError("; ".join(_what_is_wrong(box))) from None
        sys.stderr.write(box)
        raise
    else:
        sys.stderr.write(printed.getvalue())


def _what_is_wrong(box: str) -> Iterator[str]:
    """The paragraphs of a refusal, each on one line, without what repeats the help."""
    lines = (line.strip(SIDES) for line in box.splitlines()[1:])
    for is_text, paragraph in itertools.groupby(lines, lambda line: bool(line.strip(RULES))):
        text = " ".join(paragraph)
        if is_text and not text.startswith(("Argument helptext", "For full helptext")):
            yield text


def output_asked_for(args: Sequence[str] | None) -> Output:
    """What a command line that is wrong elsewhere says of the output."""
    own, _ = tyro.cli(Output, args=args, return_unknown_args=True, add_help=False, config=PARSING)
    return own


def leave_with_error(program: str, error: WorldModelError, output: Output = DEFAULT_OUTPUT) -> NoReturn:
    """Print one line for each line of the error (as JSON: the event `failed`, with its parts), and exit with its code."""
    take_streams()
    _leave(program, error.exit_code, str(error), "failed", {"error": type(error).__name__, **error.parts}, output)


def _leave(program: str, code: int, message: str, event: str, facts: dict[str, Any], output: Output) -> NoReturn:
    facts |= {"exit_code": code}
    if output.log_format == "json":
        print_json_event(program, event, message, "error", facts)
    else:
        for line in message.split("\n"):
            print_line(f"{program}: {line}")
    if output.json:
        with _written_to_standard_output(program, output, code):
            print_json({"event": event, **facts, "message": message})
    sys.exit(code)


def _require_text(words: Sequence[str]) -> None:
    """Raise ConfigError for an empty word, and for bytes that are no text, which records and libraries cannot hold.

    As a path, an empty word would be the current directory.
    """
    for before, word in itertools.pairwise(["", *words]):
        if not word or _NO_VALUE.fullmatch(word):
            after = f" after {word or before}" if word or before else ""
            raise ConfigError(
                f"an empty argument{after}, as of an unset shell variable; give a value (. is the directory here)"
            )
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{word!r}: is not valid UTF-8; rename that file or directory") from None


def options_in(words: Sequence[str]) -> list[tuple[str, str]]:
    """The options of a command line: each as it is written, without its value, and its field: `--no-resume`, `resume`."""
    given = [word.partition("=")[0] for word in itertools.takewhile(lambda word: word != "--", words) if word.startswith("--")]
    return [(name, name.removeprefix("--").replace("-", "_").removeprefix("no_")) for name in given]


def _class_for(words: Sequence[str], config_class: Any) -> Any:
    """The class itself, or what a function makes of the words."""
    return config_class(words) if inspect.isfunction(config_class) else config_class


def _require_once(words: Sequence[str], config_class: Any) -> None:
    """Raise ConfigError for an option that is given twice: the parser would take the last one and drop the others."""
    options = options_in(words)
    fields = [field for _, field in options]
    for name, field in options:
        if fields.count(field) > 1:
            what = f"{name.replace('_', '-')}: is given {fields.count(field)} times"
            raise ConfigError(what, remedy=f"give it once{_of_datasets(words, config_class) if field == 'data' else ''}")


def _of_datasets(words: Sequence[str], config_class: Any) -> str:
    if takes_several(_class_for(words, config_class), "data"):
        return ", with all datasets after it: --data A B"
    return "; wm-select makes one dataset of several"


def _refusal(error: OSError, out: Path | None) -> WorldModelError:
    """An error of the operating system, as one of this package's errors; names `out` where the system names no file."""
    if error.errno == errno.ENAMETOOLONG:
        what = "the name is longer than this file system allows"
        return ConfigError(what, where=error.filename, remedy="give a shorter one")
    return WriteFailed(f"the system refused ({error.strerror or error})", where=error.filename or out)


@contextmanager
def _written_to_standard_output(program: str, output: Output, code: int | None = None) -> Iterator[None]:
    """What the block prints is written at its end, or the process exits: with `code` if one is given, else with 0 if its reader
    has closed the pipe (`| head`), and with 1 and an error if it cannot be written."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up_standard_output()
        sys.exit(code or 0)
    except OSError as error:
        _give_up_standard_output()
        lost = WriteFailed(f"cannot be written ({error.strerror}); all else is done", where="standard output")
        lost.exit_code = code or lost.exit_code
        leave_with_error(program, lost, dataclasses.replace(output, json=False))


def _give_up_standard_output() -> None:
    """Keep Python from writing what it still holds when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_json(result: Any) -> None:
    print_json(_facts(result))


def _print_facts(result: Any) -> None:
    print_facts(_facts(result))


def _facts(result: Any) -> dict[str, Any]:
    return dataclasses.asdict(result) if dataclasses.is_dataclass(result) and not isinstance(result, type) else result
