"""Training on the toy world: what it leaves behind, what it learns, and how it continues."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from tests.conftest import stamp_config
from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.collection import collect
from worldmodel_v.errors import ConfigError, DatasetBusy, ModelNotUsable, OutputNotUsable
from worldmodel_v.evaluation.canvas import CELL, GAP
from worldmodel_v.storage import open_dataset
from worldmodel_v.storage.lock import locked_directory
from worldmodel_v.training import TrainConfig, train
from worldmodel_v.training.checkpoint import load_checkpoint
from worldmodel_v.training.run import TrainingRun


def config(data: Path, out: Path, **changes: object) -> TrainConfig:
    settings = {"steps": 6, "batch_size": 8, "latent_dim": 4, "holdout_every": 4, "device": "cpu", "log_every": 1}
    settings |= {"architecture": "conv", "likelihood": "gaussian"}
    return TrainConfig(data=data, out=out, **{**settings, "checkpoint_every": 3, **changes})  # type: ignore[arg-type]


def lines(out: Path, group: str) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["group"] == group]


def test_a_short_training_learns_on_frames_it_has_not_seen(tmp_path: Path) -> None:
    rollouts = tmp_path / "rollouts"
    collect(stamp_config(rollouts, frame_size=16))
    settings = {"steps": 150, "batch_size": 32, "checkpoint_every": 75, "beta_warmup_steps": 50, "latent_dim": 8}
    report = train(config(rollouts, tmp_path / "vae", **settings))
    first, *_, last = lines(tmp_path / "vae", "train")
    assert last["reconstruction"] < 0.2 * first["reconstruction"]
    assert report.heldout["psnr_db"] > 20
    assert report.heldout["kl_nats"] > 1
    assert report.heldout["num_frames"] == sum(open_dataset(rollouts).episode(i).num_rows for i in (3, 7))


def test_a_batch_for_which_there_is_no_memory_is_the_options_fault(
    stamp_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingRun, "take_step", lambda *_: torch.empty(1 << 60, dtype=torch.uint8))
    with pytest.raises(ConfigError, match="batch_size=8: does not fit in the memory of cpu; lower it"):
        train(config(stamp_rollouts, tmp_path / "vae"))


def test_a_training_leaves_weights_record_curves_and_pictures(stamp_rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    report = train(config(stamp_rollouts, out))
    assert report.new_steps == 6
    assert [record["step"] for record in lines(out, "train")] == [1, 2, 3, 4, 5, 6]
    assert [record["step"] for record in lines(out, "held-out")] == [3, 6]
    assert {"loss", "reconstruction", "kl", "grad_norm", "beta"} <= lines(out, "train")[0].keys()
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))
    for step in (3, 6):
        for picture in ("reconstructions", "prior"):
            assert np.asarray(Image.open(out / "samples" / f"step_{step:07d}_{picture}.png")).std() > 0
    assert np.asarray(Image.open(report.picture)).shape == (2 * CELL + GAP, 10 * CELL + 9 * GAP, 4)
    description = json.loads((out / "config.json").read_text())
    assert description["steps"] == 6
    assert description["training"]["data_spec_hash"] == open_dataset(stamp_rollouts).spec_hash
    assert load_vae(out).model.config.latent_dim == 4


def test_a_complete_training_does_nothing_and_more_steps_train_on(stamp_rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    train(config(stamp_rollouts, out))
    weights = (out / "vae.safetensors").read_bytes()
    again = train(config(stamp_rollouts, out))
    assert again.new_steps == 0
    assert (out / "vae.safetensors").read_bytes() == weights
    longer = train(config(stamp_rollouts, out, steps=9))
    assert (longer.new_steps, longer.steps) == (3, 9)
    straight = train(config(stamp_rollouts, tmp_path / "straight", steps=9))
    assert (out / "vae.safetensors").read_bytes() == (straight.out / "vae.safetensors").read_bytes()
    assert longer.heldout == straight.heldout


def test_the_weight_of_the_kl_rises_linearly_in_the_record(stamp_rollouts: Path, tmp_path: Path) -> None:
    train(config(stamp_rollouts, tmp_path / "vae", beta=2.0, beta_warmup_steps=4))
    assert [record["beta"] for record in lines(tmp_path / "vae", "train")] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    for record in lines(tmp_path / "vae", "train"):
        assert record["loss"] == pytest.approx(record["reconstruction"] + record["beta"] * record["kl"], rel=1e-6)


def test_gradients_are_scaled_down_to_the_norm_asked_for(stamp_rollouts: Path, tmp_path: Path) -> None:
    """With plain descent in mind, compare the first update of Adam's moments: exp_avg = (1 - 0.9) * clipped gradient."""
    for name, bound in (("free", 1e9), ("clipped", 0.5)):
        train(config(stamp_rollouts, tmp_path / name, steps=1, checkpoint_every=1, max_grad_norm=bound))
    norms = {}
    for name in ("free", "clipped"):
        checkpoint = load_checkpoint(tmp_path / name)
        assert checkpoint is not None
        moments = [t for key, t in checkpoint.tensors.items() if key.endswith("exp_avg")]
        norms[name] = 10 * float(torch.cat([moment.flatten() for moment in moments]).double().norm())
    assert norms["clipped"] == pytest.approx(0.5, rel=1e-4)
    assert norms["free"] == pytest.approx(lines(tmp_path / "free", "train")[0]["grad_norm"], rel=1e-4)
    assert norms["free"] > 10 * norms["clipped"]


