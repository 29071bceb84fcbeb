"""Running the tutorials: `python -m tests.docs.notebooks NOTEBOOK …` runs each in a new folder, and stores its outputs."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

TUTORIALS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.ipynb"))
SECONDS_FOR_A_CELL = 1800
METADATA = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


class ThisPython(AsyncKernelManager):
    """Kernels of this interpreter, whatever kernels are installed."""

    kernel_spec = KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python")


def executed(notebook: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in `folder`; raises CellExecutionError with the cell that failed."""
    content = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        content,
        timeout=SECONDS_FOR_A_CELL,
        kernel_manager_class=ThisPython,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # for `!wm-inspect`
    client.execute(env=os.environ | {"PATH": scripts, "OMP_WAIT_POLICY": "passive"})  # as the commands share the cores
    return content


def is_bar(output: nbformat.NotebookNode) -> bool:
    """Whether it is the bar of a stage, whose rate differs from run to run."""
    return output.output_type == "display_data" and "█" in output.data.get("text/plain", "")


def store(notebook: Path) -> None:
    """Run the notebook and write it again, without what differs from run to run."""
    with tempfile.TemporaryDirectory() as folder:
        content = executed(notebook, Path(folder))
    content.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(content.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_bar(output)]
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/jpeg", None)  # Pillow gives each picture as PNG too
    nbformat.write(content, notebook)


if __name__ == "__main__":
    for name in sys.argv[1:] or TUTORIALS:
        store(Path(name))
