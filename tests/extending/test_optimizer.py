"""Every optimiser and schedule: a training that was stopped and continued is the one that was not."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from tests.extending.own_loop import train_until
from tests.training.test_train import config
from worldmodel_v.autoencoders.registry import sha256_of_own
from worldmodel_v.code.origin import code_source
from worldmodel_v.errors import ConfigError, OutputNotUsable
from worldmodel_v.training import train
from worldmodel_v.training.checkpoint import unseal
from worldmodel_v.training.optimizers import build_optimizer
from worldmodel_v.training.schedules import learning_rate_factor

LION = "tests.extending.lion:lion"
SCHEDULED = {"warmup_steps": 2, "schedule": "cosine", "likelihood": "calibrated", "learning_rate": 1e-4}


def assert_same_training(one: Path, other: Path) -> None:
    """The same weights, byte for byte, and the same state of the optimiser, bit for bit."""
    assert (one / "vae.safetensors").read_bytes() == (other / "vae.safetensors").read_bytes()
    (tensors, notes), (other_tensors, other_notes) = (
        unseal((out / "checkpoint.safetensors").read_bytes()) for out in (one, other)
    )
    assert notes == other_notes
    assert tensors.keys() == other_tensors.keys()
    assert all(torch.equal(tensor, other_tensors[name]) for name, tensor in tensors.items())
    assert any(name.startswith("optimizer.0.") for name in tensors)


@pytest.mark.parametrize("name", ["adamw", "sgd", LION])
def test_a_training_that_was_stopped_is_resumed_exactly(stamp_rollouts: Path, tmp_path: Path, name: str) -> None:
    settings = {**SCHEDULED, "optimizer": name, "learning_rate": 1e-6 if name == "sgd" else 1e-4}
    train(config(stamp_rollouts, tmp_path / "unbroken", **settings))
    stopped = config(stamp_rollouts, tmp_path / "stopped", **settings)
    train_until(stopped, 4)
    assert train(stopped).new_steps == 2
    assert_same_training(tmp_path / "stopped", tmp_path / "unbroken")


def test_the_training_is_not_continued_with_another_optimiser_or_more_steps_of_a_cosine(
    tiny_rollouts: Path, tmp_path: Path
) -> None:
    train_until(config(tiny_rollouts, tmp_path / "vae", **SCHEDULED), 1)
    with pytest.raises(OutputNotUsable, match="optimizer"):
        train(config(tiny_rollouts, tmp_path / "vae", **SCHEDULED, optimizer="sgd"))
    with pytest.raises(OutputNotUsable, match="schedule='cosine' is of all steps"):
        train(config(tiny_rollouts, tmp_path / "vae", **SCHEDULED, steps=9))


def test_ones_own_is_recorded_with_the_hash_of_its_file(tmp_path: Path) -> None:
    identity = config(tmp_path, tmp_path, optimizer=LION).identity()
    assert identity["optimizer"] == LION
    assert len(identity["optimizer_sha256"]) == 64


class Mine(torch.optim.AdamW):
    """Of a subclass only its own file counts, and not what PyTorch's classes are made of."""


def test_what_is_pytorchs_is_not_recorded() -> None:
    assert sha256_of_own(torch.optim.RMSprop, "torch.optim:RMSprop") == ""
    assert not [name for name in code_source(Mine, __name__) if not name.endswith(".py")]


def test_an_edit_in_an_installed_package_of_the_same_version_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "site-packages" / "my_installed.py"
    file.parent.mkdir()
    monkeypatch.syspath_prepend(file.parent)
    found = set()
    for factor in (1, 2):
        file.write_text(f"def mine(parameters, lr):\n    return {factor} * lr\n")
        monkeypatch.delitem(sys.modules, "my_installed", raising=False)
        found.add(sha256_of_own(import_module("my_installed").mine, "my_installed:mine"))
    assert len(found) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adam", "expected one of adamw, sgd, or module:factory"),
        ("no_such_module:lion", "cannot be loaded: No module named 'no_such_module'"),
        ("tests.extending.lion:none", "cannot be loaded"),
        ("tests.extending.lion:__doc__", "is not callable"),
        ("tests.extending.lion:with_history", "cannot be resumed"),
        ("builtins:dict", "cannot be built|returned a dict"),
    ],
)
def test_a_bad_one_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_optimizer(name, torch.nn.Linear(2, 2), 1e-3, 0.0)


def test_the_learning_rate_is_a_function_of_the_step() -> None:
    assert [learning_rate_factor(step, "constant", 4, 9) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [learning_rate_factor(step, "cosine", 1, 5) for step in (0, 1, 3)] == pytest.approx([1, 1, 0.5])
    assert learning_rate_factor(5, "cosine", 1, 5) == 0
