"""Alignment end to end, from a stamped frame to a forecast: rows as they are forecast well, rows one off do not."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.builders import action_space
from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.data import LatentSequences
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.progress import Silent
from worldmodel_v.schema import ActionSpace
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import TrainConfig, train

CPU = torch.device("cpu")
LENGTH = 4
TWO_ACTIONS = ActionSpace(action_space(2))


@pytest.fixture(scope="module")
def readiness() -> Iterator[ModuleType]:
    """`benchmarks/readiness.py`, which brings the example with it."""
    path = list(sys.path)
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import readiness

    yield readiness
    sys.path[:] = path


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 toy episodes, encoded by a VAE that hardly learnt: its latents are nearly a random projection of the pixels."""
    folder = tmp_path_factory.mktemp("readiness")
    collect(stamp_config(folder / "rollouts", episodes=40))
    vae = {"steps": 3, "batch_size": 16, "latent_dim": 8, "holdout_every": 4, "architecture": "mlp", "device": "cpu"}
    train(TrainConfig(data=folder / "rollouts", out=folder / "vae", **vae))
    encode(EncodeConfig(data=folder / "rollouts", vae=folder / "vae", out=folder / "latents", device="cpu"))
    return folder / "latents"


def paired(readiness: ModuleType, latents: Path, split: str, rows_off: int | None) -> object:
    """Windows of the toy latents' means, with the actions so many rows off."""
    wider = LatentSequences(latents, length=LENGTH + 2, split=split, holdout_every=4, sample=False)
    return readiness.Paired(wider, rows_off)


@pytest.mark.parametrize("rows_off", [-1, 0, 1])
def test_only_the_actions_are_off_and_by_whole_rows(readiness: ModuleType, latents: Path, rows_off: int) -> None:
    episode = open_dataset(latents).episode(0)
    window = paired(readiness, latents, "train", rows_off).batch(np.array([5]))
    rows = slice(6, 6 + LENGTH)  # window 5 begins at row 5, and one row earlier than what is inside
    np.testing.assert_array_equal(window["z"][0], episode.mu[rows])
    np.testing.assert_array_equal(window["next_z"][0], episode.mu[7 : 7 + LENGTH])
    np.testing.assert_array_equal(window["reward"][0], episode.reward[rows])
    np.testing.assert_array_equal(window["action"][0], episode.action[6 + rows_off : 6 + rows_off + LENGTH])


def linear(readiness: ModuleType, latents: Path, rows_off: int | None) -> object:
    """The linear baseline's scores on held-out toy episodes."""
    sample = paired(readiness, latents, "train", rows_off).sample_batch(2048)
    return readiness.measure(
        {"linear": readiness.baselines(sample, TWO_ACTIONS)["linear"]}, paired(readiness, latents, "held-out", rows_off), CPU
    )["linear"]


def test_rows_as_they_are_say_what_comes_and_rows_one_off_do_not(readiness: ModuleType, latents: Path) -> None:
    """z_t+1 shows the stamp of a_t, and the reward is that stamp plus the step, which z_t shows: both are near linear."""
    aligned = linear(readiness, latents, 0)
    assert aligned.reward_mse < 20
    for rows_off in (-1, 1, None):
        shifted = linear(readiness, latents, rows_off)
        assert shifted.nll > aligned.nll + 1.0
        assert shifted.reward_mse > 2000  # the variance of the stamps of uniform actions is 200² / 12 = 3,333


def trained(readiness: ModuleType, latents: Path, rows_off: int) -> object:
    """The scores of the example's MDN-RNN after a short training."""
    config = readiness.MdnRnnConfig(latents=latents, vae=Path(), out=Path(), steps=150, batch_size=32, length=LENGTH)
    data = paired(readiness, latents, "train", rows_off)
    torch.manual_seed(0)
    model = readiness.MdnRnn(data.sample_batch(512), TWO_ACTIONS)
    readiness.fit(model, data, config, CPU, Silent())
    return readiness.measure({"": model.forecast}, paired(readiness, latents, "held-out", rows_off), CPU)[""]


def test_an_mdn_rnn_learns_from_rows_as_they_are_and_not_from_actions_that_led_there(
    readiness: ModuleType, latents: Path
) -> None:
    aligned, late = trained(readiness, latents, 0), trained(readiness, latents, -1)
    assert aligned.nll < late.nll - 1.0
    assert aligned.reward_mse < late.reward_mse / 5


def test_the_table_has_a_row_for_each_forecast_with_the_spread_of_the_seeds(readiness: ModuleType) -> None:
    score = readiness.Scores
    runs = {
        "MDN-RNN": [score(-17.0, 1.5, 0.0), score(-16.0, 1.5, 0.0)],
        "linear": [score(16.0, 2.0, 0.0), score(18.0, 2.5, 0.0)],
    }
    assert readiness.table(runs).splitlines()[2:] == [
        "| MDN-RNN | -16.50 (-17.00 to -16.00) |  | 1.500 | 0.00000 |",
        "| linear | 17.00 (16.00 to 18.00) | 33.50 (33.00 to 34.00) | 2.250 (2.000 to 2.500) | 0.00000 |",
    ]
