"""Checkpoints: whole or refused, the latest and the kept, the best, and what is published of them."""

import contextlib
import dataclasses
import itertools
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.builders import FullDisk
from tests.training.test_train import config, lines
from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.data import read_frames
from worldmodel_v.errors import ConfigError, DatasetNotUsable, ModelNotUsable, OutputNotUsable, WriteFailed
from worldmodel_v.evaluation import evaluate_frames
from worldmodel_v.inspection import describe
from worldmodel_v.storage import open_dataset
from worldmodel_v.storage.publish import publish
from worldmodel_v.training import train
from worldmodel_v.training.best import load_best
from worldmodel_v.training.checkpoint import load_checkpoint, save_checkpoint, sealed, unseal
from worldmodel_v.training.trainer import QUICK_EVALUATION_FRAMES


def kept(out: Path) -> list[str]:
    return sorted(file.name for file in (out / "checkpoints").glob("*"))


def header_size(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


class TestDamage:
    """A small checkpoint, so that each of its bytes can be tried."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        tensors = {"model.weight": torch.arange(6.0).reshape(2, 3), "optimizer.0.step": torch.tensor(3.0)}
        notes = {"step": "3", "settings": json.dumps({"beta": 1.0})}
        (tmp_path / "checkpoint.safetensors").write_bytes(sealed(tensors, notes))
        return tmp_path

    def test_what_is_saved_is_loaded(self, folder: Path) -> None:
        checkpoint = load_checkpoint(folder)
        assert checkpoint is not None
        assert (checkpoint.step, checkpoint.settings) == (3, {"beta": 1.0})
        assert checkpoint.tensors["model.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert checkpoint.tensors["optimizer.0.step"].item() == 3

    def test_it_is_refused_when_truncated_anywhere(self, folder: Path) -> None:
        file = folder / "checkpoint.safetensors"
        content = file.read_bytes()
        for length in range(len(content)):
            file.write_bytes(content[:length])
            with pytest.raises(ModelNotUsable, match=r"checkpoint\.safetensors: the checkpoint is damaged"):
                load_checkpoint(folder)

    @pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
    def test_it_is_refused_with_any_byte_flipped(self, folder: Path, flip: int) -> None:
        file = folder / "checkpoint.safetensors"
        content = bytearray(file.read_bytes())
        padding = content[: header_size(content)].rstrip(b" ")
        for place in range(len(content)):
            if len(padding) <= place < header_size(content):
                continue  # blanks behind the header's JSON, which mean nothing
            damaged = content.copy()
            damaged[place] ^= flip
            file.write_bytes(damaged)
            with pytest.raises(ModelNotUsable, match=r"checkpoint\.safetensors: the checkpoint is damaged"):
                load_checkpoint(folder)

    def test_a_pickle_of_that_name_is_refused_and_not_run(self, folder: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[object, ...]:
                return Path.touch, (folder / "exploded",)

        (folder / "checkpoint.safetensors").write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ModelNotUsable, match=r"checkpoint\.safetensors: the checkpoint is damaged"):
            load_checkpoint(folder)
        torch.save({"model.weight": Bomb()}, folder / "checkpoint.safetensors")
        with pytest.raises(ModelNotUsable, match=r"checkpoint\.safetensors: the checkpoint is damaged"):
            load_checkpoint(folder)
        assert not (folder / "exploded").exists()

    def test_one_without_a_checksum_is_refused(self, folder: Path) -> None:
        tensors, notes = unseal((folder / "checkpoint.safetensors").read_bytes())
        safetensors.torch.save_file(tensors, folder / "checkpoint.safetensors", metadata=notes)
        with pytest.raises(ModelNotUsable, match="its SHA-256 is not the one that it was saved with"):
            load_checkpoint(folder)


def test_the_latest_checkpoints_are_kept_and_one_goes_back_to_one_by_copying_it(tiny_rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    train(config(tiny_rollouts, out, steps=11, keep=3))
    assert kept(out) == [f"step_{step:07d}.safetensors" for step in (6, 9, 11)]
    latest = out / "checkpoints" / "step_0000011.safetensors"
    assert latest.read_bytes() == (out / "checkpoint.safetensors").read_bytes()
    assert describe(out)["kept_checkpoints"] == kept(out)
    weights = (out / "vae.safetensors").read_bytes()
    shutil.copy(out / "checkpoints" / "step_0000006.safetensors", out / "checkpoint.safetensors")
    assert unseal(latest.read_bytes())[1]["step"] == "11"
    report = train(config(tiny_rollouts, out, steps=11, keep=2))
    assert report.new_steps == 5
    assert (out / "vae.safetensors").read_bytes() == weights
    assert kept(out) == [f"step_{step:07d}.safetensors" for step in (9, 11)]


def test_what_its_steps_were_computed_in_is_recorded(tiny_rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    train(config(tiny_rollouts, out, steps=1))
    assert json.loads((out / "config.json").read_text())["precisions"] == ["fp32"]
    checkpoint = load_checkpoint(out)
    assert checkpoint is not None
    save_checkpoint(out, dataclasses.replace(checkpoint, precisions=("bf16",)))  # as on a GPU
    train(config(tiny_rollouts, out, steps=2))
    assert json.loads((out / "config.json").read_text())["precisions"] == ["bf16", "fp32"]


def test_what_was_made_after_a_checkpoint_that_one_goes_back_to_is_not_published(tiny_rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    train(config(tiny_rollouts, out, steps=11, keep=3, publish="best"))
    best = load_best(out)
    assert best is not None
    assert best.step > 8
    shutil.copy(out / "checkpoints" / "step_0000006.safetensors", out / "checkpoint.safetensors")
    with pytest.raises(
        ModelNotUsable, match=r"holds no best\.safetensors of this training and data, up to its step; publish the last weights"
    ):
        train(config(tiny_rollouts, out, steps=6, keep=3, publish="best"))
    kept = {"step_final_note.png", "step_0000008_note.txt"}
    for name in (*kept, "step_10000000_samples.png"):
        (out / "samples" / name).write_bytes(b"")
    train(config(tiny_rollouts, out, steps=8, keep=3, publish="best"))
    assert {path.name for path in (out / "samples").iterdir()} >= kept
    for name in kept:
        (out / "samples" / name).unlink()
    assert json.loads((out / "heldout.json").read_text())["weights_of_step"] == 8
    assert {path.name[:12] for path in (out / "samples").iterdir()} == {f"step_{step:07d}" for step in (3, 6, 8)}
    train(config(tiny_rollouts, out, steps=3, resume=False))
    assert {path.name[:12] for path in (out / "samples").iterdir()} == {"step_0000003"}


def test_only_the_latest_stays_by_default_and_after_it_was_asked_for(tiny_rollouts: Path, tmp_path: Path) -> None:
    train(config(tiny_rollouts, tmp_path / "one"))
    assert not (tmp_path / "one" / "checkpoints").exists()
    train(config(tiny_rollouts, tmp_path / "two", keep=2))
    train(config(tiny_rollouts, tmp_path / "two", steps=7))
    assert kept(tmp_path / "two") == []
    checkpoint = load_checkpoint(tmp_path / "two")
    assert checkpoint is not None
    assert checkpoint.step == 7


def test_a_lost_checkpoint_is_not_taken_for_a_new_training_while_others_are_kept(tiny_rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    train(config(tiny_rollouts, out, keep=2))
    (out / "checkpoint.safetensors").unlink()
    with pytest.raises(
        ModelNotUsable, match=r"is missing, though checkpoints/step_0000006\.safetensors is kept; copy that one"
    ):
        train(config(tiny_rollouts, out, keep=2))
    train(config(tiny_rollouts, out, keep=2, resume=False, steps=3))
    assert kept(out) == ["step_0000003.safetensors"]


class TestBest:
    def test_it_is_the_one_with_the_highest_bound_in_the_record(self, tiny_rollouts: Path, tmp_path: Path) -> None:
        """With a learning rate that is far too high the last weights are not the best ones."""
        out = tmp_path / "vae"
        train(config(tiny_rollouts, out, steps=12, checkpoint_every=2, learning_rate=0.03, beta_warmup_steps=0))
        record = lines(out, "held-out")
        expected = max(record, key=lambda line: line["elbo_nats"])
        best = load_best(out)
        assert best is not None
        assert len({line["elbo_nats"] for line in record}) == 6
        assert (best.step, best.figure) == (expected["step"], "elbo_nats")
        assert best.heldout == {name: expected[name] for name in expected.keys() - {"step", "group"}}
        assert describe(out)["best"] == {"step": best.step, "elbo_nats": round(best.heldout["elbo_nats"], 2)}

    def test_its_weights_are_of_its_step_and_give_its_figures(self, tiny_rollouts: Path, tmp_path: Path) -> None:
        train(config(tiny_rollouts, tmp_path / "vae"))
        best = load_best(tmp_path / "vae")
        assert best is not None
        (tmp_path / "best").mkdir()
        shutil.copy(tmp_path / "vae" / "best.safetensors", tmp_path / "best" / "vae.safetensors")
        model = load_vae(tmp_path / "best").model
        frames = read_frames(open_dataset(tiny_rollouts), lambda episode: episode % 4 == 3, QUICK_EVALUATION_FRAMES)
        assert evaluate_frames(model, frames, torch.device("cpu")) == best.heldout

    def test_it_survives_a_restart_and_a_worse_one_does_not_replace_it(self, tiny_rollouts: Path, tmp_path: Path) -> None:
        out = tmp_path / "vae"
        train(config(tiny_rollouts, out))
        first = load_best(out)
        assert first is not None
        _pretend(out, elbo_nats=1e9)
        train(config(tiny_rollouts, out, steps=9))
        assert load_best(out).step == first.step  # type: ignore[union-attr]
        _pretend(out, elbo_nats=-1e9)
        train(config(tiny_rollouts, out, steps=12))
        assert load_best(out).step == 12  # type: ignore[union-attr]

    def test_a_new_training_and_other_data_begin_anew(self, tiny_rollouts: Path, tmp_path: Path) -> None:
        out = tmp_path / "vae"
        train(config(tiny_rollouts, out))
        _pretend(out, elbo_nats=1e9)
        train(config(tiny_rollouts, out, resume=False, steps=3))
        assert load_best(out).step == 3  # type: ignore[union-attr]
        _pretend(out, elbo_nats=1e9, data_rows=1)
        train(config(tiny_rollouts, out, steps=6))
        assert load_best(out).step == 6  # type: ignore[union-attr]

    def test_it_is_published_where_that_is_asked_for(self, tiny_rollouts: Path, tmp_path: Path) -> None:
        out = tmp_path / "vae"
        train(config(tiny_rollouts, out))
        last = (out / "vae.safetensors").read_bytes()
        first = config(tiny_rollouts, tmp_path / "first", steps=3)
        train(first)
        shutil.copy(tmp_path / "first" / "best.safetensors", out / "best.safetensors")
        report = train(config(tiny_rollouts, out, publish="best"))
        assert (report.new_steps, report.steps) == (0, 6)
        assert (out / "vae.safetensors").read_bytes() == (tmp_path / "first" / "vae.safetensors").read_bytes() != last
        assert (describe(out)["steps"], describe(out)["weights_of_step"]) == (6, 3)
        assert train(config(tiny_rollouts, out)).new_steps == 0
        assert (out / "vae.safetensors").read_bytes() == last

    def test_a_damaged_or_absent_one_is_named(self, tiny_rollouts: Path, tmp_path: Path) -> None:
        out = tmp_path / "vae"
        train(config(tiny_rollouts, out))
        content = bytearray((out / "best.safetensors").read_bytes())
        content[-1] ^= 1
        (out / "best.safetensors").write_bytes(content)
        for work in (lambda: train(config(tiny_rollouts, out, steps=9)), lambda: describe(out)):
            with pytest.raises(ModelNotUsable, match=r"best\.safetensors: the best weights are damaged .* or delete it"):
                work()
        (out / "best.safetensors").unlink()
        with pytest.raises(
            ModelNotUsable, match=r"holds no best\.safetensors of this training and data, up to its step; publish the last"
        ):
            train(config(tiny_rollouts, out, publish="best"))


def _pretend(out: Path, elbo_nats: float, data_rows: int | None = None) -> None:
    """Rewrite the best weights' figures."""
    weights, notes = unseal((out / "best.safetensors").read_bytes())
    notes["heldout"] = json.dumps(json.loads(notes["heldout"]) | {"elbo_nats": elbo_nats})
    if data_rows is not None:
        notes["settings"] = json.dumps(json.loads(notes["settings"]) | {"data_rows": data_rows})
    publish(out / "best.safetensors", sealed(weights, notes))


@pytest.mark.parametrize(
    ("name", "change"), [("likelihood", "bernoulli"), ("latent_dim", 5), ("beta", 0.5), ("seed", 1), ("learning_rate", 1.0)]
)
def test_another_architecture_or_recipe_is_refused_by_name(
    tiny_rollouts: Path, tmp_path: Path, name: str, change: object
) -> None:
    train(config(tiny_rollouts, tmp_path / "vae", steps=1))
    with pytest.raises(OutputNotUsable, match=rf"was trained with other settings: {name} is .* there, '?{change}'? asked"):
        train(config(tiny_rollouts, tmp_path / "vae", **{name: change}))


class TestSmallest:
    """The smallest of each that still makes sense."""

    def test_a_single_latent(self, tiny_rollouts: Path, tmp_path: Path) -> None:
        train(config(tiny_rollouts, tmp_path / "vae", latent_dim=1))
        assert lines(tmp_path / "vae", "health")[-1]["aggregate_max_correlation"] == 0
        assert load_vae(tmp_path / "vae").model.config.latent_dim == 1

    def test_a_batch_that_is_larger_than_the_data(self, tiny_rollouts: Path, tmp_path: Path) -> None:
        """120 frames are trained on; a batch of 300 goes over all of them twice and over half of them a third time."""
        report = train(config(tiny_rollouts, tmp_path / "vae", batch_size=300, steps=2))
        assert report.steps == 2
        assert np.isfinite([line["loss"] for line in lines(tmp_path / "vae", "train")]).all()

    def test_a_single_episode(self, tmp_path: Path) -> None:
        from tests.builders import make_episode, rollout_spec
        from worldmodel_v.storage import DatasetWriter, build_shard

        with DatasetWriter(tmp_path / "data", rollout_spec()) as writer:
            writer.commit(0, build_shard([make_episode(0)], spec_hash=rollout_spec().hash))
        with pytest.raises(DatasetNotUsable, match="has 1 episode; holding out every 4th needs at least 4; collect more"):
            train(config(tmp_path / "data", tmp_path / "vae"))
        with pytest.raises(DatasetNotUsable, match="has 1 episode; holding out every 2nd needs at least 2; collect more"):
            train(config(tmp_path / "data", tmp_path / "vae", holdout_every=2))


@pytest.mark.parametrize("kind", ["rename", "fsync folder"])
def test_ended_before_or_after_any_file_is_put_in_place_it_continues_to_the_same_end(
    tiny_rollouts: Path, tmp_path: Path, kind: str
) -> None:
    """The moments at which what others see changes; between them a kill leaves at most a file under a temporary name."""
    settings = {"checkpoint_every": 2, "keep": 2, "steps": 4}
    straight = tmp_path / "straight"
    train(config(tiny_rollouts, straight, **settings))
    for fail_at in itertools.count(1):
        out = tmp_path / str(fail_at)
        with pytest.MonkeyPatch.context() as patch:
            disk = FullDisk(patch, kind, fail_at)
            with contextlib.suppress(WriteFailed):
                train(config(tiny_rollouts, out, **settings))
        if not disk.failed:
            break
        describe(out) if (out / "checkpoint.safetensors").exists() else load_best(out)
        train(config(tiny_rollouts, out, **settings))
        assert (out / "vae.safetensors").read_bytes() == (straight / "vae.safetensors").read_bytes()
        assert load_best(out).heldout == load_best(straight).heldout  # type: ignore[union-attr]
        assert set(kept(out)) <= set(kept(straight))
        assert lines(out, "held-out") == lines(straight, "held-out")
    assert fail_at > 10


def test_keeping_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"keep: expected at least 1, got 0"):
        config(Path(), Path(), keep=0)