def test_both_likelihoods_and_bf16_train(stamp_rollouts: Path, tmp_path: Path) -> None:
    for name, changes in {"bernoulli": {"likelihood": "bernoulli"}, "bf16": {"precision": "bf16"}}.items():
        train(config(stamp_rollouts, tmp_path / name, **changes))
        weights = safetensors.torch.load_file(tmp_path / name / "vae.safetensors")
        assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in weights.values())


def test_a_damaged_checkpoint_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    train(config(stamp_rollouts, out))
    file = out / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelNotUsable, match="the checkpoint is damaged"):
        train(config(stamp_rollouts, out, steps=9))


def test_a_vae_that_was_lost_or_damaged_is_published_again_from_the_checkpoint(stamp_rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    train(config(stamp_rollouts, out))
    weights = (out / "vae.safetensors").read_bytes()
    for damage in (Path.unlink, lambda file: file.write_bytes(b"garbage")):
        for name in ("vae.safetensors", "heldout.json"):
            damage(out / name)
            assert train(config(stamp_rollouts, out)).new_steps == 0
            assert (out / "vae.safetensors").read_bytes() == weights


def test_no_resume_trains_anew_and_an_old_vae_is_never_taken_for_the_new_one(stamp_rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    train(config(stamp_rollouts, out))
    weights = (out / "vae.safetensors").read_bytes()
    report = train(config(stamp_rollouts, out, resume=False, seed=5))
    assert report.new_steps == 6
    assert (out / "vae.safetensors").read_bytes() != weights
    assert [record["step"] for record in lines(out, "train")] == [1, 2, 3, 4, 5, 6]


def test_fewer_steps_than_are_done_are_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    train(config(stamp_rollouts, tmp_path / "vae"))
    with pytest.raises(OutputNotUsable, match="has trained 6 steps, 5 asked; ask for at least 6"):
        train(config(stamp_rollouts, tmp_path / "vae", steps=5))


def test_a_directory_that_holds_something_else_is_refused(stamp_rollouts: Path, stamp_latents: Path, tmp_path: Path) -> None:
    for out in (stamp_rollouts, stamp_latents):
        with pytest.raises(OutputNotUsable, match=r"holds 'dataset.json', which is not of a training"):
            train(config(stamp_rollouts, out))


def test_two_trainings_in_one_directory_are_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    with locked_directory(tmp_path / "vae"), pytest.raises(DatasetBusy, match="this process is writing there already"):
        train(config(stamp_rollouts, tmp_path / "vae"))


def test_rollouts_that_grew_are_evaluated_again_with_the_same_weights(stamp_rollouts: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "rollouts", tmp_path / "vae"
    shutil.copytree(stamp_rollouts, data)
    before = train(config(data, out))
    weights = (out / "vae.safetensors").read_bytes()
    collect(stamp_config(data, episodes=12))
    after = train(config(data, out))
    assert after.new_steps == 0
    assert after.heldout["num_frames"] > before.heldout["num_frames"]
    assert (out / "vae.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "resnet", "likelihood": "calibrated"},
        {"architecture": "mlp", "channels": 1, "free_bits": 0.1},
        {"architecture": "ha2018", "likelihood": "gaussian", "kl_tolerance": 0.5, "beta_warmup_steps": 0},
        {"architecture": "conv", "condition": ("step", "action"), "beta_cycles": 2, "beta_warmup_steps": 2},
    ],
)
def test_every_option_travels_into_the_weights_and_a_continued_run_is_the_unbroken_one(
    changes: dict[str, object], stamp_rollouts: Path, tmp_path: Path
) -> None:
    changes = {"checkpoint_every": 100, **changes}
    train(config(stamp_rollouts, tmp_path / "broken", steps=6, **changes))
    train(config(stamp_rollouts, tmp_path / "broken", steps=8, **changes))
    straight = train(config(stamp_rollouts, tmp_path / "straight", steps=8, **changes))
    weights = [(tmp_path / name / "vae.safetensors").read_bytes() for name in ("broken", "straight")]
    assert weights[0] == weights[1]
    found = load_vae(straight.out).model.config
    expected = {name: value for name, value in changes.items() if hasattr(found, name)}
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_calibrated_sigma_is_recorded_and_falls(stamp_rollouts: Path, tmp_path: Path) -> None:
    train(config(stamp_rollouts, tmp_path / "vae", steps=30, checkpoint_every=30, likelihood="calibrated"))
    sigmas = [record["sigma"] for record in lines(tmp_path / "vae", "train")]
    assert sigmas == sorted(sigmas, reverse=True)
    assert sigmas[-1] < 0.5
    assert float(load_vae(tmp_path / "vae").model.sigma) == pytest.approx(sigmas[-1])


def test_the_record_keeps_the_true_kl_under_a_floor(stamp_rollouts: Path, tmp_path: Path) -> None:
    settings = {"kl_tolerance": 100.0, "beta_warmup_steps": 0, "likelihood": "gaussian", "checkpoint_every": 100}
    train(config(stamp_rollouts, tmp_path / "vae", **settings))
    for record in lines(tmp_path / "vae", "train"):
        assert record["kl"] < 400
        assert record["loss"] == pytest.approx(record["reconstruction"] + 400, rel=1e-6)


def test_gradients_are_in_units_of_squared_errors_whatever_sigma(stamp_rollouts: Path, tmp_path: Path) -> None:
    """With beta 0 the loss is the weighted squared error alone, whose gradient must not depend on the weight."""
    norms = []
    for sigma in (0.5**0.5, 0.05):
        settings = {"steps": 1, "checkpoint_every": 1, "likelihood": "gaussian", "beta": 0.0, "sigma": sigma}
        train(config(stamp_rollouts, tmp_path / str(sigma), **settings))
        norms.append(lines(tmp_path / str(sigma), "train")[0]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
