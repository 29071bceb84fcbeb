"""One refusal, as a command, a pipeline file and a Python program word it; here, in a thread and on a Ray worker."""

import json
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from worldmodel_v.cli import collect as collect_command
from worldmodel_v.cli import pipeline as pipeline_command
from worldmodel_v.cli import train as train_command
from worldmodel_v.collection import CollectConfig
from worldmodel_v.errors import ConfigError, EnvironmentNotUsable
from worldmodel_v.execution import Here, RayPool, WorkerSettings, map_tasks
from worldmodel_v.pipeline import run_pipeline
from worldmodel_v.surface import InPipelineFile, Surface, in_python, on_the_command_line, option, taken_along, worded
from worldmodel_v.training import TrainConfig

IN_A_FILE = InPipelineFile("train", {"collect": ["frame_size"], "train": ["beta", "resume", "device"]}, on_the_command_line)
STAGES = "collect: {env: worldmodel_v/Stamp-v0, policy: random, episodes: 2, workers: 0, max_steps: 3}\nencode: {}\n"


@pytest.mark.parametrize(
    ("name", "value", "python", "command"),
    [
        ("holdout_every", None, "holdout_every", "--holdout-every"),
        ("holdout_every", 5, "holdout_every=5", "--holdout-every 5"),
        ("resume", False, "resume=False", "--no-resume"),
        ("compile", True, "compile=True", "--compile"),
        ("env_kwargs", '{"a": 1}', "env_kwargs='{\"a\": 1}'", "--env-kwargs '{\"a\": 1}'"),
        ("out", Path("a b"), "out='a b'", "--out 'a b'"),
        ("crop", "a\nb", "crop='a\\nb'", "--crop 'a\\nb'"),
        ("factors", ("x", "y"), "factors=('x', 'y')", "--factors x y"),
    ],
)
def test_a_setting_in_python_and_on_the_command_line(name: str, value: Any, python: str, command: str) -> None:
    assert option(name, value) == python
    with worded(on_the_command_line):
        assert option(name, value) == command
    assert option(name, value) == python


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("beta", 0.5, "train.beta: 0.5"),
        ("resume", False, "train.resume: false"),
        ("device", "teapot", "train.device: teapot"),
        ("device", "tea pot", 'train.device: "tea pot"'),
        ("frame_size", 64, "collect.frame_size: 64"),
        ("out", Path("x"), "--out x"),
    ],
)
def test_a_setting_in_a_pipeline_file_with_its_stage_or_else_outside_of_it(name: str, value: Any, words: str) -> None:
    with worded(pickle.loads(pickle.dumps(IN_A_FILE))):
        assert option(name, value) == words


def test_a_setting_that_two_stages_have_is_that_of_the_stage_at_work_or_of_the_one_asked_for() -> None:
    with worded(InPipelineFile("eval", {"train": ["seed"], "eval": ["seed"]}, in_python)):
        assert (option("seed"), option("seed", stage="train")) == ("eval.seed", "train.seed")


def test_a_long_value_is_cut() -> None:
    assert option("crop", "x" * 1000) == f"crop='{'x' * 199}"


