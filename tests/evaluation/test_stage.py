"""The whole of wm-eval: what it leaves behind, what it says, and when it does nothing."""

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.builders import FullDisk, files_in
from tests.evaluation.conftest import write_rollouts, write_vae
from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.errors import DatasetBusy, WriteFailed
from worldmodel_v.evaluation import EvalConfig, EvaluationReport, evaluate, evaluate_frames, stage
from worldmodel_v.evaluation.stage import METRICS_NAME, OWN_NAMES, PAGE_NAME, PICTURE_NAMES
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import TrainConfig, train


def metrics_of(report: EvaluationReport) -> dict[str, Any]:
    return json.loads((report.out / METRICS_NAME).read_text())


def run(vae: Path, data: Path, out: Path, **settings: object) -> EvaluationReport:
    return evaluate(EvalConfig(vae=vae, data=data, out=out, device="cpu", **settings))  # type: ignore[arg-type]


def test_it_leaves_figures_pictures_and_a_page(small_evaluation: EvaluationReport) -> None:
    names = {item.name for item in small_evaluation.out.iterdir()}
    assert names == OWN_NAMES
    for name in PICTURE_NAMES:
        with Image.open(small_evaluation.out / name) as image:
            assert np.asarray(image)[..., :3].std() > 10, name
    hashes = metrics_of(small_evaluation)["files"]
    assert set(hashes) == {PAGE_NAME, *PICTURE_NAMES}
    for name, sha256 in hashes.items():
        assert hashlib.sha256((small_evaluation.out / name).read_bytes()).hexdigest() == sha256


def test_its_headline_figures_are_those_that_training_gives(
    small_evaluation: EvaluationReport, small_rollouts: Path, small_vae: Path
) -> None:
    dataset = open_dataset(small_rollouts)
    frames = np.concatenate([dataset.episode(i).pixels for i in (3, 7)])
    expected = evaluate_frames(load_vae(small_vae).model, frames, torch.device("cpu"))
    summary = small_evaluation.summary
    assert (summary.num_frames, summary.num_episodes) == (len(frames), 2)
    assert summary.psnr_db == pytest.approx(expected["psnr_db"])
    assert summary.kl_nats == pytest.approx(expected["kl_nats"])
    assert (summary.active_units, summary.latent_dim) == (expected["active_units"], 4)
    assert summary.psnr_db > 15
    assert summary.active_units > 0
    assert summary.without_zoom is None


