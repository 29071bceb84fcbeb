"""The container files, as far as they can be tried without a container: linted, one user, one Python, a health check."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from tests.integration.test_bad_clusters import NO_TOKEN, head

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DOCKERFILES = [ROOT / "docker" / name for name in ("Dockerfile", "Dockerfile.cuda")]
SCRIPTS = [ROOT / "pipelines" / "slurm.sh", ROOT / "docker" / "healthy.sh", ROOT / ".ci" / "run"]
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())


def instructions(dockerfile: Path) -> list[str]:
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line]


@pytest.mark.parametrize(("linter", "files"), [("hadolint", DOCKERFILES), ("shellcheck", SCRIPTS)])
def test_the_linters_pass_and_would_not_pass_everything(linter: str, files: list[Path], tmp_path: Path) -> None:
    subprocess.run([BIN / linter, *files], check=True)
    bad = tmp_path / "bad"
    bad.write_text("FROM python\n" if linter == "hadolint" else "#!/bin/bash\ncd $1\n")
    assert subprocess.run([BIN / linter, bad], capture_output=True, check=False).returncode == 1


def test_the_compose_file_keeps_to_the_specifications_schema(tmp_path: Path) -> None:
    check = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*check, ROOT / "docker" / "compose.yaml"], check=True)
    bad = tmp_path / "compose.yaml"
    bad.write_text((ROOT / "docker" / "compose.yaml").read_text().replace("restart:", "restarts:"))
    assert subprocess.run([*check, bad], capture_output=True, check=False).returncode == 1


def test_both_images_are_one_but_for_where_torch_comes_from_and_the_drivers_settings() -> None:
    cpu, cuda = map(instructions, DOCKERFILES)
    assert [line for line in cpu if line not in cuda and not line.startswith("ENV")] == ['ARG PIP_EXTRA_INDEX_URL=""']
    assert [line for line in cuda if line not in cpu and not line.startswith("ENV")] == []
    for lines in (cpu, cuda):
        install = lines.index("RUN PIP_NO_CACHE_DIR=1 make install")
        assert lines.index("USER 1000") < install
        assert 'HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["/app/docker/healthy.sh"]' in lines


def test_what_the_install_reads_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    needed = {"Makefile", "pyproject.toml", "constraints.txt", "README.md", "worldmodel_v", "pipelines", "docker"}
    assert not needed & set(ignored)
    assert all((ROOT / name).exists() for name in needed)
    assert {".git", ".venv", "runs"} <= set(ignored)


def healthy(data: Path, temporary: Path) -> int:
    environment: Mapping[str, str] = {
        **{"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(temporary)},
        **{"DATA": str(data), "RAY_TMPDIR": str(temporary), "RAY_AUTH_MODE": "disabled"},
    }
    return subprocess.run([ROOT / "docker" / "healthy.sh"], env=environment, capture_output=True, check=False).returncode


def test_the_health_check_fails_where_the_container_could_not_work(tmp_path: Path) -> None:
    assert healthy(tmp_path, tmp_path) == 0
    assert healthy(tmp_path / "absent", tmp_path) == 1


@pytest.mark.slow
def test_a_node_is_healthy_while_its_cluster_answers(tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/tmp", prefix="wm-", ignore_cleanup_errors=True) as folder:
        with head(Path(folder), **NO_TOKEN):
            assert healthy(tmp_path, Path(folder)) == 0
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        assert healthy(tmp_path, Path(folder)) != 0


def test_the_composed_nodes_start_ray_with_options_that_exist_and_come_back() -> None:
    from ray.scripts.scripts import start  # more than a second, in each process that only collects this file

    known = {option for parameter in start.params for option in parameter.opts}
    for name in ("head", "worker"):
        service = COMPOSE["services"][name]
        options = re.findall(r"--[a-z-]+", service["command"])
        assert options
        assert set(options) <= known
        assert service["restart"] == "unless-stopped"
    driver = COMPOSE["services"]["driver"]
    assert driver["volumes"] == ["data:/data"]
    assert not any("volumes" in COMPOSE["services"][name] for name in ("head", "worker"))
    assert COMPOSE["volumes"].keys() == {"data"}
