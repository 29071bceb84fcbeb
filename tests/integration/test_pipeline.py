"""Real CarRacing, real Ray, real training, from one file to latents; and again, and after an interruption."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worldmodel_v.cli import inspect as inspect_command
from worldmodel_v.cli import pipeline as pipeline_command
from worldmodel_v.cli import terminal
from worldmodel_v.data import LatentSequences
from worldmodel_v.envs import STAMP_ENV_ID
from worldmodel_v.errors import ConfigError
from worldmodel_v.pipeline import Change, load_pipeline, run_pipeline
from worldmodel_v.storage import open_dataset, verify

ROOT = Path(__file__).parents[2]

CAR_RACING = """
collect: {env: CarRacing-v3, policy: brownian, episodes: 4, max_steps: 60, episodes_per_shard: 1, workers: 2}
train: {steps: 40, batch_size: 32, latent_dim: 16, holdout_every: 4, beta_warmup_steps: 20, checkpoint_every: 20, device: cpu}
eval: {frames: 40, device: cpu}
encode: {workers: 0, device: cpu}
"""


@pytest.mark.usefixtures("local_ray")
def test_real_car_racing_becomes_latents_and_a_rerun_finds_everything_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "pipeline.yaml", tmp_path / "out"
    file.write_text(CAR_RACING)
    report = run_pipeline(file, out)
    assert (report.collect.episodes, report.collect.frames, report.encode.rows) == (4, 244, 244)
    assert report.train.heldout["num_frames"] == 61
    assert report.train.heldout["psnr_db"] > 15
    assert report.eval is not None
    assert report.eval.summary.num_frames == 40
    for dataset in (out / "rollouts", out / "latents"):
        assert verify(open_dataset(dataset)) == []
    episode = open_dataset(out / "rollouts").episode(0)
    assert episode.pixels.shape == (61, 64, 64, 3)
    assert episode.action.shape == (61, 3)
    assert "on_road" in episode.state_names
    assert np.asarray(Image.open(report.preview)).std() > 10
    assert np.asarray(Image.open(report.train.picture)).std() > 10
    batch = LatentSequences(out / "latents", length=32).sample_batch(5)
    assert batch["z"].shape == batch["next_z"].shape == (5, 32, 16)

    monkeypatch.setattr(sys, "argv", ["wm-pipeline", "run", str(file), "--out", str(out)])
    pipeline_command.main()
    printed = capsys.readouterr()
    assert "everything was done already" in printed.out
    for made in ("rollouts", "vae", "report.html", "latents", "reconstructions.png"):
        assert made in printed.out
    assert run_pipeline(file, out).did_nothing


def test_a_pipeline_continues_what_was_interrupted_between_and_within_stages(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    stamp = CAR_RACING.replace("CarRacing-v3, policy: brownian", f"{STAMP_ENV_ID}, policy: random").replace("2}", "0}")
    file.write_text(stamp.replace("steps: 40", "steps: 4").replace("steps: 20", "steps: 2").replace("every: 20", "every: 2"))
    report = run_pipeline(file, tmp_path / "out")
    index = tmp_path / "out" / "rollouts" / "index.jsonl"
    lines = index.read_text().splitlines()
    index.write_text("".join(line + "\n" for line in lines[:2]))
    (tmp_path / "out" / "rollouts" / "shards" / "000003.h5").unlink()
    (tmp_path / "out" / "vae" / "vae.safetensors").unlink()
    (tmp_path / "out" / "vae" / "heldout.json").unlink()
    again = run_pipeline(file, tmp_path / "out")
    assert again.collect.new_episodes == 1
    assert again.train.new_steps == 0
    assert again.train.heldout == report.train.heldout
    assert again.encode.new_rows == 0
    assert sorted(index.read_text().splitlines()) == sorted(lines)


@pytest.mark.parametrize("name", ["quickstart", "paper", "cluster"])
def test_the_pipelines_that_ship_are_valid(name: str, tmp_path: Path) -> None:
    pipeline = load_pipeline(ROOT / "pipelines" / f"{name}.yaml", tmp_path)
    assert pipeline.encode.data == pipeline.train.data == (pipeline.collect.out,) == (tmp_path / "rollouts",)
    assert pipeline.collect.episodes >= pipeline.train.holdout_every


def test_other_held_out_episodes_than_the_trainings_are_refused_before_anything_begins(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text("collect: {}\ntrain: {holdout_every: 4}\neval: {holdout_every: 5}\nencode: {}\n")
    with pytest.raises(ConfigError, match=r"pipeline.yaml:3: eval.holdout_every: 5: .*; expected 4, as in train; leave it out"):
        load_pipeline(file, tmp_path / "out")
    load_pipeline(file, tmp_path / "out", [Change("eval", "holdout_every", ("4",))])


def test_inspect_shows_each_kind_of_directory_in_one_screen(
    stamp_rollouts: Path,
    stamp_vae: Path,
    stamp_latents: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def show(*argv: object) -> str:
        monkeypatch.setattr(sys, "argv", ["wm-inspect", *map(str, argv)])
        monkeypatch.setattr(terminal, "PIPED_WIDTH", 80)
        inspect_command.main()
        return capsys.readouterr().out

    rollouts = show(stamp_rollouts, "--verify", "--preview", tmp_path / "frames.png")
    assert "uint8 (rows, 64, 64, 3)" in rollouts
    assert "3 shards, 8 episodes" in rollouts
    assert np.asarray(Image.open(tmp_path / "frames.png")).std() > 0
    latents = show(stamp_latents, "--verify", "--data", stamp_rollouts, "--vae", stamp_vae)
    assert "float32 (rows, 8)" in latents
    assert "checked_against" in latents
    vae = show(stamp_vae)
    assert "psnr_db" in vae
    for text in (rollouts, latents, vae):
        assert text.count("\n") <= 40
        assert max(map(len, map(str.rstrip, text.splitlines()))) <= 80
    assert "mu float32 [8], logvar float32 [8]" in vae
