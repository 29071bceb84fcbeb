"""Every command and Python block of the documentation runs as it stands, page by page, in a folder with the quickstart's data.

That data has few and short episodes, and two commands are made smaller (`SMALLER`).
"""

import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tests.commands import run
from tests.docs.pages import PAGES, ROOT, Block, blocks

RUN = [page for page in PAGES if any(block.is_run for block in blocks(page))]
SMALLER = {"--truncate --length 1000": "--truncate", "~/.minari/": "minari/"}
"""The quickstart's episodes have up to 1,000 steps, those of the test 60; and the test writes nothing into a home."""


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `wm-pipeline run pipelines/quickstart.yaml` has made runs/quickstart, with few episodes and steps."""
    folder = tmp_path_factory.mktemp("quickstart")
    pipeline = yaml.safe_load((ROOT / "pipelines" / "quickstart.yaml").read_text())
    pipeline["collect"] |= {"episodes": 8, "max_steps": 60, "workers": 0}
    pipeline["train"] |= {"steps": 20, "beta_warmup_steps": 10, "batch_size": 8, "checkpoint_every": 20}
    pipeline["eval"] |= {"frames": 40}
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "quickstart.yaml").write_text(yaml.safe_dump(pipeline))
    run("wm-pipeline", "run", "pipelines/quickstart.yaml", "--out", "runs/quickstart", folder=folder)
    return folder


def run_block(block: Block, folder: Path) -> None:
    """Each line of a shell block is a command of this package, or a Python file; `. .venv/bin/activate` is not needed here."""
    if block.title or block.language == "python":
        file = folder / (block.title or "block.py")
        file.write_text(block.code)
        if not block.title:
            apart = {"HF_HOME": str(folder / "hugging_face"), "RAY_ADDRESS": "local"}  # not another test's cluster
            run(file, folder=folder, PYTHONPATH=str(folder), **apart)
        return
    code = block.code.replace("\\\n", " ")
    for long, short in SMALLER.items():
        code = code.replace(long, short)
    for line in filter(None, (shlex.split(line, comments=True) for line in code.splitlines())):
        if line[0] == "python":
            line = [folder / line[1], *line[2:]]
        run(*line, folder=folder, PYTHONPATH=str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run_in_turn(page: str, quickstart: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(quickstart, tmp_path / "folder")
    for block in blocks(page):
        if block.is_run:
            run_block(block, folder)
