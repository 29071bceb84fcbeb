"""The ways to compute a step: other speed, other memory, the same training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from worldmodel_v.autoencoders.gaussian import elbo
from worldmodel_v.autoencoders.gaussian.recompute import Recomputed
from worldmodel_v.errors import ConfigError
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import TrainConfig, train
from worldmodel_v.training.run import TrainingRun

CPU = torch.device("cpu")


def config(data: Path, out: Path, **changes: Any) -> TrainConfig:
    settings = {"steps": 4, "batch_size": 8, "latent_dim": 4, "holdout_every": 4, "device": "cpu", "checkpoint_every": 2}
    return TrainConfig(data=data, out=out, **{**settings, **changes})


def weights(out: Path) -> bytes:
    return (out / "vae.safetensors").read_bytes()


def test_recomputed_activations_give_the_same_weights_to_the_bit(stamp_rollouts: Path, tmp_path: Path) -> None:
    train(config(stamp_rollouts, tmp_path / "kept"))
    train(config(stamp_rollouts, tmp_path / "recomputed", checkpoint_activations=True))
    assert weights(tmp_path / "recomputed") == weights(tmp_path / "kept")


def test_a_training_may_be_continued_with_recomputed_activations(stamp_rollouts: Path, tmp_path: Path) -> None:
    train(config(stamp_rollouts, tmp_path / "straight"))
    train(config(stamp_rollouts, tmp_path / "continued", steps=2))
    train(config(stamp_rollouts, tmp_path / "continued", checkpoint_activations=True))
    assert weights(tmp_path / "continued") == weights(tmp_path / "straight")


def test_recomputed_activations_are_not_kept(stamp_rollouts: Path, tmp_path: Path) -> None:
    run = TrainingRun(config(stamp_rollouts, tmp_path), {}, CPU, open_dataset(stamp_rollouts), None)
    x = torch.rand(4, 3, 64, 64)

    def bytes_kept(model: Any) -> int:
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            terms = elbo(model, x, torch.Generator().manual_seed(0))
        terms.loss(1.0).backward()
        return sum(kept.values())

    assert bytes_kept(Recomputed(run.model)) < 0.5 * bytes_kept(run.model)


def test_where_pytorch_cannot_compile_the_error_says_what_to_do(
    stamp_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(_: object) -> None:
        raise RuntimeError("No working C++ compiler found\nmore lines")

    monkeypatch.setattr(torch, "compile", lambda objective: no_compiler)
    with pytest.raises(ConfigError) as caught:
        train(config(stamp_rollouts, tmp_path / "vae", compile=True))
    assert str(caught.value) == (
        "compile=True: PyTorch cannot compile for cpu here (RuntimeError: No working C++ compiler found); "
        "install a C++ compiler (CUDA: Triton), or leave it out"
    )
    assert not (tmp_path / "vae" / "checkpoint.safetensors").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler, about itself
def test_a_compiled_training_is_the_same_but_for_rounding(stamp_rollouts: Path, tmp_path: Path) -> None:
    losses = {}
    ways = {"eager": {}, "compiled": {"compile": True}, "both": {"compile": True, "checkpoint_activations": True}}
    for name, changes in ways.items():
        train(config(stamp_rollouts, tmp_path / name, log_every=1, **changes))
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses[name] = [line["loss"] for line in lines if line["group"] == "train"]
    assert len(losses["eager"]) == 4
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=1e-5)
    assert losses["both"] == pytest.approx(losses["eager"], rel=1e-5)
