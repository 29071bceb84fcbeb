"""Where and when a command runs: clocks that jump, directories that cannot be written to, strange names, long ones."""

import contextlib
import errno
import fcntl
import itertools
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import files_in
from tests.cli.test_bad_input import MAINS, Refusal
from tests.commands import start
from tests.faults.every_step import PIPELINE, dataset_content, pipeline_content
from worldmodel_v.cli.progress import _BarProgress
from worldmodel_v.storage import open_dataset

COLLECT = ("--env", "worldmodel_v/Stamp-v0", "--env-kwargs", '{"length": 5}', "--frame-size", 8, "--policy", "random")
COLLECT += ("--episodes", 4, "--episodes-per-shard", 2, "--workers", 0)
TRAIN = ("--steps", 2, "--batch-size", 4, "--latent-dim", 2, "--architecture", "mlp", "--holdout-every", 2, "--device", "cpu")
CPU = ("--device", "cpu")
NAME_MAX, PATH_MAX = 255, 4096


def command(*argv: object) -> None:
    """Run a command in this process, which must succeed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(word) for word in argv])
        MAINS[str(argv[0])]()


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(monkeypatch, capsys)


def whole_flow(sources: Path, results: Path) -> None:
    """Every command that writes: rollouts, VAE and latents into one folder, and what is made of them into another."""
    rollouts, vae, latents = (f"{sources}/{name}" for name in ("rollouts", "vae", "latents"))
    command("wm-collect", f"--out={rollouts}", *COLLECT)
    command("wm-train", f"--data={rollouts}", f"--out={vae}", *TRAIN)
    command("wm-encode", f"--data={rollouts}", f"--vae={vae}", f"--out={latents}", *CPU)
    results.mkdir(parents=True, exist_ok=True)
    pictures = f"--preview={results}/frames.png"
    command("wm-inspect", f"./{latents}", "--verify", f"--data={rollouts}", f"--vae={vae}")
    command("wm-inspect", f"./{rollouts}", "--verify", pictures)
    command("wm-eval", f"--data={rollouts}", f"--vae={vae}", f"--out={results}/eval", *CPU)
    for format_ in ("npz", "minari"):
        command("wm-export", format_, f"--data={rollouts}", f"--out={results}/{format_}-v0")
    (results / "pipeline.yaml").write_text(PIPELINE)
    command("wm-pipeline", "run", f"./{results}/pipeline.yaml", f"--out={results}/pipeline")


def flow_content(sources: Path, results: Path) -> dict[str, object]:
    """What must come out the same wherever it lies; evaluations' pages name their sources."""
    pipeline = pipeline_content(results / "pipeline")
    del pipeline["eval/page"]
    return {
        "rollouts": dataset_content(sources / "rollouts"),
        "weights": (sources / "vae/vae.safetensors").read_bytes(),
        "latents": dataset_content(sources / "latents"),
        "figures": {name: content for name, content in files_in(results / "eval").items() if name.endswith(".png")},
        "exports": [files_in(results / name) for name in ("npz-v0", "minari-v0")],
        "preview": (results / "frames.png").read_bytes(),
        "pipeline": pipeline,
    }


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole flow in ordinary surroundings: `sources` and `results`, read-only."""
    folder = tmp_path_factory.mktemp("ordinary")
    with contextlib.chdir(folder):
        whole_flow(Path("sources"), Path("results"))
    return folder


def assert_as_ordinary(ordinary: Path, sources: Path, results: Path) -> None:
    assert flow_content(sources, results) == flow_content(ordinary / "sources", ordinary / "results")


NAMES = {
    "spaces and quotes": " a  b 'c' \"d\" ",
    "for a shell": "$HOME * ? [1] {x} ~ #%20 & ; | > \\ !",
    "an option": "--out",
    "all of it": "-é e\u0301 ü 雪 🏎 \u202e\u200b\nnew line\ttab [bold] [red",
}


@pytest.mark.parametrize("name", ["all of it", *(pytest.param(name, marks=pytest.mark.slow) for name in list(NAMES)[:-1])])
def test_names_of_any_characters_do(name: str, ordinary: Path, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        sources = results = Path(NAMES[name])
        whole_flow(sources, results)
        assert_as_ordinary(ordinary, sources, results)
        assert [item.name for item in tmp_path.iterdir()] == [NAMES[name]]


def test_names_that_look_like_markup_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with _BarProgress() as bars:
        bars.task("[red]", 1, "shards").close()
        bars.say("runs/x[/b] [bold]: done")
    shown = capsys.readouterr().err
    assert "runs/x[/b] [bold]: done" in shown
    assert "[red]" in shown


def test_names_that_a_terminal_cannot_show_are_shown_escaped(ordinary: Path, tmp_path: Path) -> None:
    out = tmp_path / "ü"
    shown = start("wm-collect", "--out", out, *COLLECT, PYTHONIOENCODING="ascii")
    printed, errors = shown.communicate()
    assert shown.returncode == 0, errors
    assert f"{tmp_path}/\\xfc" in printed
    assert dataset_content(out) == dataset_content(ordinary / "sources/rollouts")


def test_names_that_are_no_text_are_refused(refuse: Refusal, tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/\xff")
    expected = f"{name!r}: is not valid UTF-8; rename that file or directory\n"
    for words in (("wm-collect", "--out", name), ("wm-inspect", name), ("wm-export", "npz", "--data", name, "--out", "x")):
        assert refuse(*words) == f"{words[0]}: {expected}"
    assert list(tmp_path.iterdir()) == []


def test_names_as_long_as_the_system_allows_do(ordinary: Path, tmp_path: Path) -> None:
    longest = "é" * 127 + "x"
    assert len(longest.encode()) == NAME_MAX
    command("wm-collect", "--out", tmp_path / longest, *COLLECT)
    assert dataset_content(tmp_path / longest) == dataset_content(ordinary / "sources/rollouts")
    rollouts, picture = ordinary / "sources/rollouts", "f" * (NAME_MAX - 4) + ".png"
    command("wm-inspect", rollouts, "--preview", tmp_path / picture)
    command("wm-export", "npz", "--data", rollouts, "--out", tmp_path / ("e" * NAME_MAX))
    assert (tmp_path / picture).read_bytes() == (ordinary / "results/frames.png").read_bytes()
    assert files_in(tmp_path / ("e" * NAME_MAX)) == files_in(ordinary / "results/npz-v0")
    assert {item.name for item in tmp_path.iterdir()} == {longest, picture, "e" * NAME_MAX}


def test_paths_as_long_as_the_system_allows_do(ordinary: Path, tmp_path: Path) -> None:
    room = PATH_MAX - len("/shards/.tmp-1234567-0123456789abcdef") - 1
    out = deep(tmp_path, room)
    command("wm-collect", "--out", out, *COLLECT)
    assert dataset_content(out) == dataset_content(ordinary / "sources/rollouts")


def deep(folder: Path, length: int) -> Path:
    """A path of this many bytes below a folder."""
    while length - len(bytes(folder)) > NAME_MAX:
        folder /= "d" * 100
    return folder / ("d" * (length - len(bytes(folder)) - 1))


def writing_commands(ordinary: Path, out: Path) -> dict[str, tuple[object, ...]]:
    """Each command that writes, into `out`; by what it is called, which begins with the program."""
    rollouts, vae = ordinary / "sources/rollouts", ordinary / "sources/vae"
    sources = ("--data", rollouts, "--vae", vae)
    by_name: dict[str, tuple[object, ...]] = {
        "wm-collect": ("--out", out, *COLLECT),
        "wm-train": ("--data", rollouts, "--out", out, *TRAIN),
        "wm-encode": (*sources, "--out", out, *CPU),
        "wm-eval": (*sources, "--out", out, *CPU),
        "wm-select": ("--data", rollouts, "--out", out),
        "wm-export npz": ("--data", rollouts, "--out", out),
        "wm-export minari": ("--data", rollouts, "--out", out / "toy-v0"),
        "wm-export model": (*sources, "--out", out, "--formats", "torchscript"),
        "wm-pipeline run": (ordinary / "results/pipeline.yaml", "--out", out),
        "wm-inspect": (rollouts, "--preview", out),
    }
    return {name: (*words, "--quiet") for name, words in by_name.items()}


COMMANDS = list(writing_commands(Path(), Path()))


@pytest.mark.parametrize("called", COMMANDS)
def test_names_and_paths_that_are_too_long_are_refused(called: str, ordinary: Path, tmp_path: Path, refuse: Refusal) -> None:
    long_name, long_path = tmp_path / ("x" * (NAME_MAX + 1)), deep(tmp_path, PATH_MAX + 10)
    for out in (long_name,) if called == "wm-inspect" else (long_name, long_path):
        error = refuse(*called.split(), *writing_commands(ordinary, out)[called])
        assert str(out.parent) in error
        assert "longer than this file system allows" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 100, pytest.param("späce", marks=pytest.mark.slow)])
def test_a_temporary_folder_in_which_ray_can_have_no_sockets_is_named(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    process = start("wm-collect", "--out", tmp_path / "out", *COLLECT[:-1], 2, TMPDIR=str(folder))
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    assert "wm-collect: a local Ray cannot make its sockets in the temporary folder: " in errors
    assert errors.endswith("; set RAY_TMPDIR to a folder with a short name in ASCII, such as /tmp\n")
    assert "Traceback" not in errors


# Read-only


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[str]:
    """Nothing can be written below a folder for the time of the block; gives what the system says to whoever tries."""
    if os.geteuid():
        modes = {item: item.stat().st_mode for item in (folder, *folder.rglob("*")) if item.is_dir()}
        for item in modes:
            item.chmod(0o555)
        try:
            yield os.strerror(errno.EACCES)
        finally:
            for item, mode in modes.items():
                item.chmod(mode)
        return
    try:
        subprocess.run(["mount", "--bind", folder, folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"permissions do not bind root, and nothing can be mounted here: {error}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True, capture_output=True)
        yield os.strerror(errno.EROFS)
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("called", COMMANDS)
def test_a_place_that_cannot_be_written_to_is_named(called: str, ordinary: Path, tmp_path: Path, refuse: Refusal) -> None:
    program, out = called.split()[0], tmp_path / "out"
    with read_only(tmp_path) as system:
        error = refuse(*called.split(), *writing_commands(ordinary, out)[called], code=1 if program == "wm-inspect" else 2)
    place = {"wm-export minari": out / "toy-v0", "wm-pipeline run": out / "rollouts"}.get(called, out)
    if program == "wm-inspect":
        assert error.startswith(f"{program}: {place}: could not write ({system}); nothing half-written is visible; mend the ")
    else:
        assert error == f"{program}: {place}: cannot be written to ({system}); give a directory that can\n"
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_to_can_be_read(
    ordinary: Path, tmp_path: Path, refuse: Refusal, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also by a pipeline's stages and an evaluation that is complete; what must be locked to be continued is refused."""
    shutil.copytree(ordinary, tmp_path / "copy")
    copy, made = tmp_path / "copy", tmp_path / "made"
    made.mkdir()
    with read_only(copy) as system:
        for called in ("wm-train", "wm-encode", "wm-eval", "wm-export npz", "wm-inspect"):
            command(*called.split(), *writing_commands(copy, made / called)[called])
        command("wm-inspect", copy / "sources/latents", "--verify", "--data", copy / "sources/rollouts")
        sources = ("--data", copy / "sources/rollouts", "--vae", copy / "sources/vae")
        command("wm-eval", *sources, "--out", copy / "results/eval", *CPU)
        complete = copy / "results/pipeline"
        capsys.readouterr()
        error = refuse("wm-pipeline", "run", copy / "results/pipeline.yaml", "--out", complete)
        assert error == f"wm-pipeline: {complete / 'rollouts'}: cannot be written to ({system}); give a directory that can\n"
    assert (made / "wm-train/vae.safetensors").read_bytes() == (ordinary / "sources/vae/vae.safetensors").read_bytes()
    assert dataset_content(made / "wm-encode") == dataset_content(ordinary / "sources/latents")
    assert files_in(made / "wm-export npz") == files_in(ordinary / "results/npz-v0")
    assert files_in(copy) == files_in(ordinary)


