"""The README's commands exist: every flag parses, every make target and every file is there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from worldmodel_v.cli.inspect import InspectConfig
from worldmodel_v.cli.main import Output
from worldmodel_v.cli.pipeline import COMMANDS as PIPELINE_COMMANDS
from worldmodel_v.collection import CollectConfig
from worldmodel_v.encoding import EncodeConfig
from worldmodel_v.evaluation import EvalConfig
from worldmodel_v.export import FORMATS
from worldmodel_v.export.model import ModelExportConfig
from worldmodel_v.training import TrainConfig
from worldmodel_v.training.trainer import OWN_NAMES

ROOT = Path(__file__).parents[1]
CONFIGS = {
    "wm-collect": CollectConfig,
    "wm-train": TrainConfig,
    "wm-encode": EncodeConfig,
    "wm-eval": EvalConfig,
    "wm-inspect": InspectConfig,
    **{f"wm-pipeline {name}": config for name, config in PIPELINE_COMMANDS.items()},
    **{f"wm-export {name}": config for name, config in FORMATS.items()},
    "wm-export model": ModelExportConfig,
}
DOCUMENTS = [
    "README.md",
    *(str(path.relative_to(ROOT)) for folder in ("pipelines", "docker") for path in (ROOT / folder).iterdir()),
    *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
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
        fields = {*CONFIGS[program].__dataclass_fields__, *Output.__dataclass_fields__, "help"}
        for word in words:
            if word.startswith("--"):
                assert word[2:].replace("-", "_") in fields, f"{document}: {program} {word}"


def test_the_readme_shows_each_command_and_its_flags() -> None:
    shown = {words[0] for words in commands("README.md")}
    assert {"wm-collect", "wm-train", "wm-encode", "wm-inspect"} <= shown
    assert len(commands("README.md")) >= 5


def test_every_make_target_that_documents_name_exists() -> None:
    for document in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        for target in re.findall(r"(?:^|`)make ([a-z-]+)\b", (ROOT / document).read_text(), flags=re.MULTILINE):
            assert target in TARGETS, f"{document}: make {target}"


def test_every_file_that_the_readme_names_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"\b((?:pipelines|examples|docker|tests|docs)/[\w./-]+\.\w+)", text):
        assert (ROOT / path).exists(), path


def test_the_readme_lists_all_that_a_training_leaves() -> None:
    (listing,) = re.findall(r"```\nVAE/\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert {line.split()[0].rstrip("/") for line in listing.splitlines()} == OWN_NAMES


@pytest.mark.slow
def test_the_readmes_tour_runs_as_it_stands(tmp_path: Path) -> None:
    """Every shell line of the tour, and of the export of a model, then the Python blocks on what they made."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    tour, model = (block for block in blocks if "runs/tour" in block or "wm-export model" in block)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in (tour, model.replace("runs/quickstart/", "runs/tour/")):
        subprocess.run(["sh", "-ec", block], cwd=tmp_path, check=True, env=os.environ | {"PATH": path})
    assert (tmp_path / "runs/tour/frames.png").stat().st_size > 1000
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        code = block.replace("runs/quickstart/", "runs/tour/").replace("holdout_every=8", "holdout_every=4")
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


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
        source = "".join(Path(__import__("inspect").getsourcefile(home) or "").read_text() for home in homes)
        for name in config.__dataclass_fields__:
            assert re.search(rf"^    {name}: [^\n]+\n    \"\"\"", source, flags=re.MULTILINE), f"{config.__name__}.{name}"
