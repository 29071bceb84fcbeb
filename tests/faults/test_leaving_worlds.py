"""Code of others that leaves in other ways than by an error: its episode is set aside by name."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tests.faults.leaving_world  # noqa: F401  registers the world
from tests.commands import options, run, start, wait_until
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.errors import EnvironmentNotUsable, EpisodesSetAside
from worldmodel_v.sources.base import episode_seeds
from worldmodel_v.storage import open_dataset
from worldmodel_v.storage.set_aside import MAX_REASON_CHARACTERS, SetAside

SEED = 7
ENDED = "a crash in native code, an exit of the process, or lack of memory"
RAISED = {
    ("reset", "exit"): "SystemExit: 0 (it asked Python to exit)",
    ("step", "exit"): "in step 2: SystemExit: 0 (it asked Python to exit)",
    ("close", "exit"): "SystemExit: 0 (it asked Python to exit)",
    ("step", "generator"): "in step 2: GeneratorExit: no message",
    ("step", "cancelled"): "in step 2: CancelledError: no message",
    ("step", "panic"): "in step 2: PanicError: called unwrap on a None",
    ("step", "megabytes"): "in step 2: ValueError: xxxx",
    ("step", "wordless"): "in step 2: Wordless: (its __str__ raises SystemExit)",
    ("step", "mute"): "in step 2: Mute: (its __str__ raises TypeError)",
}
IN_WORKERS = {("step", "interrupt"): "in step 2: KeyboardInterrupt: no message"}
APART = {
    ("reset", "leave"): f"its process ended with exit code 0: {ENDED}",
    ("step", "abort"): f"its process ended by SIGABRT: {ENDED}",
}


def settings(faults: list[tuple[str, str]], **changes: Any) -> dict[str, Any]:
    """Of a collection in which episode 2i has the i-th fault, in a shard of its own; the others are good."""
    by_seed = {str(episode_seeds(SEED, 2 * number)[0]): fault for number, fault in enumerate(faults)}
    env = {
        "env": "tests.faults.leaving_world:tests/Breakaway-v0",
        "env_kwargs": json.dumps({"faults": by_seed}),
        "frame_size": 8,
    }
    whole = {"episodes": 2 * len(faults), "episodes_per_shard": 1, "seed": SEED, "policy": "random", "workers": 0}
    return {**env, **whole, **changes}


def require_set_aside(out: Path, expected: dict[tuple[str, str], str]) -> None:
    dataset = open_dataset(out)
    assert [entry.first_episode for entry in dataset.entries] == [2 * number + 1 for number in range(len(expected))]
    found: list[SetAside] = dataset.set_aside()
    assert [line.episode for line in found] == [2 * number for number in range(len(expected))]
    for line, reason in zip(found, expected.values(), strict=True):
        assert line.reason.startswith(reason)
        assert len(line.reason) <= MAX_REASON_CHARACTERS


def test_what_is_no_exception_fails_its_episode_by_name(tmp_path: Path) -> None:
    with pytest.raises(EpisodesSetAside) as caught:
        collect(CollectConfig(out=tmp_path / "out", **settings(list(RAISED))))
    assert len(str(caught.value)) < 5 * MAX_REASON_CHARACTERS
    require_set_aside(tmp_path / "out", RAISED)


@pytest.mark.usefixtures("local_ray")
def test_so_it_does_in_workers(tmp_path: Path) -> None:
    expected = {("reset", "exit"): RAISED["reset", "exit"], ("step", "megabytes"): RAISED["step", "megabytes"]} | IN_WORKERS
    with pytest.raises(EpisodesSetAside):
        collect(CollectConfig(out=tmp_path / "out", **settings(list(expected), workers=2)))
    require_set_aside(tmp_path / "out", expected)


def test_a_command_without_workers_outlives_what_ends_a_process(tmp_path: Path) -> None:
    expected = APART | IN_WORKERS | RAISED
    _, errors = run("wm-collect", "--out", tmp_path / "out", "--quiet", *options(settings(list(expected))), code=1)
    (line,) = errors.splitlines()
    assert line.startswith(
        f"wm-collect: {tmp_path / 'out'}: {len(expected)} episodes are committed, {len(expected)} are set aside"
    )
    require_set_aside(tmp_path / "out", expected)


@pytest.mark.parametrize("fault", ["exit", "panic", "leave"])
def test_a_world_that_no_episode_can_begin_in_is_refused(tmp_path: Path, fault: str) -> None:
    faults = {str(episode_seeds(SEED, number)[0]): ("reset", fault) for number in range(4)}
    changes = {"env_kwargs": json.dumps({"faults": faults}), "episodes": 4}
    _, errors = run("wm-collect", "--out", tmp_path / "out", "--quiet", *options(settings([], **changes)), code=2)
    (line,) = errors.splitlines()
    assert line.startswith("wm-collect: tests.faults.leaving_world:tests/Breakaway-v0 with {'faults': ")
    assert "cannot begin an episode: " in line
    assert not (tmp_path / "out").exists()


MODULES = {
    "sys.exit(0)": "SystemExit: 0 (it asked Python to exit)",
    "os._exit(0)": "its process ended with exit code 0 in code of ",
}


@pytest.mark.parametrize("option", ["--env", "--policy", "--wrap"])
@pytest.mark.parametrize("does", MODULES)
def test_a_module_that_leaves_when_it_is_imported_is_refused_by_name(tmp_path: Path, option: str, does: str) -> None:
    (tmp_path / "leaving.py").write_text(f"import os, sys\n{does}\n")
    chosen = {"--env": "worldmodel_v/Stamp-v0", "--policy": "random", option: "leaving:It"}
    words = [word for pair in chosen.items() for word in pair]
    _, errors = run("wm-collect", "--out", "out", "--quiet", "--workers", 0, *words, folder=tmp_path, code=2)
    (line,) = errors.splitlines()
    assert MODULES[does] in line
    assert "leaving:It" in line
    assert not (tmp_path / "out").exists()


def test_in_python_the_exit_of_a_module_is_a_refusal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaving_in_python.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = CollectConfig(out=tmp_path / "out", env="leaving_in_python:It-v0", workers=0)
    with pytest.raises(EnvironmentNotUsable, match=r"'leaving_in_python:It-v0': cannot be built: SystemExit: 0"):
        collect(config)


def descendants(pid: int) -> Iterator[int]:
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        yield child
        yield from descendants(child)


HANGING = """
import time

import gymnasium

from worldmodel_v.envs.stamp import StampEnv


class Hanging(StampEnv):
    def step(self, action):
        open("begun", "w").close()
        time.sleep(3600)


gymnasium.register("Hanging-v0", entry_point=Hanging)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_the_process_apart_ends_with_its_command(tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    words = ("--out", "out", "--env", "hanging:Hanging-v0", "--policy", "random", "--workers", 0, "--quiet")
    process = start("wm-collect", *words, folder=tmp_path)
    wait_until((tmp_path / "begun").exists, process)
    beside = list(descendants(process.pid))
    assert len(beside) == 2
    process.send_signal(number)
    assert process.wait() == code
    while any(_runs(pid) for pid in beside):
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