EVERYTHING_READ_ONLY = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro /
for mounted in $(awk '{print $5}' /proc/self/mountinfo); do
    case $mounted in "$1"|/proc*|/sys*|/dev*) ;; *) mount -o remount,bind,ro "$mounted" || true;; esac
done
shift
exec "$@"
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make the file system read-only, for one process")
def test_a_file_system_that_is_read_only_but_for_the_output_does(ordinary: Path, tmp_path: Path) -> None:
    """As in a hardened container: not even compiled code can be kept."""
    isolated = ("unshare", "--mount", "sh", "-c", EVERYTHING_READ_ONLY, "sh", tmp_path)
    program = Path(sys.executable).parent / "wm-collect"
    environment = os.environ | {"NUMBA_CACHE_DIR": "/nowhere", "HOME": "/nowhere", "TMPDIR": str(tmp_path)}
    words = [*isolated, program, "--out", tmp_path / "out", *COLLECT]
    finished = subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert dataset_content(tmp_path / "out") == dataset_content(ordinary / "sources/rollouts")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
@pytest.mark.parametrize("called", ["wm-collect", "wm-export npz"])
def test_a_file_system_without_locks_is_named(
    called: str, number: int, ordinary: Path, tmp_path: Path, refuse: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    error = refuse(*called.split(), *writing_commands(ordinary, tmp_path / "out")[called])
    assert error == (
        f"{called.split()[0]}: {tmp_path / 'out'}: this file system knows no locks ({os.strerror(number)}), which keep two "
        "writers apart; write to another one, such as a local disk, and copy what is finished, or have this one mounted with "
        "locks\n"
    )


# Homes, and what the environment says


def collected(folder: Path, *before: object, workers: int = 1, env: str = "worldmodel_v/Stamp-v0", **variables: str) -> None:
    """Collect into the folder `out`, run in `folder` by a command line that begins with `before`; HOME is unset."""
    program = Path(sys.executable).parent / "wm-collect"
    words = [*before, program, "--out", "out", "--env", env, "--policy", "random", "--episodes", 2, "--max-steps", 5]
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "RAY_ADDRESS")} | variables
    words = [*map(str, words), "--workers", str(workers)]
    finished = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert [item.name for item in folder.iterdir()] == ["out"]


