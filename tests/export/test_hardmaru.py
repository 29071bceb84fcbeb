"""hardmaru's series.npz, read as carracing/rnn_train.py reads it."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.builders import latent_spec, made_latent_schema, make_latents
from tests.export.conftest import ACTION, STEP, acted
from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.export import ExportReport, export
from worldmodel_v.export.hardmaru import HardmaruConfig
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset


def run(data: Path, out: Path, **options: object) -> ExportReport:
    return export(HardmaruConfig(data=data, out=out, **options))  # type: ignore[arg-type]


def read_as_its_trainer(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(z_t, a_t, z_t+1) of every sequence at once: the trainer's inputs are rows 0 to -2, its targets rows 1 to -1.

    z is its mean here, not a draw.
    """
    with np.load(folder / "series.npz") as raw:
        mu, logvar, action = raw["mu"], raw["logvar"], raw["action"]
    assert {mu.dtype, logvar.dtype, action.dtype} == {np.dtype(np.float16)}
    z = mu + np.exp(logvar / 2.0) * np.zeros(logvar.shape)
    inputs = np.concatenate((z[:, :-1, :], action[:, :-1, :]), axis=2)
    width = z.shape[2]
    return inputs[..., :width], inputs[..., width:], z[:, 1:, :]


def test_its_trainer_sees_each_latent_with_the_action_chosen_on_it_and_where_that_led(
    equal_latents: Path, tmp_path: Path
) -> None:
    report = run(equal_latents, tmp_path / "series")
    z, action, next_z = read_as_its_trainer(tmp_path / "series")
    assert z.shape == (8, 19, 4)
    assert action.shape == (8, 19, 2)
    np.testing.assert_array_equal(z[..., STEP], np.tile(np.arange(19), (8, 1)))
    np.testing.assert_array_equal(next_z[..., STEP], z[..., STEP] + 1)
    assert acted(action, next_z[..., ACTION]).all()
    assert not acted(action[:, 1:], next_z[:, :-1, ACTION]).all()  # a shift by one row would show
    assert (report.episodes, report.rows) == (8, 160)
    assert "final observation: not held, so the last transition of 8 episodes is missing" in report.notes
    assert "reward, terminated, truncated: not held" in report.notes
    assert "state: not held (4 factors)" in report.notes
    assert "rnn_train.py: set max_seq_len to 19; it is 999 there" in report.notes
    assert "rnn_train.py: set input_seq_width to 6 and output_seq_width to 4; they are 35 and 32 there" in report.notes
    assert "rnn_train.py: set batch_size to at most 8; it is 100 there" in report.notes


def test_initial_z_holds_the_first_latents_times_10000_as_whole_numbers(equal_latents: Path, tmp_path: Path) -> None:
    run(equal_latents, tmp_path / "series")
    mu, logvar = json.loads((tmp_path / "series" / "initial_z.json").read_text())
    with np.load(tmp_path / "series" / "series.npz") as raw:
        assert mu == (raw["mu"][:1000, 0, :].astype(np.float64) * 10000).astype(int).tolist()
    assert logvar == [[-10000, -20000, -30000, -40000]] * 8


def test_what_float16_costs_is_said_in_units_of_sigma(stamp_latents: Path, tmp_path: Path) -> None:
    report = run(stamp_latents, tmp_path / "series", pad=True)
    sequences = [open_dataset(stamp_latents).episode(i) for i in range(8)]
    change = {name: np.concatenate([rounding(getattr(sequence, name)) for sequence in sequences]) for name in ("mu", "logvar")}
    sigma = np.concatenate([np.exp(sequence.logvar / 2) for sequence in sequences])
    largest, in_sigma = max(rows.max() for rows in change.values()), (change["mu"] / sigma).max()
    assert (
        f"mu and logvar: rounded to float16, by at most {largest:.2g}; a mu moves by at most {in_sigma:.2g} of its σ"
        in report.notes
    )


def rounding(rows: np.ndarray) -> np.ndarray:
    return np.abs(rows - rows.astype(np.float16).astype(np.float32))


def test_initial_z_holds_values_that_float16_times_10000_would_not(equal_latents: Path, tmp_path: Path) -> None:
    """Its rnn_train.py (commit fd982b9) needs NumPy below 1.24 (`np.int`), where float16 times 10000 is float32, so it writes
    the same."""
    report = run(equal_latents, tmp_path / "series")
    mu, _ = json.loads((tmp_path / "series" / "initial_z.json").read_text())
    with np.load(tmp_path / "series" / "series.npz") as raw:
        assert mu == (raw["mu"][:1000, 0].astype(np.float32) * 10000).astype(int).tolist()
    assert np.max(mu) > np.finfo(np.float16).max
    assert [note for note in report.notes if "initial_z" in note] == []


