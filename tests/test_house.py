"""The rules of the house, read from the source: who may import whom, who may print, what loads what."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import worldmodel_v

ROOT = Path(worldmodel_v.__file__).parent
ROOMS = (
    *(
        "words",
        "surface",
        "interrupts",
        "process",
        "untrusted",
        "errors",
        "progress",
        "notebook",
        "steps",
        "kernel_cache",
        "compiler",
        "settings",
        "own_modules",
        "evenly",
        "one_name",
    ),
    *("preprocessing", "profiles", "schema", "spec", "origins", "records", "storage", "code"),
    *("telemetry", "execution", "jobs"),
    *("envs", "policies", "sources", "collection", "device", "autoencoders", "data", "selection"),
    *("evaluation", "training", "encoding", "view", "export", "alignment", "coverage", "importing"),
    *("inspection", "pipeline", "cli", "__main__"),
    *("collect", "train", "encode", "evaluate"),
)
"""Each may import from those before it."""

ONNX = {"export", "policies/onnx.py"}
COMPILED = ("winograd_kernels", "products")
ONLY_THERE = {
    "numba": {"kernel_cache", "compiler", "envs", *(f"autoencoders/gaussian/{file}.py" for file in COMPILED)},
    "ray": {*(f"execution/{file}.py" for file in ("connection", "metrics", "ray_pool")), "jobs", "training/distributed.py"},
    **{"h5py": {"storage"}, "hdf5plugin": {"storage"}},
    **{"av": {"importing/decoding.py", "evaluation/video.py"}, "lance": {"importing/swm_rows.py", "export/lance.py"}},
    **{"fsspec": {"storage"}, "tyro": {"cli"}, "rich": {"cli"}, "onnx": ONNX, "onnxruntime": ONNX},
}
"""A library -> the rooms, or files, that may import it."""

KNOW_THE_GAUSSIAN = {"autoencoders/gaussian", "evaluation", "export", "view", "training/config.py", "schema.py"}
"""Where it may be imported, and its columns called by name; training/config.py puts its settings beside the loop's, and
schema.py keeps its columns' names from others."""


def room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return sorted(file for file in ROOT.rglob("*.py") if room(file) != "__init__")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_is_known() -> None:
    assert {room(file) for file in sources()} == set(ROOMS)


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_back_along_the_flow(file: Path) -> None:
    for name in imports(file):
        package, _, rest = name.partition(".")
        if package == "worldmodel_v" and rest.split(".")[0] in ROOMS:
            assert ROOMS.index(rest.split(".")[0]) <= ROOMS.index(room(file)), f"{file} imports {name}"
        allowed = ONLY_THERE.get(package, {room(file)})
        assert allowed & {room(file), file.relative_to(ROOT).as_posix()}, f"{file} imports {name}"
        assert not name.startswith("gymnasium.envs") or room(file) == "envs", f"{file} imports {name}"


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_only_few_know_the_gaussian_from_another_autoencoder(file: Path) -> None:
    """All others ask the autoencoder, and know its columns by their role."""
    if any(file.relative_to(ROOT).as_posix().startswith(place) for place in KNOW_THE_GAUSSIAN):
        return
    assert not [name for name in imports(file) if name.startswith("worldmodel_v.autoencoders.gaussian")]
    for node in ast.walk(ast.parse(file.read_text())):
        word = node.attr if isinstance(node, ast.Attribute) else node.value if isinstance(node, ast.Constant) else None
        assert word not in ("mu", "logvar"), f"{file}: {word}"


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_text_reaches_a_terminal_through_one_module_alone(file: Path) -> None:
    if file.relative_to(ROOT).as_posix() == "cli/terminal.py":
        return
    calls = (node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id in ("print", "Text")]