# The same refusal on each


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """What a command that must be refused prints: standard output and standard error."""

    def run(main: Callable[[], None], *argv: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


def test_a_value_out_of_bounds(refused: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^episodes: expected at least 1, got 0$"):
        CollectConfig(out=tmp_path / "out", episodes=0)
    _, line = refused(collect_command.main, "wm-collect", "--out", tmp_path / "out", "--episodes", 0)
    assert line == "wm-collect: --episodes: expected at least 1, got 0\n"
    file = tmp_path / "p.yaml"
    file.write_text("train: {}\nencode: {}\ncollect:\n  seed: 3\n  episodes: 0\n")
    with pytest.raises(ConfigError) as raised:
        run_pipeline(file, tmp_path / "out")
    assert str(raised.value) == f"{file}:5: collect.episodes: expected at least 1, got 0"
    assert raised.value.parts == {"where": f"{file}:5", "field": "episodes", "expected": "at least 1", "got": 0}


def test_two_settings_that_do_not_go_together(refused: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^schedule='cosine': has no steps left after warmup_steps=9, steps is 9; ask for "):
        TrainConfig(out=tmp_path, data=tmp_path, schedule="cosine", warmup_steps=9, steps=9)
    settings = ("--schedule", "cosine", "--warmup-steps", 9, "--steps", 9)
    _, line = refused(train_command.main, "wm-train", "--out", tmp_path, "--data", tmp_path, *settings)
    assert line.startswith("wm-train: --schedule cosine: has no steps left after --warmup-steps 9, --steps is 9; ask for more")
    file = tmp_path / "p.yaml"
    file.write_text("collect: {}\nencode: {}\ntrain:\n  steps: 9\n  schedule: cosine\n  warmup_steps: 9\n")
    _, line = refused(pipeline_command.main, "wm-pipeline", "run", file, "--out", tmp_path / "out")
    found = "train.schedule: cosine: has no steps left after train.warmup_steps: 9, train.steps is 9; ask for more, or lower "
    assert line == f"wm-pipeline: {file}:5: {found}train.warmup_steps\n"


@pytest.mark.parametrize("surface", [in_python, on_the_command_line])
def test_what_a_stage_refuses_at_work(tmp_path: Path, surface: Surface) -> None:
    """A pipeline's stage words its own settings; its directory is set by whoever runs the file."""
    file, out = tmp_path / "p.yaml", tmp_path / "out"
    file.write_text(STAGES + "train: {holdout_every: 2, device: teapot}\n")
    with worded(surface), pytest.raises(ConfigError, match=r"^train\.device: teapot: cannot be used: .*; try auto or cpu$"):
        run_pipeline(file, out)
    (out / "vae").mkdir()
    (out / "vae" / "checkpoint.safetensors").write_bytes(b"damaged")
    file.write_text(STAGES + "train: {holdout_every: 2, device: cpu}\n")
    with worded(surface), pytest.raises(Exception, match=r"or train anew with train\.resume: false$"):
        run_pipeline(file, out)
    file.write_text(STAGES + "train: {out: x}\n")
    said = "out" if surface is in_python else "--out"
    with worded(surface), pytest.raises(ConfigError, match=rf":3: train\.out: is set by {said}; leave it out$"):
        run_pipeline(file, out)


# Elsewhere


def refuse(task: int) -> bytes:
    raise EnvironmentNotUsable("is not here", field="wrap", got="my:Wrapper", remedy=f"or collect with {option('workers', 0)}")


def refusing() -> Callable[[int], bytes]:
    return refuse


@pytest.mark.parametrize(
    ("surface", "words"),
    [
        (in_python, "wrap='my:Wrapper': is not here; or collect with workers=0"),
        (on_the_command_line, "--wrap my:Wrapper: is not here; or collect with --workers 0"),
        (
            InPipelineFile("collect", {"collect": ["wrap", "workers"]}, on_the_command_line),
            'collect.wrap: "my:Wrapper": is not here; or collect with collect.workers: 0',
        ),
    ],
)
def test_in_a_thread_and_after_pickling(surface: Surface, words: str) -> None:
    with worded(surface):
        setup = pickle.loads(pickle.dumps(taken_along(refusing)))
    with ThreadPoolExecutor(1) as thread:
        error = thread.submit(lambda: setup()(0)).exception()
    again = pickle.loads(pickle.dumps(error))
    assert (str(error), str(again)) == (words, words)
    assert again.parts == error.parts == {"field": "wrap", "got": "my:Wrapper", "remedy": words.partition("; ")[2]}


@pytest.mark.usefixtures("local_ray")
@pytest.mark.slow
def test_on_a_ray_worker() -> None:
    with worded(on_the_command_line):
        setup = taken_along(refusing)
    for executor in (Here(), RayPool(WorkerSettings(num_workers=1))):
        with pytest.raises(EnvironmentNotUsable) as raised:
            list(map_tasks(executor, setup, [0]))
        assert str(raised.value) == "--wrap my:Wrapper: is not here; or collect with --workers 0"
        assert (raised.value.field, raised.value.got) == ("wrap", "my:Wrapper")


# What programs read


def test_the_parts_in_the_json_log_and_in_the_json_result(refused: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    command = ("wm-collect", "--out", tmp_path / "out", "--crop", "9:1", "--log-format", "json")
    printed, log = refused(collect_command.main, *command, "--json")
    parts = {"field": "crop", "expected": '"auto", "full" or TOP:BOTTOM,LEFT:RIGHT such as 0:84,0:96', "got": "9:1"}
    message = f"--crop: expected {parts['expected']}, got '9:1'"
    failed = {"event": "failed", "error": "ConfigError", **parts, "exit_code": 2, "message": message}
    assert json.loads(printed) == failed
    event = json.loads(log)
    assert {name: event[name] for name in failed} == failed
    assert refused(collect_command.main, *command)[0] == ""


def test_the_parts_of_a_file_that_is_wrong(refused: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "note.txt").touch()
    printed, _ = refused(collect_command.main, "wm-collect", "--out", tmp_path, "--json")
    failed = json.loads(printed)
    assert (failed["error"], failed["where"]) == ("OutputNotUsable", str(tmp_path))
    assert failed["remedy"] == "give a directory that is empty, new, or a dataset to continue"
    assert not {"field", "expected", "got"} & failed.keys()


def test_an_address_without_workers(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^address='auto': without workers nothing is done on a cluster; ask for workers, or"
    ):
        CollectConfig(out=tmp_path / "out", workers=0, address="auto")
