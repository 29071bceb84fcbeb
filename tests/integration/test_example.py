"""The downstream example: an MDN-RNN trained on toy latents for a few steps."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import stamp_config
from worldmodel_v.collect import collect
from worldmodel_v.encode import EncodeConfig, encode

ROOT = Path(__file__).parents[2]


def run_example(latents: Path, vae: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    paths = ["--latents", latents, "--vae", vae, "--out", out]
    short = ["--steps", "3", "--batch-size", "4", "--length", "8", "--holdout-every", "4", "--device", "cpu"]
    return subprocess.run(
        [sys.executable, ROOT / "examples" / "train_mdn_rnn.py", *map(str, paths), *short, *options],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        timeout=120,
    )


@pytest.fixture(scope="module")
def discrete_latents(tmp_path_factory: pytest.TempPathFactory, stamp_vae: Path) -> Path:
    """Latents of the toy world with its five discrete actions."""
    folder = tmp_path_factory.mktemp("discrete")
    collect(stamp_config(folder / "rollouts", env_kwargs='{"discrete": true}'))
    encode(EncodeConfig(data=folder / "rollouts", vae=stamp_vae, out=folder / "latents", device="cpu"))
    return folder / "latents"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, stamp_latents: Path, stamp_vae: Path) -> Path:
    """What the example wrote from the toy latents."""
    return succeed(stamp_latents, stamp_vae, tmp_path_factory.mktemp("trained") / "out")


def succeed(latents: Path, vae: Path, out: Path) -> Path:
    """Run the example and compare what it printed with what it wrote."""
    finished = run_example(latents, vae, out)
    assert finished.returncode == 0, finished.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    for name in ("mdn_rnn", "constant_gaussian"):
        assert f"{metrics[name]['per_step']:.2f}" in finished.stdout
        assert f"{metrics[name]['per_dim']:.3f}" in finished.stdout
    return out


def assert_finite_metrics(out: Path) -> None:
    metrics = json.loads((out / "metrics.json").read_text())
    likelihoods = {name: metrics.pop(name) for name in ("mdn_rnn", "constant_gaussian")}
    assert metrics.keys() == {"steps", "train_windows", "heldout_transitions", "train_nll_per_step"}
    assert metrics["steps"] == 3
    assert metrics["heldout_transitions"] % 8 == 0
    assert math.isfinite(metrics["train_nll_per_step"])
    for nll in likelihoods.values():
        assert nll.keys() == {"per_step", "per_dim", "of_each_dim"}
        assert len(nll["of_each_dim"]) == 8
        assert all(map(math.isfinite, nll["of_each_dim"]))
        assert nll["per_step"] == pytest.approx(sum(nll["of_each_dim"]), rel=1e-5)
        assert nll["per_dim"] == pytest.approx(nll["per_step"] / 8, rel=1e-5)


def assert_two_rows_of_frames(picture: Path) -> None:
    """Four dreamed steps after the frame they start from, 64x64 each, with gaps of 2, at twice the size; not of one colour."""
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (2 * (2 + 2 * 66), 2 * (2 + 5 * 66), 3)
    frames = pixels[4:132, 4:132]
    assert frames.min() < frames.max()


def test_the_example_trains_measures_and_dreams(trained: Path) -> None:
    assert_finite_metrics(trained)
    assert_two_rows_of_frames(trained / "dream.png")


def test_discrete_actions_are_learnt_from_too(discrete_latents: Path, stamp_vae: Path, tmp_path: Path) -> None:
    out = succeed(discrete_latents, stamp_vae, tmp_path / "out")
    assert_finite_metrics(out)
    assert_two_rows_of_frames(out / "dream.png")


def test_the_same_seed_gives_the_same_numbers_and_the_same_dream(
    trained: Path, stamp_latents: Path, stamp_vae: Path, tmp_path: Path
) -> None:
    finished = run_example(stamp_latents, stamp_vae, tmp_path / "again", "--quiet", "--json")
    assert finished.stderr == ""
    assert json.loads(finished.stdout) == json.loads((trained / "metrics.json").read_text())
    for name in ("metrics.json", "dream.png"):
        assert (trained / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_windows_longer_than_the_held_out_episodes_end_in_one_line(
    stamp_latents: Path, stamp_vae: Path, tmp_path: Path
) -> None:
    finished = run_example(stamp_latents, stamp_vae, tmp_path / "out", "--length", "24")
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"train_mdn_rnn.py: {stamp_latents}: no episode (train) has 24 actions (the longest has ")
    assert not (tmp_path / "out").exists()
