"""What is installed: a wheel that works in an empty folder, and a source distribution with all of the repository."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from worldmodel_v.errors import PackageMissing
from worldmodel_v.evaluation import require_packages, stage

ROOT = Path(__file__).parents[2]
MADE = (
    ".git",
    ".venv",
    ".cache",
    "runs",
    "build",
    "dist",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    ".installed",
)
"""What is in a clone and not in the repository."""


def test_a_missing_library_of_evaluations_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require_packages()
    monkeypatch.setitem(stage.PACKAGES, "scikit-none", "no_such_module")
    with pytest.raises(PackageMissing, match=r"needs scikit-none, which is not installed; pip install 'worldmodel_v\[eval\]'$"):
        require_packages()


def test_every_pinned_package_runs_on_the_oldest_python_that_the_package_asks_for() -> None:
    """Debian 12 has Python 3.11.2: a pin that asks for 3.11.5 stops `make install` there."""
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    pins = {tuple(line.split("==")) for line in (ROOT / "constraints.txt").read_text().split()}
    pinned = [each.metadata for each in distributions() if (each.name, each.version) in pins]
    assert len(pinned) > len(pins) / 2
    refusing = {
        each["Name"]: asks for each in pinned if not SpecifierSet(asks := each.get("Requires-Python", "")).contains(oldest)
    }
    assert refusing == {}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, and the source distribution that it was built from."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "clone", ignore=shutil.ignore_patterns(*MADE))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "clone"]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_the_source_distribution_has_all_of_the_repository(built: Path) -> None:
    with tarfile.open(next((built / "dist").glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    clone = built / "clone"
    tracked = {str(file.relative_to(clone)) for file in clone.rglob("*") if file.is_file()}
    made = {name for name in tracked if ".egg-info/" in name or name.startswith("build/")}
    assert tracked - made - names == set()


@pytest.mark.slow
def test_a_wheel_has_the_pipeline_files_and_collects_trains_and_encodes_in_an_empty_folder(built: Path, tmp_path: Path) -> None:
    """In an environment of its own, whose other packages are those of this one."""
    home, work = tmp_path / "venv", tmp_path / "work"
    venv.create(home, with_pip=False)
    wheel = next((built / "dist").glob("*.whl"))
    install = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True)
    site = next((home / "lib").glob("python*")) / "site-packages"
    (site / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    assert {"quickstart.yaml", "paper.yaml"} <= {file.name for file in (home / "share/worldmodel_v/pipelines").iterdir()}
    work.mkdir()

    def run(program: str, *words: object) -> str:
        command = [home / "bin" / program, *words]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(list(map(str, command)), cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("python", "-c", "import worldmodel_v; print(worldmodel_v.__file__)").strip()
    assert Path(where).is_relative_to(home)
    run("wm-collect", "--out", "rollouts", "--episodes", 4, "--max-steps", 20, "--episodes-per-shard", 2, "--workers", 0)
    few = ("--steps", 2, "--batch-size", 8, "--latent-dim", 4, "--architecture", "conv", "--holdout-every", 2)
    run("wm-train", "--data", "rollouts", "--out", "vae", *few)
    run("wm-encode", "--data", "rollouts", "--vae", "vae", "--out", "latents")
    assert "latents" in run("wm-inspect", "latents", "--verify")
    run("wm-pipeline", "init")
    assert (work / "quickstart.yaml").read_text().count("\ncollect:") == 1
    assert {item.name for item in work.iterdir()} == {"rollouts", "vae", "latents", "quickstart.yaml"}