def test_a_home_that_cannot_be_written_to_does(tmp_path: Path) -> None:
    collected(tmp_path, HOME="/proc")


def test_a_user_without_an_entry_and_without_a_home_does(tmp_path: Path) -> None:
    """As of `docker run --user 54321`."""
    as_nobody = ("unshare", "--user", "--map-user=54321", "--map-group=54321")
    if shutil.which("unshare") is None or subprocess.run([*as_nobody, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no other user can be taken on here")
    collected(tmp_path, *as_nobody)


def test_a_user_to_whom_warnings_are_errors_does(tmp_path: Path) -> None:
    collected(tmp_path, HOME=str(Path.home()), PYTHONWARNINGS="error")


def test_numba_told_not_to_compile_does(tmp_path: Path) -> None:
    for name, variables in {"plain": {}, "told": {"NUMBA_DISABLE_JIT": "1"}}.items():
        (tmp_path / name).mkdir()
        collected(tmp_path / name, workers=0, env="worldmodel_v/CarRacing-v3", HOME=str(Path.home()), **variables)
    assert dataset_content(tmp_path / "plain/out") == dataset_content(tmp_path / "told/out")


def test_a_terminal_ends_with_the_result(tmp_path: Path) -> None:
    """Ray's colorama ends a process with an escape sequence, which stood there as text."""
    program = Path(sys.executable).parent / "wm-collect"
    words = [program, "--out", tmp_path / "out", *COLLECT[:-1], 1]
    process, terminal = pty.fork()
    if not process:
        os.execv(program, [str(word) for word in words])
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while piece := os.read(terminal, 4096):
            shown += piece
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    lines = re.sub(rb"\x1b\[[?\d]*[a-zA-Z]", b"", shown).splitlines()
    assert [line.split() for line in lines if line.startswith(b"new_episodes")] == [[b"new_episodes", b"4"]]
    assert lines[-1].startswith(b"next: wm-train --data ")


# Clocks


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(ordinary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By decades, forwards and back, whenever anybody asks for the time."""
    asked = 0
    jumps = itertools.cycle((0.0, 2e9, 1e9, 4e9))

    def jumping() -> float:
        nonlocal asked
        asked += 1
        return next(jumps)

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumping() * 1e9))
    with contextlib.chdir(tmp_path):
        whole_flow(Path("sources"), Path("results"))
    monkeypatch.undo()
    assert asked > 0
    assert_as_ordinary(ordinary, tmp_path / "sources", tmp_path / "results")
    assert open_dataset(tmp_path / "sources/rollouts").num_episodes == 4
