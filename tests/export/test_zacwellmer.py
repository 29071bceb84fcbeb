"""zacwellmer's series.npz, read as its rnn_train.py reads it."""

from pathlib import Path

import numpy as np

from tests.export.conftest import ACTION, STEP, acted
from worldmodel_v.export import ExportReport, export
from worldmodel_v.export.zacwellmer import ZacwellmerConfig


def run(data: Path, out: Path, **options: object) -> ExportReport:
    return export(ZacwellmerConfig(data=data, out=out, **options))  # type: ignore[arg-type]


def read_as_its_trainer(folder: Path) -> dict[str, np.ndarray]:
    """Inputs and targets of whole sequences: the latents' targets are the next row, reward's and done's the row itself.

    A done row's latent target is masked, and so are reward and done after a done row.
    """
    with np.load(folder / "series.npz") as raw:
        z, action, reward, done = (raw[name] for name in ("mu", "action", "reward", "done"))
        assert raw["N"].shape == reward.shape == done.shape == (*z.shape[:2], 1)
        assert (raw["N"].dtype, reward.dtype, done.dtype) == (np.uint16, np.float16, np.bool_)
    ended = done.astype(np.float16)
    before = np.concatenate([np.ones((len(z), 1, 1)), 1.0 - ended[:, :-1]], axis=1)
    targets = np.concatenate([z[:, 1:], np.zeros((len(z), 1, z.shape[2]), np.float16)], axis=1)
    z_counts = (1.0 - ended)[..., 0].astype(bool)
    z_counts[:, -1] = False
    return {
        **{"z": z, "action": action, "next_z": targets, "z_counts": z_counts},
        **{"reward": reward[..., 0], "done": done[..., 0], "outcome_counts": before[..., 0].astype(bool)},
    }


def test_its_trainer_sees_each_row_with_its_action_reward_and_done(equal_latents: Path, tmp_path: Path) -> None:
    report = run(equal_latents, tmp_path / "series")
    rows = read_as_its_trainer(tmp_path / "series")
    assert rows["z"].shape == (8, 20, 4)
    counts = rows["z_counts"]
    np.testing.assert_array_equal(rows["next_z"][counts][:, STEP], rows["z"][counts][:, STEP] + 1)
    stamps = rows["next_z"][:, :-1, ACTION]
    assert acted(rows["action"][:, :-1], stamps).all()
    np.testing.assert_array_equal(rows["reward"][:, :-1], stamps + rows["z"][:, :-1, STEP])
    assert not (rows["reward"][:, 1:-1] == stamps[:, :-1] + rows["z"][:, :-2, STEP]).all()
    truncated = int((~rows["done"][:, -1]).sum())
    assert 0 < truncated < 8
    assert not rows["done"][:, :-1].any()
    assert f"truncated: not held; done is terminated alone ({truncated} of 8 episodes were truncated)" in report.notes
    assert "final observation: not held, so the last transition of 8 episodes is missing" in report.notes
    (note,) = [note for note in report.notes if note.startswith("rnn_train.py")]
    assert note.endswith("looks at 1000 sequences for initial_z.json; set range(8) there, and rnn_batch_size to at most 8")
    assert (tmp_path / "series" / "initial_z.json").exists()


def test_nothing_that_padding_adds_counts_in_its_losses(unequal_latents: Path, tmp_path: Path) -> None:
    report = run(unequal_latents, tmp_path / "series", pad=True, length=30)
    rows = read_as_its_trainer(tmp_path / "series")
    assert rows["z"].shape == (8, 30, 4)
    num_steps = rows["z"][..., STEP].max(axis=1).astype(int)
    for position, last in enumerate(num_steps):
        assert np.flatnonzero(rows["z_counts"][position]).tolist() == list(range(last - 1))
        assert np.flatnonzero(rows["outcome_counts"][position]).tolist() == list(range(last))
        assert np.flatnonzero(rows["done"][position]).tolist() == list(range(last - 1, 30))
        stamps = rows["next_z"][position, :last, ACTION]
        assert acted(rows["action"][position, :last], stamps).all()
        np.testing.assert_array_equal(rows["reward"][position, :last], stamps + np.arange(last))
    assert "done: True in padding, by which the trainer masks it" in report.notes
