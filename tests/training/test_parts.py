"""A batch in parts, which threads compute at once: the step of the whole batch, the same bytes under any load."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.builders import run_python
from worldmodel_v.autoencoders.gaussian import VAE, Posterior
from worldmodel_v.device import resolve_device
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import TrainConfig, parts
from worldmodel_v.training.run import TrainingRun

NUM_STEPS = 4


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    """As on three cores, wherever this runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def small_run(data: Path, **settings: object) -> TrainingRun:
    """Batches of 50, which three do not divide, with everything that is of the whole batch."""
    small = {"batch_size": 50, "latent_dim": 8, "learning_rate": 1e-4, "beta_warmup_steps": 4, "holdout_every": 4}
    recipe = {"architecture": "conv", "likelihood": "calibrated", "free_bits": 0.01, "condition": ("action",)}
    config = TrainConfig(data=data, out=Path(), **{**small, **recipe, **settings})  # type: ignore[arg-type]
    return TrainingRun(config, {}, resolve_device("cpu"), open_dataset(data), None)


def steps(training: TrainingRun, number: int = NUM_STEPS) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The terms of some steps, and the state after them."""
    batches = training.batches()
    terms = [{name: float(value) for name, value in training.take_step(next(batches)).items()} for _ in range(number)]
    batches.close()
    return terms, {name: tensor.clone() for name, tensor in training.checkpoint().tensors.items()}


@pytest.mark.parametrize("settings", [{}, {"checkpoint_activations": True}, {"likelihood": "bernoulli"}], ids=str)
def test_parts_together_make_the_step_of_the_batch(
    tiny_rollouts: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    """To within the order of float32 sums: a relative 1e-5 in each term, and a tenth of one update in weights."""
    in_parts, weights = steps(small_run(tiny_rollouts, **settings))
    monkeypatch.setattr(parts, "MOST_PARTS", 1)
    whole, weights_of_whole = steps(small_run(tiny_rollouts, **settings))
    assert in_parts != whole
    for part, one in zip(in_parts, whole, strict=True):
        assert part == pytest.approx(one, rel=1e-5)
    for name, tensor in weights_of_whole.items():
        if name.startswith("model."):
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5)


def test_parts_in_bfloat16_are_near_the_batch(tiny_rollouts: Path) -> None:
    (part,), _ = steps(small_run(tiny_rollouts, precision="bf16"), 1)
    (full,), _ = steps(small_run(tiny_rollouts, precision="fp32"), 1)
    assert part["loss"] != full["loss"]
    assert part["loss"] == pytest.approx(full["loss"], rel=0.02)


def test_other_programs_on_the_cores_change_no_byte(tiny_rollouts: Path) -> None:
    terms, state = steps(small_run(tiny_rollouts))
    count = [sys.executable, "-S", "-c", "while True: pass"]
    programs = [subprocess.Popen(count) for _ in range(8)]
    try:
        loaded_terms, loaded_state = steps(small_run(tiny_rollouts))
    finally:
        for program in programs:
            program.kill()
            program.wait()
    assert loaded_terms == terms
    for name, tensor in state.items():
        torch.testing.assert_close(loaded_state[name], tensor, rtol=0, atol=0)


def test_a_training_that_is_continued_makes_the_same_steps(tiny_rollouts: Path) -> None:
    terms, state = steps(small_run(tiny_rollouts))
    first = small_run(tiny_rollouts)
    steps(first, 2)
    second = TrainingRun(first.config, {}, first.device, first.dataset, first.checkpoint())
    later, found = steps(second, NUM_STEPS - 2)
    assert later == terms[2:]
    for name, tensor in state.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_the_number_of_threads_is_as_before_after_a_step(tiny_rollouts: Path) -> None:
    training = small_run(tiny_rollouts)
    steps(training, 1)
    assert torch.get_num_threads() == 3
    assert len(training._parts._models) == 3


def test_a_part_for_each_thread_while_parts_are_large_enough() -> None:
    assert [parts.num_parts(rows) for rows in (1, 31, 32, 48, 1000)] == [1, 1, 2, 3, 3]


def test_an_autoencoder_that_does_not_ask_for_parts_has_its_batches_whole(tiny_rollouts: Path) -> None:
    assert len(small_run(tiny_rollouts, architecture="mlp")._parts._models) == 1


def test_an_error_in_one_part_ends_the_waiting_of_the_others(tiny_rollouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = small_run(tiny_rollouts)
    original = VAE.posterior

    def failing(model: VAE, *inputs: torch.Tensor) -> Posterior:
        if model is training._parts._models[1]:
            raise MemoryError("as much as that")
        return original(model, *inputs)

    monkeypatch.setattr(VAE, "posterior", failing)
    with pytest.raises(MemoryError, match="as much as that"):
        steps(training, 1)


def test_commands_let_waiting_threads_sleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, sys, worldmodel_v.cli.main\nassert 'torch' not in sys.modules\nprint(os.environ['OMP_WAIT_POLICY'])"
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert run_python(code) == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert run_python(code) == "active"
