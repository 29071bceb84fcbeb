"""A policy of a user's own, on the numbers that the environment gives, while pictures are recorded."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.extending.conftest import command
from worldmodel_v.storage import open_dataset

HERE = Path(__file__).parent


@pytest.mark.parametrize("policy", ["controller:Controller(gain=5)", "checkpoint:controller:Network:{}/w.pt"])
def test_a_policy_acts_on_the_observation_and_the_frames_are_recorded(tmp_path: Path, policy: str) -> None:
    torch.save({"gains.weight": torch.tensor([[0.0, -5.0, -1.0]])}, tmp_path / "w.pt")
    command(HERE, "wm-collect", "--out", tmp_path / "out", "--env", "Pendulum-v1", "--frames", "render", "--episodes", 1,
            "--policy", policy.format(tmp_path), "--record", "observation", "--max-steps", 20, "--workers", 0)  # fmt: skip
    dataset = open_dataset(tmp_path / "out")
    assert dataset.spec.policy_source.keys() == {"controller.py"}
    columns = dataset.episode(0).columns
    observations = columns["observation"][:-1].astype(np.float64)
    expected = np.clip(-5 * observations[:, 1:2] - observations[:, 2:], -2, 2)
    np.testing.assert_allclose(columns["action"][:-1], expected, rtol=1e-5)
    assert np.ptp(columns["pixels"]) > 0
