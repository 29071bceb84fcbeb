"""zacwellmer's series.npz, read as its rnn_train.py (commit 7b82637) and rnn/rnn.py (commit 2640ade) read it."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.builders import latent_spec, made_latent_schema, make_latents, with_columns
from tests.export.conftest import ACTION, STEP, acted
from worldmodel_v.errors import ConfigError
from worldmodel_v.export import ExportReport, export
from worldmodel_v.export.zacwellmer import ZacwellmerConfig
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset


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


def sigma_as_its_sample_vae(mu: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """It joins mu and logvar along the axis of time, and takes the exponential of the second half for σ."""
    theta = np.concatenate([mu, logvar], axis=1)
    return np.exp(theta[:, mu.shape[1] :].astype(np.float32))


def sigma_as_its_dream_begins(initial_z: Path) -> np.ndarray:
    """env.py (commit bff35b9) undoes the factor of 10000 and halves."""
    _, logvar = json.loads(initial_z.read_text())
    return np.exp(np.array(logvar) / 10000.0 / 2.0)


def test_what_it_draws_has_the_posteriors_spread(equal_latents: Path, tmp_path: Path) -> None:
    report = run(equal_latents, tmp_path / "series")
    sequences = [open_dataset(equal_latents).episode(i) for i in range(8)]
    expected = np.stack([np.exp(sequence.logvar[:-1] / 2) for sequence in sequences])
    with np.load(tmp_path / "series" / "series.npz") as raw:
        np.testing.assert_array_equal(sigma_as_its_sample_vae(raw["mu"], raw["logvar"]), expected)
    np.testing.assert_allclose(sigma_as_its_dream_begins(tmp_path / "series" / "initial_z.json"), expected[:, 0])
    said = "logvar: series.npz holds log σ (half of logvar), because sample_vae of rnn/rnn.py takes exp(logvar) for σ"
    assert said in report.notes
    (note,) = [note for note in report.notes if note.startswith("initial_z.json")]
    assert note.startswith("initial_z.json: holds log σ², because env.py takes exp(logvar / 2) for σ; copy it to tf_initial_z")


def test_the_settings_of_its_config_that_the_data_does_not_meet_are_said(equal_latents: Path, tmp_path: Path) -> None:
    report = run(equal_latents, tmp_path / "series")
    assert (
        "configs/carracing.config: set rnn_max_seq_len=20, a_width=2, z_size=4, rnn_input_seq_width=6; "
        "they are 1000, 3, 32, 35 there"
    ) in report.notes
    spec = latent_spec(made_latent_schema(32, action_size=3))
    with DatasetWriter(tmp_path / "data", spec) as writer:
        sequences = [make_latents(i, 1000, latent_dim=32, action_size=3) for i in range(2)]
        attributes = {"vae_sha256": spec.vae_sha256, "source_sha256": "b" * 64}
        writer.commit(0, build_shard(sequences, spec_hash=spec.hash, attributes=attributes))
    report = run(tmp_path / "data", tmp_path / "as_it_is")
    assert [note for note in report.notes if "config" in note] == []


@pytest.mark.parametrize("name", ["reward", "mu"])
def test_a_number_that_float16_cannot_hold_is_refused_and_not_written_as_infinite(name: str, tmp_path: Path) -> None:
    spec, episode = latent_spec(), make_latents()
    large = episode.columns[name] * 0 + np.float32(2e5)
    with DatasetWriter(tmp_path / "latents", spec) as writer:
        large_one = with_columns(episode, **{name: large})
        writer.commit(0, build_shard([large_one], spec_hash=spec.hash, attributes={"vae_sha256": "a" * 64}))
    with pytest.raises(ConfigError, match=f"episode 0: {name} has values beyond 65504, which float16 cannot hold"):
        run(tmp_path / "latents", tmp_path / "out")
    assert not (tmp_path / "out").exists()
