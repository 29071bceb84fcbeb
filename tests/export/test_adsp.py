"""AppliedDataSciencePartners' series/, read as its 04_train_rnn.py (commit af1b475) reads it."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.export.conftest import ACTION, STEP, acted, write_stamp_latents
from worldmodel_v.errors import ConfigError
from worldmodel_v.export import ExportReport, export
from worldmodel_v.export.adsp import AdspConfig

HALF = 110
"""Rewards are made negative for actions whose stamp and step add up to less."""


@pytest.fixture(scope="module")
def signed_latents(equal_rollouts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stamp latents of equal length with rewards of either sign."""
    out = tmp_path_factory.mktemp("signed") / "latents"
    return write_stamp_latents(equal_rollouts, out, reward=lambda e: e.reward - HALF)


def run(data: Path, out: Path, **options: object) -> ExportReport:
    return export(AdspConfig(data=data, out=out, **options))  # type: ignore[arg-type]


def read_as_its_trainer(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Its inputs (z, action, reward before) and outputs (z after, reward after); every file in series/ is an episode."""
    batches: dict[str, list[np.ndarray]] = {"z": [], "action": [], "reward": []}
    for name in sorted(os.listdir(folder / "series")):  # noqa: PTH208  (as it does)
        with np.load(folder / "series" / name) as data:
            assert set(data) == {"mu", "log_var", "action", "reward", "done"}
            assert data["done"].dtype.kind == data["reward"].dtype.kind == "i"
            batches["z"].append(data["mu"] + np.exp(data["log_var"] / 2.0) * np.zeros(data["log_var"].shape))
            batches["action"].append(data["action"])
            batches["reward"].append(np.expand_dims(data["reward"], axis=1))
    z, action, reward = (np.array(episodes) for episodes in batches.values())
    inputs = np.concatenate([z[:, :-1, :], action[:, :-1, :], reward[:, :-1, :]], axis=2)
    return inputs, np.concatenate([z[:, 1:, :], reward[:, 1:, :]], axis=2)


def test_its_trainer_sees_every_transition_with_its_action_and_reward(signed_latents: Path, tmp_path: Path) -> None:
    report = run(signed_latents, tmp_path / "data")
    inputs, outputs = read_as_its_trainer(tmp_path / "data")
    assert inputs.shape == (8, 20, 4 + 2 + 1)
    np.testing.assert_array_equal(inputs[..., STEP], np.tile(np.arange(20), (8, 1)))
    np.testing.assert_array_equal(outputs[..., STEP], inputs[..., STEP] + 1)
    stamps, reward_after = outputs[..., ACTION], outputs[..., -1]
    assert acted(inputs[..., 4:6], stamps).all()
    positive = stamps + inputs[..., STEP] > HALF
    assert 0.2 < positive.mean() < 0.8
    np.testing.assert_array_equal(reward_after[:, :-1], positive[:, :-1])
    np.testing.assert_array_equal(inputs[:, 1:, -1], positive[:, :-1])  # the reward before is an input
    assert (inputs[:, 0, -1] == 0).all()
    assert (report.episodes, report.rows) == (8, 8 * 21)
    assert not [note for note in report.notes if "transition" in note]
    assert "rnn/arch.py: set Z_DIM to 4 and ACTION_DIM to 2; they are 32 and 3 there" in report.notes
    assert "reward: made 0 or 1, as the format's own: 1 where it is positive and the episode goes on" in report.notes


def test_done_stands_beside_the_observation_that_it_led_to_and_a_last_reward_is_none(
    signed_latents: Path, tmp_path: Path
) -> None:
    report = run(signed_latents, tmp_path / "data")
    ended = []
    for file in sorted((tmp_path / "data" / "series").iterdir()):
        with np.load(file) as data:
            assert not data["done"][:-1].any()
            assert not (data["done"][-1] and data["reward"][-1])
            ended.append(int(data["done"][-1]))
    assert 0 < sum(ended) < 8
    assert f"truncated: not held; done is terminated alone ({8 - sum(ended)} of 8 episodes were truncated)" in report.notes


def test_initial_z_is_the_first_row_of_each(signed_latents: Path, tmp_path: Path) -> None:
    run(signed_latents, tmp_path / "data")
    inputs, _ = read_as_its_trainer(tmp_path / "data")
    with np.load(tmp_path / "data" / "initial_z.npz") as initial:
        np.testing.assert_array_equal(initial["initial_mu"], inputs[:, 0, :4])
        np.testing.assert_array_equal(initial["initial_log_var"], np.tile([-1, -2, -3, -4], (8, 1)))


def test_its_batches_need_one_length(unequal_latents: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its episodes make sequences of 21 to 24 rows, adsp holds one length"):
        run(unequal_latents, tmp_path / "data")
    run(unequal_latents, tmp_path / "data", pad=True)
    inputs, outputs = read_as_its_trainer(tmp_path / "data")
    assert inputs.shape == (8, 23, 7)
    goes_on = outputs[..., STEP] > inputs[..., STEP]
    assert acted(inputs[..., 4:6], outputs[..., ACTION])[goes_on].all()
    assert not inputs[..., 4:6][~goes_on].any()
    assert not outputs[..., -1][~goes_on].any()


def test_the_data_folder_of_its_checkout_is_written_into(signed_latents: Path, tmp_path: Path) -> None:
    """The repository holds data/ by a .gitignore."""
    data = tmp_path / "data"
    data.mkdir()
    (data / ".gitignore").write_text("*\n!.gitignore\n")
    run(signed_latents, data)
    assert (data / ".gitignore").read_text() == "*\n!.gitignore\n"
    assert sorted(item.name for item in data.iterdir()) == [".gitignore", "initial_z.npz", "series", "source.json"]
    inputs, _ = read_as_its_trainer(data)
    assert inputs.shape == (8, 20, 4 + 2 + 1)
