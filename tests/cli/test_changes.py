"""`wm-pipeline run FILE --train.steps 500`: fields as if they stood in the file; `wm-pipeline init`: files to begin from."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run
from worldmodel_v.cli.pipeline import _without_changes
from worldmodel_v.errors import ConfigError
from worldmodel_v.pipeline import Change, load_pipeline

FILE = """
collect: {env: worldmodel_v/Stamp-v0, episodes: 4, max_steps: 5, policy: random, workers: 0}
train:
encode: {workers: 0}
"""
WHOLE = """
collect: {env: worldmodel_v/Stamp-v0, episodes: 4, max_steps: 5, policy: brownian, workers: 0, record: [info.a, info.b]}
train: {steps: 500, holdout_every: 2, beta: 0.1, compile: true}
eval: {frames: 10}
encode: {workers: 0, dtype: float16}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(FILE)
    return tmp_path / "pipeline.yaml"


def changed(file: Path, *words: str) -> Any:
    kept, changes = _without_changes(["run", str(file), *words])
    assert kept == ["run", str(file)]
    return load_pipeline(file, file.parent / "out", changes)


def test_a_change_is_what_the_file_would_say(file: Path, tmp_path: Path) -> None:
    words = "--train.steps 500 --train.holdout-every=2 --collect.policy brownian --train.beta 1e-1"
    lists = ["--collect.record", "info.a", "info.b", "--train.compile", "--encode.dtype", "float16", "--eval.frames", "10"]
    (tmp_path / "whole.yaml").write_text(WHOLE)
    assert changed(file, *words.split(), *lists) == load_pipeline(tmp_path / "whole.yaml", tmp_path / "out")


def test_text_that_looks_like_a_number_stays_text_and_none_is_null(file: Path) -> None:
    short = ("--train.holdout_every", "2")
    assert changed(file, *short, "--collect.env", "007", "--collect.max_steps", "null").collect.env == "007"
    assert changed(file, *short, "--collect.max_steps", "null").collect.max_steps is None
    assert changed(file, *short, "--train.compile", "false").train.compile is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--train.steps 0", "the command line: train.steps: expected at least 1, got 0"),
        ("--train.stepz 9", "the command line: train.stepz: unknown field (did you mean 'steps'?); expected one of steps"),
        (
            "--trian.steps 9",
            "the command line: unknown stage 'trian' (did you mean 'train'?); expected collect, train, eval, encode",
        ),
        ("--train.steps", "the command line: train.steps: expected one value"),
        ("--train.out x", "the command line: train.out: is set by out"),
        ("--train.steps many", "the command line: train.steps: expected a valid integer, got 'many'"),
        ("--train.steps 5 --train.steps 6", "the command line: train.steps: stands here twice; leave one out"),
        ("--collect.episodes 3", "pipeline.yaml:3: train.holdout_every: 10: needs at least 10 episodes, collect.episodes is 3"),
    ],
)
def test_a_wrong_change_is_refused_as_the_file_would_be(file: Path, words: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        changed(file, *words.split())
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--steps 5", "--steps: a stage's field is given with the stage's name; say --train.steps"),
        ("--latent-dim=4", "--latent-dim: a stage's field is given with the stage's name; say --train.latent-dim"),
        ("--seed 3", "say --collect.seed or --train.seed"),
    ],
)
def test_a_field_without_its_stage_is_told_whose_it_may_be(file: Path, words: str, said: str) -> None:
    _, errors = run("wm-pipeline", "run", file, "--out", "out", *words.split(), folder=file.parent, code=2)
    assert said in errors
    assert len(errors.splitlines()) == 1


def test_a_job_gets_the_words_back(file: Path) -> None:
    kept, changes = _without_changes(["submit", "--collect.record", "a", "b", "--out", "o", "--train.compile", "f"])
    assert kept == ["submit", "--out", "o", "f"]
    assert changes == [Change("collect", "record", ("a", "b")), Change("train", "compile", ("true",))]


def test_init_writes_a_file_that_runs_and_never_overwrites(tmp_path: Path) -> None:
    for template in ("quickstart", "paper", "cluster"):
        run("wm-pipeline", "init", "--template", template, folder=tmp_path)
        load_pipeline(tmp_path / f"{template}.yaml", tmp_path)
    output, _ = run("wm-pipeline", "init", "my file.yaml", "--json", folder=tmp_path)
    assert json.loads(output) == {"file": "my file.yaml"}
    text = (tmp_path / "my file.yaml").read_text()
    assert "wm-pipeline run 'my file.yaml' --out runs/quickstart\n" in text
    _, errors = run("wm-pipeline", "init", "my file.yaml", folder=tmp_path, code=2)
    assert errors == "wm-pipeline: my file.yaml: is there already; give another name, or remove it first\n"
    assert (tmp_path / "my file.yaml").read_text() == text
    _, errors = run("wm-pipeline", "init", "none/my.yaml", folder=tmp_path, code=2)
    assert errors == "wm-pipeline: none/my.yaml: its folder is not there; make it first\n"
    _, errors = run("wm-pipeline", "init", "--train.steps", 3, folder=tmp_path, code=2)
    assert errors == "wm-pipeline: --train.steps is for a pipeline that is run or submitted; leave it out\n"


def test_a_pipeline_that_was_changed_is_continued_by_the_file_that_says_the_same(file: Path, tmp_path: Path) -> None:
    training = "--train.steps 2 --train.batch-size 4 --train.latent-dim 2 --train.architecture mlp --train.holdout-every 2"
    run("wm-pipeline", "run", file, "--out", tmp_path / "out", *training.split(), folder=tmp_path)
    settings = "{steps: 2, batch_size: 4, latent_dim: 2, architecture: mlp, holdout_every: 2}"
    file.write_text(FILE.replace("train:", f"train: {settings}"))
    output, _ = run("wm-pipeline", "run", file, "--out", tmp_path / "out", folder=tmp_path)
    assert "everything was done already" in output
    _, errors = run("wm-pipeline", "run", file, "--out", tmp_path / "out", "--train.beta", 2, folder=tmp_path, code=2)
    assert "beta is 1.0 there, 2.0 asked" in errors
    assert "train.resume: false" in errors
