"""What MkDocs makes when it builds the site: `reference/cli.md`, `config.md` and `errors.md`, from the code alone.

Commands come from their parsers, settings from the fields of their classes and the docstrings below these, errors from their
classes. (`reference/api.md` is written, and filled by mkdocstrings.)
"""

import argparse
import contextlib
import dataclasses
import importlib
import inspect
import io
import posixpath
import re
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from unittest.mock import patch

import griffe
import tyro
from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import worldmodel_v
from worldmodel_v.autoencoders import AutoencoderConfig
from worldmodel_v.autoencoders.gaussian import VAEConfig
from worldmodel_v.autoencoders.gaussian.ladder import LadderConfig
from worldmodel_v.autoencoders.gaussian.spatial import SpatialConfig
from worldmodel_v.autoencoders.tokens.categorical import CategoricalConfig
from worldmodel_v.autoencoders.tokens.fsq import FSQConfig
from worldmodel_v.autoencoders.tokens.vq import VQConfig
from worldmodel_v.cli.examples import EXAMPLES
from worldmodel_v.cli.export import CHOICES
from worldmodel_v.cli.importing import CHOICES as RECORDINGS
from worldmodel_v.collection import CollectConfig, CollectionConfig
from worldmodel_v.encoding import EncodeConfig
from worldmodel_v.errors import UsageError, WorldModelError
from worldmodel_v.evaluation import EvalConfig
from worldmodel_v.export import FORMATS
from worldmodel_v.export.hub import HubConfig
from worldmodel_v.export.model import ModelExportConfig
from worldmodel_v.importing import FORMATS as IMPORT_FORMATS
from worldmodel_v.selection import SelectConfig
from worldmodel_v.training import TrainConfig
from worldmodel_v.view import ViewConfig

ROOT = Path(__file__).parents[1]
COMMANDS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
"""A command -> module:function."""

SUBCOMMANDS = {"wm-export": CHOICES, "wm-import": RECORDINGS}
"""A command that chooses its parser by itself -> the words that choose; other parsers know their subcommands."""

CONFIGS: tuple[type[Any], ...] = (
    *(CollectConfig, TrainConfig, EvalConfig, EncodeConfig, ViewConfig, SelectConfig),
    *(*IMPORT_FORMATS.values(), *FORMATS.values(), ModelExportConfig, HubConfig),
    *(CollectionConfig, AutoencoderConfig, VAEConfig, SpatialConfig, LadderConfig, FSQConfig, VQConfig, CategoricalConfig),
)
"""In the order of the page."""

BOUNDS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "below")}

DEFAULT = re.compile(r"\s*\((required|default: (.*))\)$", re.DOTALL)
"""What tyro puts behind the help of an option."""

CLI_HEAD = """# Commands

Made from the parsers of the commands: what `--help` says, on one page.

Every command leaves with 0 when done, 1 when its work failed, 2 when the command or its input is wrong, and 130 when it was
interrupted.
"""

CONFIG_HEAD = """# Settings

Every stage is a function of Python that takes one of these dataclasses: `train(TrainConfig(data="rollouts", out="vae"))`. A
pipeline file has the same names (`train.steps: 500`), and so has the command: `batch_size` is `--batch-size`.

All arguments are given by name. A value that makes no sense raises [`ConfigError`](errors.md) when the object is made.
"""

ERRORS_HEAD = """# Errors

Every failure that you can meet is one of these classes, from `worldmodel_v.errors`. A command prints its message as one line
and leaves with its exit code. In Python, catch `UsageError` for what was asked wrongly, and `WorldModelError` for everything.

A message says where, what is wrong, what was expected, what was found, and what to do next. These parts are attributes too
([`WorldModelError`](api.md#worldmodel_v.errors.WorldModelError)).

| error | exit code | raised when | what to do |
|---|---|---|---|
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs calls it before it reads the pages."""
    for name, content in {"cli": cli_page(), "config": config_page(), "errors": errors_page()}.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """MkDocs calls it with each page's content: links of notebooks to other pages lead there, as those of Markdown do."""

    def link(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), found[1]))
        target = files.get_file_from_path(path)
        if target is None:
            raise PluginError(f"{page.file.src_uri} links to {found[1]}, which is not there")
        return f'href="{target.url_relative_to(page.file)}"'

    return re.sub(r'href="([\w./-]+\.(?:ipynb|md))"', link, html) if page.file.src_uri.endswith(".ipynb") else html


