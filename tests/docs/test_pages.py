"""What the documents name exists: options, make targets, files, links. Its Python compiles."""

import inspect
import itertools
import re
import shlex
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.docs.pages import NOT_RUN, PAGES, ROOT, TOP_LEVEL, blocks, prose
from worldmodel_v.autoencoders.registry import BUILT_IN
from worldmodel_v.cli.inspect import InspectConfig
from worldmodel_v.cli.main import Output
from worldmodel_v.cli.pipeline import COMMANDS as PIPELINE_COMMANDS
from worldmodel_v.collection import CollectConfig
from worldmodel_v.encoding import EncodeConfig
from worldmodel_v.evaluation import EvalConfig
from worldmodel_v.export import FORMATS
from worldmodel_v.export.hub import HubConfig
from worldmodel_v.export.model import ModelExportConfig
from worldmodel_v.importing import FORMATS as IMPORT_FORMATS
from worldmodel_v.pipeline import STAGES
from worldmodel_v.selection import SelectConfig
from worldmodel_v.training import TrainConfig, train_config
from worldmodel_v.training.trainer import OWN_NAMES
from worldmodel_v.view import ViewConfig

CONFIGS = {
    "wm-collect": CollectConfig,
    "wm-train": TrainConfig,
    "wm-encode": EncodeConfig,
    "wm-eval": EvalConfig,
    "wm-view": ViewConfig,
    "wm-select": SelectConfig,
    "wm-inspect": InspectConfig,
    **{f"wm-import {name}": config for name, config in IMPORT_FORMATS.items()},
    **{f"wm-pipeline {name}": config for name, config in PIPELINE_COMMANDS.items()},
    **{f"wm-export {name}": config for name, config in FORMATS.items()},
    "wm-export model": ModelExportConfig,
    "wm-export hub": HubConfig,
}
DOCUMENTS = [
    *PAGES,
    *(str(path.relative_to(ROOT)) for folder in ("pipelines", "docker") for path in (ROOT / folder).iterdir()),
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def commands(document: str) -> list[list[str]]:
    """Every `wm-…` command line of a document, without what stands before the command."""
    text = (ROOT / document).read_text().replace("\\\n", " ")
    found = re.findall(rf"({'|'.join(CONFIGS)}) ([^`\n|#]*--[^`\n|#]*)", text)
    return [[program, *shlex.split(options)] for program, options in found]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_flag_of_a_documented_command_exists(document: str) -> None:
    for program, *words in commands(document):
        config = CONFIGS[program]
        if config is TrainConfig and "--autoencoder" in words:
            kind = words[words.index("--autoencoder") + 1]
            config = train_config(kind if kind in BUILT_IN else f"tests.extending.{kind}")
        fields = {*config.__dataclass_fields__, *Output.__dataclass_fields__, "help"}
        for word in words:
            stage, _, field = word[2:].partition(".")
            if field and stage in STAGES:
                assert field in STAGES[stage].__dataclass_fields__, f"{document}: {word}"
            elif word.startswith("--") and word != "--tyro-print-completion":
                name = word[2:].replace("-", "_")
                assert name in fields or f"{name}_" in fields, f"{document}: {program} {word}"


def test_each_command_is_shown_with_its_flags() -> None:
    shown = {words[0] for page in PAGES for words in commands(page)}
    assert {name for name in CONFIGS if not name.startswith(("wm-export", "wm-import", "wm-pipeline"))} <= shown


@pytest.mark.parametrize("document", [*PAGES, ".ci/run"])
def test_every_make_target_that_documents_name_exists(document: str) -> None:
    for target in re.findall(r"(?:^|`)make ([a-z-]+)\b", (ROOT / document).read_text(), flags=re.MULTILINE):
        assert target in TARGETS, f"{document}: make {target}"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    named = r"(?<![\w./-])((?:benchmarks|docker|examples|pipelines|tests|worldmodel_v)/[\w./-]*\w)"
    for path in re.findall(named, (ROOT / page).read_text()):
        assert (ROOT / path).exists() or path.startswith("worldmodel_v/CarRacing"), f"{page}: {path}"


def anchors(page: Path) -> set[str]:
    """What can be linked to in a page: its headings, as GitHub and MkDocs both write them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TOP_LEVEL)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    """Those from below docs/ are checked when the site is built."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        url = urlsplit(target)
        if url.scheme:
            assert url.scheme == "https", f"{page}: {target}"
            continue
        linked = (ROOT / page).parent / url.path if url.path else ROOT / page
        assert linked.is_file(), f"{page}: {target}"
        assert not url.fragment or url.fragment in anchors(linked), f"{page}: {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.language == "python" for block in blocks(page))])
def test_python_in_a_page_compiles(page: str) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.code, page, "exec")