OPENS_FILES = {
    *("read_bytes", "read_text", "write_bytes", "write_text", "unlink", "touch", "rmdir"),
    *("os.open", "os.link", "os.unlink", "os.remove", "os.rename", "os.replace", "shutil.rmtree"),
}
MAY_OPEN_FILES = {"storage/files.py", "storage/lock.py"}
"""The one module for the files of a directory, and the one that reads the kernel's below /proc."""


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_only_one_module_opens_the_files_of_a_directory(file: Path) -> None:
    """All others could follow a link or wait for a pipe."""
    if (
        room(file) not in ("storage", "training", "autoencoders", "evaluation")
        or file.relative_to(ROOT).as_posix() in MAY_OPEN_FILES
    ):
        return
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)}
    assert not called & {"open", *OPENS_FILES}
    assert not {name.rpartition(".")[2] for name in called if not name.startswith("files.")} & OPENS_FILES


OPTION = re.compile(r"(?<![\w-])--[a-z]")
INSIDE_A_COMMAND = re.compile(r"(wm-[a-z]+|ray start|python -m [\w.]+)[^;,]*$")
SPELLS_THEM = {"cli", "surface"}


def strings(node: ast.AST, *, is_said: bool = True) -> Iterator[str]:
    """The texts in code, those of f-strings whole; neither docstrings nor the words of a command line, which are a list."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and is_said:
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from strings(part.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from strings(child, is_said=not isinstance(node, ast.Expr | ast.List))


def test_texts_of_code_are_found_whole() -> None:
    code = (
        'def f():\n    """--a"""\n    raise E(f"lower --b {g(\'--c\')}" " or" f" --d", x="wm-train --e")\n    run(["--g", y])'
    )
    assert list(strings(ast.parse(code))) == ["lower --b … or --d", "--c", "wm-train --e"]


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_only_the_surface_spells_options(file: Path) -> None:
    """All others ask it, since who reads a message may have written a pipeline file or Python; whole commands are exempt."""
    if room(file) in SPELLS_THEM:
        return
    for text in strings(ast.parse(file.read_text())):
        spelled = [
            text[found.start() :] for found in OPTION.finditer(text) if not INSIDE_A_COMMAND.search(text[: found.start()])
        ]
        assert not spelled, f"{file}: {spelled}"


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_module_and_public_name_is_documented(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree), f"{file} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            signature_alone = "overload" in map(ast.unparse, node.decorator_list)
            assert ast.get_docstring(node) or signature_alone, f"{file}: {node.name} has no docstring"


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_importing_the_package_loads_neither_torch_nor_ray() -> None:
    run_python("import sys, worldmodel_v; assert not {'torch', 'ray', 'h5py'} & sys.modules.keys()")


def test_inspecting_and_importing_datasets_load_no_torch(stamp_rollouts: Path) -> None:
    run_python(
        f"import sys, worldmodel_v.cli.importing; sys.argv = ['wm-inspect', {str(stamp_rollouts)!r}]\n"
        "from worldmodel_v.cli.inspect import main; main(); assert 'torch' not in sys.modules"
    )


def test_training_and_encoding_need_no_ray_gymnasium_or_tensorboard() -> None:
    absent = ["ray", "gymnasium", "tensorboard", "tyro", "rich", "yaml", "pydantic", "sklearn", "torchmetrics", "hdf5plugin"]
    absent += ["jinja2"]
    block = f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
    rooms = ", ".join(f"worldmodel_v.{room}" for room in ("training", "encoding", "data", "evaluation", "export.model"))
    run_python(f"{block}import {rooms}")


def test_every_public_name_is_there() -> None:
    for name in worldmodel_v.__all__:
        assert getattr(worldmodel_v, name) is not None


EXAMPLES = [file for file in sorted((ROOT.parent / "examples").glob("*.py")) if "import torch" in file.read_text()]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_lets_threads_that_wait_sleep_as_the_commands_do(file: Path) -> None:
    imports = re.finditer(r"^(?:import|from) (\w+)", file.read_text(), flags=re.MULTILINE)
    first = next(found for found in imports if found[1] not in sys.stdlib_module_names)
    assert 'os.environ.setdefault("OMP_WAIT_POLICY", "passive")' in file.read_text()[: first.start()]