class _Parser(Exception):
    """Carries a command's parser out of the command."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parsers() -> Iterator[argparse.ArgumentParser]:
    """The parser of each command and of each subcommand."""
    for program in COMMANDS:
        for words in [[word] for word in SUBCOMMANDS.get(program, ())] or [[]]:
            parser = parser_of(program, words)
            nested = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
            yield from nested[0].values() if nested else [parser]


def parser_of(program: str, words: list[str]) -> argparse.ArgumentParser:
    """The parser that a command makes for itself, caught where the command hands it to tyro."""

    def catch(command: object, **settings: object) -> None:
        known = {name: settings.get(name) for name in ("prog", "description", "config")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # tyro has nothing else that describes a parser
            raise _Parser(tyro.extras.get_parser(command, **known))

    module, _, main = COMMANDS[program].partition(":")
    entry = getattr(importlib.import_module(module), main)
    streams = contextlib.redirect_stderr(io.StringIO())  # the command takes the process's own streams
    with patch("tyro.cli", catch), patch.object(sys, "argv", [program, *words, "--help"]), streams:
        try:
            entry()
        except _Parser as caught:
            return caught.parser
    raise AssertionError(f"{program} has no parser")


def cli_page() -> str:
    """Markdown: each command, what it does, and its options."""
    return CLI_HEAD + "".join(map(_command, parsers()))


def _command(parser: argparse.ArgumentParser) -> str:
    positional = [action for action in parser._actions if not action.option_strings]
    options = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    needed = [f"{action.option_strings[0]} {_value(action)}" for action in options if _help(action)[1] == "required"]
    usage = " ".join([parser.prog, *map(_value, positional), *needed, "[OPTIONS]"])
    rows = [_row(f"`{_value(action)}`", "", action) for action in positional]
    rows += [_row(_options(action), _value(action), action) for action in options]
    table = "| option | value | default | what it is |\n|---|---|---|---|\n" + "".join(rows)
    described = next(filter(None, [parser.description, *(group.description for group in parser._action_groups)]), "")
    examples = "\n".join(EXAMPLES[parser.prog])
    return (
        f"\n## {parser.prog}\n\n{_shown(described)}\n\n```text\n{usage}\n```\n\nExamples:\n\n```sh\n{examples}\n```\n\n{table}"
    )


def _row(name: str, value: str, action: argparse.Action) -> str:
    help_, default = _help(action)
    default = "" if action.nargs == 0 else default
    shown = default if default in ("required", "") else _code(default)
    return f"| {name} | {_code(value)} | {shown} | {_cell(help_)} |\n"


def _options(action: argparse.Action) -> str:
    return ", ".join(f"`{option}`" for option in action.option_strings)


def _value(action: argparse.Action) -> str:
    """How its value is written: INT, PATH, or the choices; nothing for a flag."""
    if action.nargs == 0:
        return ""
    return str(action.metavar or "").strip("{}").replace(",", "|")


def _help(action: argparse.Action) -> tuple[str, str]:
    """The help of an option, and its default: `required`, or nothing where there is none."""
    found = DEFAULT.search(action.help or "")
    if not found:
        return action.help or "", ""
    default = found[1] if found[2] is None else found[2]
    return (action.help or "")[: found.start()], "" if default == "None" else default.strip("'")


def config_page() -> str:
    """Markdown: each class of settings, what it is for, and its fields."""
    package = griffe.load("worldmodel_v", submodules=True)
    return CONFIG_HEAD + "".join(_config(config, package) for config in CONFIGS)


def _config(config: type[Any], package: griffe.Object | griffe.Alias) -> str:
    hints, table = get_type_hints(config, include_extras=True), "| field | type | default | what it is |\n|---|---|---|---|\n"
    for field in dataclasses.fields(config):
        said = _cell(_said_of(config, field.name, package))
        table += f"| `{field.name}` | {_type(hints[field.name])} | {_default(field)} | {said} |\n"
    home = "worldmodel_v" if config.__name__ in worldmodel_v.__all__ else config.__module__
    import_ = f"```python\nfrom {home} import {config.__name__}\n```"
    return f"\n## {config.__name__}\n\n{_shown(inspect.getdoc(config) or '')}\n\n{import_}\n\n{table}"


def _said_of(config: type[Any], field: str, package: griffe.Object | griffe.Alias) -> str:
    """The docstring below a field, in the class that declares it last."""
    for home in config.__mro__:
        if field in inspect.get_annotations(home):
            docstring = package[f"{home.__module__.partition('.')[2]}.{home.__name__}.{field}"].docstring
            return docstring.value if docstring else ""
    raise AssertionError(f"{config.__name__} does not declare {field}")


def _type(hint: Any) -> str:
    bounds: list[str] = []
    if get_origin(hint) is Annotated:
        hint, *given = get_args(hint)
        for bound in (each for some in given for each in (some if isinstance(some, GroupedMetadata) else [some])):
            attribute, words = BOUNDS[type(bound)]
            bounds.append(f"{words} {getattr(bound, attribute):,}".removesuffix(".0"))
    if get_origin(hint) is Literal:
        return " or ".join(_code(repr(choice)) for choice in get_args(hint))
    name = inspect.formatannotation(hint).replace("pathlib.", "").replace("typing.", "")
    return ", ".join([_code(name), *bounds])


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return _code(repr(field.default_factory()))
    return "required" if field.default is dataclasses.MISSING else _code(repr(field.default))


def errors_page() -> str:
    """Markdown: each error, its exit code, when it is raised, and what to do."""
    return ERRORS_HEAD + "".join(map(_error, errors()))


def errors() -> Iterator[type[WorldModelError]]:
    """The classes: those for mistakes in what was asked first, each below its base."""
    yield WorldModelError
    yield from [UsageError, *UsageError.__subclasses__()]
    yield from (error for error in WorldModelError.__subclasses__() if error is not UsageError)


def _error(error: type[WorldModelError]) -> str:
    when, _, what_to_do = (inspect.getdoc(error) or "").partition("\n\n")
    link = f"[`{error.__name__}`](api.md#{error.__module__}.{error.__qualname__})"
    return f"| {link} | {error.exit_code} | {_cell(when)} | {_cell(what_to_do.partition(chr(10) * 2)[0])} |\n"


def _cell(text: str) -> str:
    return _shown(" ".join(text.split())).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _shown(text: str) -> str:
    """A help text as Markdown, which shows it as a terminal does."""
    return re.sub(r"(`[^`]*`)|([<*_\[])", lambda found: found[1] or f"\\{found[2]}", text)