def test_no_page_writes_where_another_one_has_written() -> None:
    """A reader of both would be refused: the settings differ."""
    pages = defaultdict(set)
    for block in itertools.chain.from_iterable(map(blocks, PAGES)):
        for out in re.findall(r'(?:--out |out=(?:Path\()?")(runs/[\w./-]+)', block.code):
            pages[out].add(block.page)
    assert len(pages) > 30
    assert {out for out, writing in pages.items() if len(writing) > 1} == {"runs/quickstart/view.html"}


@pytest.mark.parametrize("page", NOT_RUN)
def test_what_is_not_run_is_there(page: str) -> None:
    for beginning in NOT_RUN[page]:
        assert any(block.code.startswith(beginning) for block in blocks(page)), f"{page}: {beginning}"


def test_files_that_pages_show_are_those_of_the_tests() -> None:
    shown = {block.title: block.code for page in PAGES for block in blocks(page) if block.title}
    tested = {name: ROOT / "tests" / "extending" / name for name in shown}
    same = {name for name, path in tested.items() if path.exists() and path.read_text() == shown[name]}
    assert same == {"depth_world.py", "my_tokenizer.py", "shelf.py", "threads_executor.py"}


def test_the_readme_is_short_and_links_to_every_how_to() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    assert len([block for block in blocks("README.md") if block.language == "python"]) == 1
    for path in [*(ROOT / "docs/start").iterdir(), *(ROOT / "docs/howto").glob("*.md")]:
        assert str(path.relative_to(ROOT)) in text


def test_all_that_a_training_leaves_is_listed() -> None:
    (listing,) = re.findall(r"```\nVAE/\n(.*?)```", (ROOT / "docs/howto/train.md").read_text(), flags=re.DOTALL)
    assert {line.split()[0].rstrip("/") for line in listing.splitlines()} == OWN_NAMES


def test_the_architecture_lists_every_module_and_folder() -> None:
    text = (ROOT / "docs/explanation/architecture.md").read_text()
    package = [path for path in (ROOT / "worldmodel_v").iterdir() if not path.name.startswith("_")]
    assert {path.name for path in package if path.suffix == ".py"} <= set(re.findall(r"\w+\.py", text))
    assert {path.name for path in package if path.is_dir()} == set(re.findall(r"^  (\w+)/ ", text, flags=re.MULTILINE))


def test_the_containers_install_as_make_run_does() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    assert {"head", "worker", "driver"} == compose["services"].keys()
    for service in compose["services"].values():
        assert (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    for name in ("Dockerfile", "Dockerfile.cuda"):
        text = (ROOT / "docker" / name).read_text()
        assert "make install" in text
        assert re.search(r"^USER 1000$", text, flags=re.MULTILINE)


def test_every_option_of_the_commands_is_documented_where_it_is_defined() -> None:
    for config in CONFIGS.values():
        homes = [home for home in config.__mro__ if hasattr(home, "__dataclass_fields__")]
        source = "".join(Path(inspect.getsourcefile(home) or "").read_text() for home in homes)
        for name in config.__dataclass_fields__:
            assert re.search(rf"^    {name}: [^\n]+\n    \"\"\"", source, flags=re.MULTILINE), f"{config.__name__}.{name}"
