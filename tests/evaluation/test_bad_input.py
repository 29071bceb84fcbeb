"""What wm-eval refuses: one line, exit code 2 (1 for a broken VAE), and nothing written."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cli.test_bad_input import Refusal
from tests.evaluation.conftest import write_rollouts, write_vae
from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.cli import eval as evaluation
from worldmodel_v.evaluation import EvaluationReport


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Runs wm-eval into a new directory, which must not exist afterwards."""
    refuse = Refusal(monkeypatch, capsys)

    def run(vae: Path, data: Path, *options: object, code: int = 2) -> str:
        out = tmp_path / "out"
        line = refuse("wm-eval", "--quiet", "--vae", vae, "--data", data, "--out", out, *options, code=code)
        assert not out.exists()
        return line

    return run


def test_latents_for_data(refused: Callable[..., str], stamp_vae: Path, stamp_latents: Path) -> None:
    assert "expected a dataset of worldmodel_v/rollouts (made by wm-collect), got" in refused(stamp_vae, stamp_latents)


def test_data_that_are_not_there(refused: Callable[..., str], small_vae: Path, tmp_path: Path) -> None:
    assert "is no directory; give a directory that wm-collect wrote" in refused(small_vae, tmp_path / "absent")


def test_frames_of_another_size(refused: Callable[..., str], small_vae: Path, stamp_rollouts: Path) -> None:
    line = refused(small_vae, stamp_rollouts)
    assert "the VAE takes 16x16 frames" in line
    assert "holds 64x64; collect with --frame-size 16, or give the rollouts that it was trained on" in line


def test_a_vae_whose_training_is_not_finished(
    refused: Callable[..., str], small_vae: Path, small_rollouts: Path, tmp_path: Path
) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "checkpoint.safetensors").write_bytes((small_vae / "checkpoint.safetensors").read_bytes())
    assert "its training is not finished; train with --out" in refused(tmp_path / "vae", small_rollouts)


def test_a_vae_that_does_not_tell_its_split(
    refused: Callable[..., str], small_vae: Path, small_rollouts: Path, tmp_path: Path
) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "vae.safetensors").write_bytes((small_vae / "vae.safetensors").read_bytes())
    assert "does not tell which episodes the training held out" in refused(tmp_path / "vae", small_rollouts)


def test_a_split_that_would_test_on_trained_frames(refused: Callable[..., str], small_vae: Path, small_rollouts: Path) -> None:
    line = refused(small_vae, small_rollouts, "--holdout-every", 3)
    assert "--holdout-every 3: the VAE was trained on these rollouts with every 4th episode held out" in line


def test_data_without_a_held_out_episode(refused: Callable[..., str], tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data")
    line = refused(write_vae(tmp_path / "vae", data, holdout_every=10), data)
    assert "has 4 episodes; holding out every 10th needs at least 10" in line


def test_too_few_frames(refused: Callable[..., str], tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data", num_episodes=2)
    line = refused(write_vae(tmp_path / "vae", data), data)
    assert "its held-out episodes (every 2nd) have 6 frames, 10 are needed" in line


def test_a_factor_that_is_not_recorded(refused: Callable[..., str], small_vae: Path, small_rollouts: Path) -> None:
    line = refused(small_vae, small_rollouts, "--factors", "step", "sped")
    assert "--factors sped: the state holds step, action_stamp, episode_stamp, return_stamp" in line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--frames", 9), "--frames: expected at least 10, got 9"),
        (("--seed", -1), "--seed: expected at least 0, got -1"),
        (("--frames", 2**63), "--frames: expected a number below 2^63"),
        (("--seed", 2**32), "--seed: expected a number below 2^32"),
        (("--factors", "step", "step"), "--factors step step: names 'step' twice"),
        (("--holdout-every", 1), "--holdout-every: expected at least 2, got 1"),
        (("--device", "teapot"), "--device teapot: cannot be used"),
    ],
)
def test_settings_that_make_no_sense(
    refused: Callable[..., str], small_vae: Path, small_rollouts: Path, options: tuple, expected: str
) -> None:
    assert expected in refused(small_vae, small_rollouts, *options)


def test_a_vae_that_gives_nan(refused: Callable[..., str], tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data", num_steps=12)
    model = load_vae(write_vae(tmp_path / "vae", data)).model
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    line = refused(write_vae(tmp_path / "broken", data, model=model), data, code=1)
    assert "mu is NaN or infinite for 26 of 26 frames, first in episode 1, row 0; its weights are not usable" in line


def test_a_directory_that_is_something_else(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    small_evaluation: EvaluationReport,
    small_vae: Path,
    small_rollouts: Path,
    tmp_path: Path,
) -> None:
    refuse = Refusal(monkeypatch, capsys)
    command = ("wm-eval", "--quiet", "--vae", small_vae, "--data", small_rollouts, "--out")
    assert "which is not of an evaluation" in refuse(*command, small_vae)
    (tmp_path / "file").write_text("")
    assert "is a file; give a directory that is new, empty, or an evaluation" in refuse(*command, tmp_path / "file")
    assert "cannot be written to (Not a directory)" in refuse(*command, tmp_path / "file" / "out")
    other = write_rollouts(tmp_path / "other")
    line = refuse("wm-eval", "--vae", write_vae(tmp_path / "vae", other), "--data", other, "--out", small_evaluation.out)
    assert "holds an evaluation of the VAE" in line
    assert "give a new directory" in line


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, str]:
    monkeypatch.setattr(sys, "argv", ["wm-eval", *map(str, words)])
    evaluation.main()
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_the_result_as_a_table_and_as_json(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    small_evaluation: EvaluationReport,
    small_vae: Path,
    small_rollouts: Path,
    tmp_path: Path,
) -> None:
    command = ("--vae", small_vae, "--data", small_rollouts, "--out")
    table, _ = shown(monkeypatch, capsys, *command, small_evaluation.out)
    assert "everything was done already" in table
    assert f"{small_evaluation.summary.psnr_db:.2f} dB" in table
    assert str(small_evaluation.page) in table
    text, progress = shown(monkeypatch, capsys, *command, tmp_path / "new", "--json", "--quiet")
    found = json.loads(text)
    assert found["summary"]["psnr_db"] == small_evaluation.summary.psnr_db
    assert found["page"] == str(tmp_path / "new" / "report.html")
    assert progress == ""
    _, progress = shown(monkeypatch, capsys, *command, tmp_path / "again", "--json")
    told = dict.fromkeys(line.split("Z ", 1)[1].split(":")[0] for line in progress.splitlines())
    assert list(told) == ["read", "evaluate", "analyse", "draw", "eval"]
