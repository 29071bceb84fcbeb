"""A training loop of one's own makes the weights that `train` makes."""

from pathlib import Path

import torch

from tests.extending.own_loop import train_until
from tests.training.test_train import config, lines
from worldmodel_v.training import train


def test_a_loop_of_ones_own_in_two_goes_makes_the_same_training(stamp_rollouts: Path, tmp_path: Path) -> None:
    train(config(stamp_rollouts, tmp_path / "theirs"))
    own = config(stamp_rollouts, tmp_path / "own")
    losses = train_until(own, 4) + train_until(own, 6)
    assert losses == [record["loss"] for record in lines(tmp_path / "theirs", "train")]
    assert train(own).new_steps == 0
    assert (tmp_path / "own" / "vae.safetensors").read_bytes() == (tmp_path / "theirs" / "vae.safetensors").read_bytes()


def test_the_callers_random_numbers_go_on_as_if_nothing_had_been(stamp_rollouts: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    train(config(stamp_rollouts, tmp_path / "vae"))
    assert torch.equal(torch.random.get_rng_state(), before)
