"""The pages of the documentation, the blocks of code in them, and which of these no test runs."""

import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP_LEVEL = ["README.md", "SECURITY.md", "CONTRIBUTING.md"]
PAGES = [
    *TOP_LEVEL,
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]

INSTALLS = "installs; CI installs by `make install`"
CLUSTER = "needs a cluster of several machines; tests/cluster and tests/deploy have one of containers"
GPU = "needs a GPU"
REMOTE = "reads from a network; tests/storage reads from a server of its own"
MINUTES = "takes minutes"

NOT_RUN = {
    "README.md": {"git clone URL": INSTALLS, "make run": "the same as wm-pipeline run in docs/start/quickstart.md"},
    "docs/start/install.md": {
        "git clone URL": INSTALLS,
        "python3 -m venv": INSTALLS,
        "pip install .": INSTALLS,
        "mkdir -p ~/.local": "writes into the home; tests/cli/test_help.py prints the scripts",
    },
    "docs/start/quickstart.md": {
        "make run": "the same as wm-pipeline run below it",
        "make example": "tests/integration/test_example.py runs it",
        "wm-pipeline init": "tests/cli/test_changes.py does the same with the toy world",
    },
    "docs/howto/gpu.md": {"wm-train --data runs/quickstart": GPU, "wm-train --data /data": CLUSTER},
    "docs/howto/import.md": {"wm-import lerobot": "needs a download; tests/importing/test_lerobot.py writes one of its own"},
    "docs/howto/python.md": {"pip install jupyterlab": INSTALLS},
    "docs/howto/car_racing.md": {"pip install stable-baselines3": "tests/integration/test_example.py runs it"},
    "docs/howto/drive.md": {
        "pip install": "tests/integration/test_controller_example.py runs it",
        "make drive": "takes a quarter of an hour; tests/integration/test_controller_example.py runs its commands",
        "make example": "tests/integration/test_controller_example.py runs its commands",
        "python examples/watch_controller.py": "tests/integration/test_controller_example.py runs it",
    },
    "docs/howto/view.md": {"make example": "tests/view/test_browser.py drives in a page"},
    "docs/howto/cluster.md": {"ray start": CLUSTER, "ray job submit": CLUSTER, "kubectl": CLUSTER},
    "docs/howto/tokens.md": {
        "python benchmarks/": MINUTES,
        "python examples/": "tests/integration/test_token_example.py runs it",
    },
    "docs/howto/share.md": {
        "wm-train --data https": REMOTE,
        "from worldmodel_v import LatentSequences": REMOTE,
        "pip install 'worldmodel_v[hub]'": "needs an account; tests/export/test_hub.py uploads to a server of its own",
        "from datasets import load_dataset": "reads from a network; tests/export/test_hub.py reads from a server of its own",
    },
    "docs/benchmarks/gpu.md": {
        "wm-collect": MINUTES,
        "# where there is a network": INSTALLS,
        "PYTHONPATH": GPU,
        "python benchmarks/gpu.py": "tests/benchmarks/test_gpu.py runs it",
    },
    **{
        f"docs/benchmarks/{name}.md": {"python benchmarks/": MINUTES}
        for name in (
            "alignment",
            "collect",
            "dreams",
            "driving",
            "encode",
            "importing",
            "latents",
            "policies",
            "scale",
            "train",
            "view",
            "worlds",
        )
    },
}
"""Page -> how a block begins -> why no test runs it. Its options are compared with the parsers all the same."""


@dataclass(frozen=True)
class Block:
    """A block of code in a page."""

    page: str
    language: str
    title: str
    """The file that the reader is told to write; without one the block is to be run."""

    code: str

    @property
    def is_run(self) -> bool:
        return not any(self.code.startswith(beginning) for beginning in NOT_RUN.get(self.page, {}))


@cache
def blocks(page: str) -> list[Block]:
    """The blocks of shell and Python, in their order."""
    fences = re.findall(
        r'^( *)```(sh|python)(?: title="([^"]+)")?\n(.*?)^ *```$',
        (ROOT / page).read_text(),
        flags=re.MULTILINE | re.DOTALL,
    )
    return [Block(page, language, title, textwrap.dedent(code)) for _, language, title, code in fences]


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