def test_of_one_channel_the_brightness_is_measured_as_it_is_encoded(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data")
    vae = write_vae(tmp_path / "vae", data, channels=1)
    dataset = open_dataset(data)
    frames = np.concatenate([dataset.episode(i).pixels for i in (1, 3)])
    expected = evaluate_frames(load_vae(vae).model, frames, torch.device("cpu"))
    summary = run(vae, data, tmp_path / "eval").summary
    assert summary.squared_error == pytest.approx(expected["squared_error"], rel=1e-9)
    assert summary.kl_nats == pytest.approx(expected["kl_nats"], rel=1e-9)


def test_the_metrics_hold_every_figure_and_what_they_speak_of(small_evaluation: EvaluationReport, small_vae: Path) -> None:
    metrics = metrics_of(small_evaluation)
    assert metrics["identity"]["vae_sha256"] == load_vae(small_vae).sha256
    assert metrics["identity"]["holdout_every"] == 4
    assert metrics["training"]["on_this_data"] is True
    assert len(metrics["kl_per_latent"]) == len(metrics["active"]) == 4
    assert sum(metrics["kl_per_latent"]) == pytest.approx(metrics["bound"]["kl_nats"])
    assert {item["episode"] for item in metrics["episodes"]} == {3, 7}
    assert [item["factor"] for item in metrics["disentanglement"]["factors"]] == [
        *("step", "action_stamp", "episode_stamp", "return_stamp")
    ]
    assert len(metrics["disentanglement"]["top_factors"]) == 4
    assert 0 <= metrics["summary"]["sap"] <= 1
    assert 0 <= metrics["summary"]["mig"] <= 1
    assert metrics["inpainting"]["num_frames"] == metrics["summary"]["num_frames"]
    worst = metrics["anomalies"]["standing_out"][0]
    assert worst["episode"] in (3, 7)
    assert metrics["left_out"] == {}


def test_the_same_command_again_does_nothing(small_evaluation: EvaluationReport, small_rollouts: Path, small_vae: Path) -> None:
    before = files_in(small_evaluation.out)
    again = run(small_vae, small_rollouts, small_evaluation.out)
    assert again.did_nothing
    assert not small_evaluation.did_nothing
    assert again.summary == small_evaluation.summary
    assert files_in(small_evaluation.out) == before


def test_the_same_evaluation_elsewhere_is_the_same_to_the_byte(
    small_evaluation: EvaluationReport, small_rollouts: Path, small_vae: Path, tmp_path: Path
) -> None:
    other = run(small_vae, small_rollouts, tmp_path / "other")
    assert files_in(other.out) == files_in(small_evaluation.out)


def test_other_settings_evaluate_anew_and_a_lost_picture_is_drawn_again(
    small_evaluation: EvaluationReport, small_rollouts: Path, small_vae: Path, tmp_path: Path
) -> None:
    out = tmp_path / "eval"
    shutil.copytree(small_evaluation.out, out)
    (out / "tsne.png").unlink()
    assert not run(small_vae, small_rollouts, out).did_nothing
    assert files_in(out) == files_in(small_evaluation.out)
    report = run(small_vae, small_rollouts, out, frames=12, factors=("step",))
    assert report.summary.num_frames == 12
    assert [item["factor"] for item in metrics_of(report)["disentanglement"]["factors"]] == ["step"]


def test_of_two_that_are_begun_together_one_loses(
    small_rollouts: Path, small_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one runs from its beginning to its end while this one draws its page."""
    render = stage.render

    def meanwhile(*arguments: Any) -> str:
        monkeypatch.setattr(stage, "render", render)
        run(small_vae, small_rollouts, tmp_path / "eval", frames=12)
        return render(*arguments)

    monkeypatch.setattr(stage, "render", meanwhile)
    with pytest.raises(DatasetBusy, match="another process has written this evaluation there meanwhile"):
        run(small_vae, small_rollouts, tmp_path / "eval", frames=12)
    assert run(small_vae, small_rollouts, tmp_path / "eval", frames=12).did_nothing


@pytest.mark.parametrize("fail_at", [4, 8])
def test_a_full_disk_never_leaves_what_looks_finished(
    small_evaluation: EvaluationReport,
    small_rollouts: Path,
    small_vae: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fail_at: int,
) -> None:
    out = tmp_path / "eval"
    shutil.copytree(small_evaluation.out, out)
    with monkeypatch.context() as patch:
        FullDisk(patch, "rename", fail_at)
        with pytest.raises(WriteFailed):
            run(small_vae, small_rollouts, out, frames=12)
    assert not (out / METRICS_NAME).exists()
    assert not run(small_vae, small_rollouts, out).did_nothing
    assert files_in(out) == files_in(small_evaluation.out)


def test_without_state_its_sections_are_left_out_and_the_page_says_why(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data", num_steps=12)
    report = run(write_vae(tmp_path / "vae", data), data, tmp_path / "eval")
    metrics, page = metrics_of(report), report.page.read_text()
    assert (report.summary.sap, report.summary.mig, metrics["disentanglement"]) == (None, None, None)
    assert {"edits", "SAP and MIG"} <= metrics["left_out"].keys()
    assert not (report.out / "edits.png").exists()
    assert "What is left out, and why" in page
    assert "SAP and MIG: no recorded state factor varies over these frames." in page
    assert "<h2>Edits along a factor</h2>" not in page


def test_a_collapsed_vae_has_no_map_and_the_page_says_that_it_collapsed(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data", num_steps=12, num_factors=2)
    report = run(write_vae(tmp_path / "vae", data, architecture="conv"), data, tmp_path / "eval")
    assert report.summary.active_units == 0
    assert metrics_of(report)["left_out"].keys() == {"tsne", "edits"}
    assert "The posterior has collapsed: no latent says anything." in report.page.read_text()


def test_discrete_actions_a_single_latent_and_bernoulli_are_evaluated(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data", num_steps=12, action_size=0, num_factors=1)
    report = run(write_vae(tmp_path / "vae", data, latent_dim=1, likelihood="bernoulli"), data, tmp_path / "eval")
    metrics = metrics_of(report)
    assert metrics["aggregated"]["max_correlation"] is None
    assert metrics["bound"]["sigma"] is None
    assert report.summary.latent_dim == 1


def test_constant_factors_are_named_and_not_compared(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data", num_steps=12, num_factors=2)
    from worldmodel_v.evaluation import stage

    read_sample = stage.read_sample

    def with_constant(*arguments: Any, **named: Any) -> Any:
        sample = read_sample(*arguments, **named)
        sample.state[:, 0] = 4.0
        return sample

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "read_sample", with_constant)
        report = run(write_vae(tmp_path / "vae", data), data, tmp_path / "eval")
    metrics = metrics_of(report)
    assert metrics["constant_factors"] == ["factor_0"]
    assert [item["factor"] for item in metrics["disentanglement"]["factors"]] == ["factor_1"]
    assert "The factor factor_0: constant over these frames" in report.page.read_text()


def test_of_car_racing_the_zoom_in_is_told_apart(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data", spec={"env": "worldmodel_v/CarRacing-v3", "env_kwargs": {}}, num_steps=59)
    vae = write_vae(tmp_path / "vae", data)
    report = run(vae, data, tmp_path / "eval")
    frames = np.concatenate([open_dataset(data).episode(i).pixels[50:] for i in (1, 3)])
    expected = evaluate_frames(load_vae(vae).model, frames, torch.device("cpu"))
    assert report.summary.without_zoom is not None
    assert report.summary.without_zoom.num_frames == 20
    assert report.summary.without_zoom.psnr_db == pytest.approx(expected["psnr_db"])
    assert report.summary.num_frames == 120


def test_other_rollouts_than_the_trainings_are_evaluated_and_said_to_be(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data", num_steps=12)
    other = write_rollouts(tmp_path / "other", num_steps=12, spec={"seed": 8})
    report = run(write_vae(tmp_path / "vae", data), other, tmp_path / "eval")
    assert metrics_of(report)["training"]["on_this_data"] is False
    assert "rollouts that it was not trained on" in report.page.read_text()


def test_the_picture_of_the_prior_is_decoded_from_the_seed(small_evaluation: EvaluationReport, small_vae: Path) -> None:
    z = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    with torch.no_grad():
        decoded = load_vae(small_vae).model.decode_z(torch.from_numpy(z)).permute(0, 2, 3, 1).numpy()
    with Image.open(io.BytesIO((small_evaluation.out / "prior.png").read_bytes())) as image:
        picture = np.asarray(image)
    for i in (0, 7, 8, 31):
        top, left = (134 * (i // 8), 134 * (i % 8))
        np.testing.assert_allclose(picture[top : top + 128 : 8, left : left + 128 : 8, :3], decoded[i] * 255, atol=0.51)


@pytest.mark.slow
def test_real_car_racing_is_compared_with_its_state(tmp_path: Path) -> None:
    """Speed, angle and road are recorded there, so that the map is coloured by them; the zoom-in is told apart."""
    policy = "driver(noise=0.3)"
    collect(CollectConfig(out=tmp_path / "data", episodes=4, max_steps=70, workers=0, policy=policy, episodes_per_shard=2))
    settings = {"steps": 60, "batch_size": 16, "latent_dim": 8, "holdout_every": 2, "checkpoint_every": 60, "device": "cpu"}
    train(TrainConfig(data=tmp_path / "data", out=tmp_path / "vae", **settings))  # type: ignore[arg-type]
    report = run(tmp_path / "vae", tmp_path / "data", tmp_path / "eval")
    metrics, page = metrics_of(report), report.page.read_text()
    assert report.summary.without_zoom is not None
    assert report.summary.without_zoom.num_frames == 2 * 21
    assert {item["factor"] for item in metrics["attributes"]} >= {"speed", "steering_angle", "angular_velocity"}
    assert "speed" not in {item["factor"] for item in metrics["disentanglement"]["factors"]}
    assert "coloured by speed, angle" in page
    assert "without the zoom-in" in page


@pytest.mark.parametrize(
    "settings",
    [
        {"condition": ("step", "action"), "architecture": "conv"},
        {"channels": 1, "architecture": "mlp"},
        {"latent_dim": 1, "likelihood": "gaussian", "sigma": 0.1},
        {"likelihood": "bernoulli", "free_bits": 0.1},
    ],
    ids=["conditional", "one channel", "one latent", "bernoulli"],
)
def test_every_kind_of_vae_is_trained_and_evaluated(small_rollouts: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    trained = {"steps": 4, "batch_size": 16, "latent_dim": 3, "holdout_every": 4, "device": "cpu", **settings}
    heldout = train(TrainConfig(data=small_rollouts, out=tmp_path / "vae", **trained)).heldout
    report = run(tmp_path / "vae", small_rollouts, tmp_path / "eval")
    assert report.summary.latent_dim == trained["latent_dim"]
    assert report.summary.psnr_db == pytest.approx(heldout["psnr_db"], abs=1e-4)
    assert report.summary.kl_nats == pytest.approx(heldout["kl_nats"], rel=1e-4)
    assert report.page.stat().st_size > 10_000
