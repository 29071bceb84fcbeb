"""The tutorials run, and the outputs that are stored in them are those of a good run, for any reader."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.docs.notebooks import TUTORIALS

ROOT = Path(__file__).parents[2]
MAX_BYTES = 300_000
PICTURES = {"own_environment": 2, "look_at_data": 3, "mdn_rnn": 1, "tokens": 3, "atari_and_minigrid": 4}
"""How many each shows at least."""


def by_name(notebook: Path) -> str:
    return notebook.stem


def test_there_are_the_tutorials_that_are_checked() -> None:
    assert {notebook.stem for notebook in TUTORIALS} == PICTURES.keys()


@pytest.mark.parametrize("notebook", TUTORIALS, ids=by_name)
def test_stored_outputs_are_those_of_one_whole_run(notebook: Path) -> None:
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"], "warnings, or other noise"
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= PICTURES[notebook.stem]


@pytest.mark.parametrize("notebook", TUTORIALS, ids=by_name)
def test_a_notebook_is_small_and_shows_nothing_of_the_machine_it_ran_on(notebook: Path) -> None:
    text = notebook.read_text()
    assert len(text) < MAX_BYTES
    assert not re.search(r"(/home|/root|/tmp|/work|/usr|/opt|site-packages)\b|\x1b\[", text)


@pytest.mark.parametrize("notebook", TUTORIALS, ids=by_name)
def test_links_to_other_pages_have_a_target(notebook: Path) -> None:
    text = "".join(cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^):]+)\)", text):
        assert (notebook.parent / target).is_file(), target


@pytest.mark.slow
@pytest.mark.parametrize("notebook", TUTORIALS, ids=by_name)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    """In a process of its own, since a client of Jupyter leaves threads and sockets behind."""
    imports = "import sys; from pathlib import Path; from tests.docs.notebooks import executed"
    program = f"{imports}; executed(*map(Path, sys.argv[1:]))"
    folder, settings = tmp_path / "here", {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "runtime"}
    folder.mkdir()
    environment = os.environ | {name: str(tmp_path / place) for name, place in settings.items()}
    subprocess.run([sys.executable, "-c", program, notebook, folder], cwd=ROOT, check=True, env=environment)
