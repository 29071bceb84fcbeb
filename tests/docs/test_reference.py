"""The generated reference: each command, option, setting and error is on its page."""

import dataclasses
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import worldmodel_v
from tests.docs.test_pages import CONFIGS
from worldmodel_v.cli.examples import EXAMPLES
from worldmodel_v.cli.main import Output
from worldmodel_v.errors import UsageError, WorldModelError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def load_hooks() -> ModuleType:
    found = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


hooks = load_hooks()


@pytest.fixture(scope="module")
def cli_page() -> str:
    return hooks.cli_page()


@pytest.fixture(scope="module")
def config_page() -> str:
    return hooks.config_page()


def section(page: str, heading: str) -> str:
    """What stands below a heading, up to the next."""
    (found,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    return found


def rows(text: str) -> dict[str, list[str]]:
    """The first cell of each line of a table -> the others."""
    cells = [re.findall(r"(?:`[^`]*`|\\\||[^|])+", line[1:-1]) for line in text.splitlines() if line.startswith("| ")]
    return {first.strip(): [cell.strip() for cell in others] for first, *others in cells}


@pytest.mark.parametrize("command", EXAMPLES)
def test_the_examples_of_each_command_are_on_the_page(command: str, cli_page: str) -> None:
    if f"## {command}\n" in cli_page:  # a command with subcommands has none itself
        assert "```sh\n" + "\n".join(EXAMPLES[command]) + "\n```" in section(cli_page, command)
    else:
        assert f"## {command} " in cli_page


@pytest.mark.parametrize("command", CONFIGS)
def test_each_option_of_each_command_is_on_the_page(command: str, cli_page: str) -> None:
    shown = section(cli_page, command)
    words = {word for cell in rows(shown) for word in re.findall(r"--[\w-]+", cell)}
    for field in (*dataclasses.fields(CONFIGS[command]), *dataclasses.fields(Output)):
        option = field.name.rstrip("_").replace("_", "-")
        if not words & {f"--{option}", f"--no-{option}"}:
            assert "Positional" in str(inspect.get_annotations(CONFIGS[command])[field.name]), f"{command} {field.name}"
    assert all(cells[-1] for cells in rows(shown).values()), "an option without a help"


def test_each_command_that_is_installed_has_a_section(cli_page: str) -> None:
    headings = re.findall(r"^## (.*)", cli_page, flags=re.MULTILINE)
    assert {heading.split()[0] for heading in headings} == hooks.COMMANDS.keys()
    assert {*CONFIGS} <= {*headings}


def test_an_option_shows_its_values_its_default_and_its_help(cli_page: str) -> None:
    options = rows(section(cli_page, "wm-train"))
    assert options["`--steps`"] == ["`INT`", "`10000`", "Number of all optimiser steps."]
    assert options["`--publish`"][:2] == ["`last|best`", "`last`"]
    assert options["`--out`"][:2] == ["`PATH`", "required"]
    assert options["`--compile`"][:2] == options["`--no-resume`"][:2] == ["", ""]
    assert "wm-train --data PATH|URL ... --out PATH [OPTIONS]" in section(cli_page, "wm-train")
    assert "wm-inspect PATH|URL [OPTIONS]" in section(cli_page, "wm-inspect")


@pytest.mark.parametrize("config", hooks.CONFIGS, ids=lambda config: config.__name__)
def test_each_setting_is_on_the_page_with_its_docstring(config: type[Any], config_page: str) -> None:
    shown = rows(section(config_page, config.__name__))
    for field in dataclasses.fields(config):
        kind, default, said = shown[f"`{field.name}`"]
        assert kind
        assert (default == "required") == (field.default is field.default_factory is dataclasses.MISSING)
        assert said


def test_the_settings_of_all_stages_and_exports_are_there() -> None:
    stages = {config for command, config in CONFIGS.items() if not command.startswith(("wm-inspect", "wm-pipeline"))}
    assert stages <= {*hooks.CONFIGS}


def test_a_setting_shows_its_bounds_and_its_choices(config_page: str) -> None:
    shown = rows(section(config_page, "TrainConfig"))
    assert shown["`batch_size`"][0] == "`int`, at least 1, at most 65,536"
    assert shown["`publish`"][0] == "`'last'` or `'best'`"
    assert shown["`beta`"][:2] == ["`float`, at least 0", "`1.0`"]


def subclasses(error: type[WorldModelError]) -> set[type[WorldModelError]]:
    return {error}.union(*map(subclasses, error.__subclasses__()))


def test_each_error_says_its_exit_code_when_it_is_raised_and_what_to_do() -> None:
    shown = {re.findall(r"`(\w+)`", first)[0]: others for first, others in rows(hooks.errors_page()).items() if "`" in first}
    assert shown.keys() == {error.__name__ for error in subclasses(WorldModelError)}
    for error in subclasses(WorldModelError):
        code, when, what_to_do = shown[error.__name__]
        assert code == ("2" if issubclass(error, UsageError) else "1")
        assert when
        assert what_to_do


def test_each_public_name_is_on_the_page_of_the_api() -> None:
    shown = re.findall(r"^::: (\S+)", (DOCS / "reference" / "api.md").read_text(), flags=re.MULTILINE)
    public = {*worldmodel_v.__all__} - {"__version__"}
    assert public <= {path.rpartition(".")[2] for path in shown}
    for path in shown:
        if (name := path.rpartition(".")[2]) in public:
            home, _, last = path.rpartition(".")
            assert getattr(importlib.import_module(home), last) is getattr(worldmodel_v, name), path


def test_links_of_a_notebook_lead_to_the_pages_that_others_became() -> None:
    files = Files([File(path, "docs", "site", use_directory_urls=True) for path in ("tutorials/a.ipynb", "start/tour.md")])
    page = SimpleNamespace(file=files.get_file_from_path("tutorials/a.ipynb"))
    content = '<a href="../start/tour.md">, <a href="https://example.org/b.md">'
    led = '<a href="../start/tour/">, <a href="https://example.org/b.md">'
    assert hooks.on_page_content(content, page, MkDocsConfig(), files) == led
    with pytest.raises(PluginError, match=r"tutorials/a.ipynb links to b.ipynb, which is not there"):
        hooks.on_page_content('<a href="b.ipynb">', page, MkDocsConfig(), files)