def test_unequal_episodes_need_a_choice(unequal_latents: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run(unequal_latents, tmp_path / "out")
    assert str(caught.value) == (
        f"{unequal_latents}: its episodes make sequences of 20 to 23 rows, hardmaru holds one length; choose pad=True (shorter "
        "ones are continued) or truncate=True (longer ones are cut), alone or to a length"
    )
    with pytest.raises(ConfigError, match="holds one length and length=21 is asked; choose"):
        run(unequal_latents, tmp_path / "out", length=21)
    assert not (tmp_path / "out").exists()


def test_truncated_they_are_as_long_as_the_shortest(unequal_latents: Path, tmp_path: Path) -> None:
    report = run(unequal_latents, tmp_path / "series", truncate=True)
    z, action, next_z = read_as_its_trainer(tmp_path / "series")
    assert z.shape == (8, 19, 4)
    np.testing.assert_array_equal(next_z[..., STEP], z[..., STEP] + 1)
    assert acted(action, next_z[..., ACTION]).all()
    num_steps = np.array([open_dataset(unequal_latents).episode(i).num_steps for i in range(8)])
    longer, lost = (num_steps > 20).sum(), (num_steps - 20).sum()
    assert lost > 0
    assert (
        f"unequal lengths: {longer} episodes are cut to 20 rows; {lost} of {num_steps.sum()} rows are left out" in report.notes
    )


def test_truncated_to_a_length_the_shorter_ones_are_left_out_by_name(unequal_latents: Path, tmp_path: Path) -> None:
    report = run(unequal_latents, tmp_path / "series", truncate=True, length=22)
    z, _, _ = read_as_its_trainer(tmp_path / "series")
    kept = [episode["episode_id"] for episode in json.loads((tmp_path / "series" / "source.json").read_text())["episodes"]]
    assert z.shape == (len(kept), 21, 4)
    assert report.episodes == len(kept) < 8
    left_out = ", ".join(str(episode) for episode in range(8) if episode not in kept)
    assert (
        f"unequal lengths: {8 - len(kept)} of 8 episodes have fewer than 22 rows and are left out ({left_out})" in report.notes
    )


def test_padded_they_go_on_with_the_final_observation_and_no_action(unequal_latents: Path, tmp_path: Path) -> None:
    report = run(unequal_latents, tmp_path / "series", pad=True)
    z, action, next_z = read_as_its_trainer(tmp_path / "series")
    assert z.shape == (8, 22, 4)
    for position in range(8):
        num_steps = int(next_z[position, :, STEP].max())
        np.testing.assert_array_equal(z[position, :, STEP], np.minimum(np.arange(22), num_steps))
        real = slice(0, min(num_steps, 22))
        assert acted(action[position, real], next_z[position, real, ACTION]).all()
        assert not action[position, num_steps:].any()
    (note,) = [note for note in report.notes if note.startswith("unequal lengths")]
    assert "rows are padding (the final observation again, no action, no reward)" in note


def test_a_length_that_no_episode_has_is_refused(unequal_latents: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotUsable, match=r"no episode has 50 rows \(the longest has 23\); lower length, or use pad=True"):
        run(unequal_latents, tmp_path / "out", truncate=True, length=50)
    assert not (tmp_path / "out").exists()


def test_padding_and_truncating_at_once_is_refused(unequal_latents: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pad=True: is the opposite of truncate=True; choose one"):
        run(unequal_latents, tmp_path / "out", pad=True, truncate=True)
    with pytest.raises(ConfigError, match="length: expected 2 to 1000000, got 1"):
        run(unequal_latents, tmp_path / "out", pad=True, length=1)


def test_discrete_actions_are_one_hot(discrete_latents: Path, tmp_path: Path) -> None:
    report = run(discrete_latents, tmp_path / "series")
    _, action, next_z = read_as_its_trainer(tmp_path / "series")
    assert action.shape == (8, 19, 5)
    assert (action.sum(axis=2) == 1).all()
    np.testing.assert_array_equal(action.argmax(axis=2) + 1, next_z[..., ACTION])
    assert "action: discrete, written one-hot over the 5 values of its space" in report.notes


def test_what_its_trainer_takes_as_it_stands_needs_no_word_of_its_code(tmp_path: Path) -> None:
    spec = latent_spec(made_latent_schema(32, action_size=3))
    with DatasetWriter(tmp_path / "data", spec) as writer:
        for shard in range(10):
            sequences = [make_latents(10 * shard + i, 1000, latent_dim=32, action_size=3) for i in range(10)]
            attributes = {"vae_sha256": spec.vae_sha256, "source_sha256": "b" * 64}
            writer.commit(shard, build_shard(sequences, spec_hash=spec.hash, attributes=attributes))
    report = run(tmp_path / "data", tmp_path / "series")
    with np.load(tmp_path / "series" / "series.npz") as raw:
        assert {name: raw[name].shape for name in raw} == {
            **{"mu": (100, 1000, 32), "logvar": (100, 1000, 32), "action": (100, 1000, 3)}
        }
    assert [note for note in report.notes if "rnn_train.py" in note] == []
