"""Further columns that a user asks for: recorded beside the frames, and there in latents, windows and exports."""

import json
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (its filters, for an export)
import numpy as np
import pytest

from tests.extending.conftest import command
from worldmodel_v.data import LatentSequences
from worldmodel_v.storage import open_dataset, verify

HERE = Path(__file__).parent
RECORD = ("info.speed", "observation.depth", "info.lap.number")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rollouts, a VAE and latents of the world with depth, by the commands."""
    folder = tmp_path_factory.mktemp("columns")
    rollouts, vae, latents = (str(folder / name) for name in ("rollouts", "vae", "latents"))
    command(HERE, "wm-collect", "--out", rollouts, "--env", "depth_world:Depth-v0", "--policy", "random", "--episodes", 4,
            "--frame-size", 16, "--episodes-per-shard", 2, "--workers", 0, "--record", *RECORD)  # fmt: skip
    command(HERE, "wm-train", "--data", rollouts, "--out", vae, "--steps", 4, "--batch-size", 8, "--architecture", "mlp",
            "--holdout-every", 2, "--latent-dim", 3, "--condition", "action", "--device", "cpu")  # fmt: skip
    command(HERE, "wm-encode", "--data", rollouts, "--vae", vae, "--out", latents, "--device", "cpu")
    return folder


def test_the_picture_is_the_frame_and_the_parts_stand_beside_it(made: Path) -> None:
    dataset = open_dataset(made / "rollouts")
    assert dataset.spec.frames == "observation.image"
    assert verify(dataset) == []
    columns = {column.name: column for column in dataset.schema.by_role("extra")}
    assert {name: (column.dtype, column.row_shape, column.fill) for name, column in columns.items()} == {
        "info.speed": ("float64", (), "nan"),
        "observation.depth": ("float32", (4, 5), None),
        "info.lap.number": ("int64", (), -(2**63)),
    }
    for number in range(4):
        episode = dataset.episode(number)
        steps = np.arange(21)
        assert episode.pixels[:, 5 + 16 - 16, 0, 0].shape == (21,)
        assert [int(frame[(t + 1) % 16, 0, 0]) for t, frame in enumerate(episode.pixels)] == [10 * t % 256 for t in steps]
        speed, depth = episode.columns["info.speed"], episode.columns["observation.depth"]
        assert np.isnan(speed[0])
        np.testing.assert_array_equal(depth[1:, 0, 0], (steps[1:] + speed[1:]).astype(np.float32))
        np.testing.assert_allclose(np.diff(speed[1:]), 0.5 * episode.action[1:-1])
        assert episode.columns["info.lap.number"][1:].tolist() == (steps[1:] // 7).tolist()


def test_actions_that_begin_below_zero_are_none_of_them_taken_for_no_action(made: Path) -> None:
    dataset = open_dataset(made / "rollouts")
    assert dataset.schema.action.fill == -2
    actions = np.concatenate([dataset.episode(i).action for i in range(4)])
    assert set(actions.tolist()) == {-2, -1, 0, 1}
    assert json.loads((made / "vae" / "config.json").read_text())["model"]["condition_dim"] == 3
    assert dataset.schema.actions.vectors(np.array([-1, 1, -2])).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_they_pass_into_the_latents_and_plain_h5py_reads_them(made: Path) -> None:
    rollouts, latents = open_dataset(made / "rollouts"), open_dataset(made / "latents")
    assert verify(latents) == []
    for number in range(4):
        for name in RECORD:
            np.testing.assert_array_equal(latents.episode(number).columns[name], rollouts.episode(number).columns[name])
    with h5py.File(made / "latents" / "shards" / "000000.h5") as file:
        np.testing.assert_array_equal(file["observation.depth"][:21], rollouts.episode(0).columns["observation.depth"])


def test_windows_hold_each_beside_the_observation_that_the_action_was_chosen_on(made: Path) -> None:
    latents = open_dataset(made / "latents")
    data = LatentSequences(made / "latents", length=5, stride=5, sample=False)
    window, episode = data[1], latents.episode(0)
    for name in RECORD:
        np.testing.assert_array_equal(window[name].numpy(), episode.columns[name][5:10])
    np.testing.assert_array_equal(window["action"].numpy(), episode.action[5:10])
    np.testing.assert_array_equal(window["z"].numpy(), episode.mu[5:10])


@pytest.mark.parametrize(
    ("name", "source", "held"), [("npz", "rollouts", True), ("minari", "rollouts", True), ("ctallec", "rollouts", False),
                                 ("hardmaru", "latents", False), ("stable-worldmodel", "latents", True)]
)  # fmt: skip
def test_exports_hold_them_or_say_that_they_do_not(made: Path, tmp_path: Path, name: str, source: str, held: bool) -> None:
    said = command(HERE, "wm-export", name, "--data", made / source, "--out", tmp_path / "out-v0")
    assert [f"{column}: not held" in said for column in RECORD] == [not held] * 3
    if name == "npz":
        with np.load(tmp_path / "out-v0" / "000002.npz") as file:
            np.testing.assert_array_equal(file["info.speed"], open_dataset(made / source).episode(2).columns["info.speed"])
    if name == "stable-worldmodel":
        with h5py.File(tmp_path / "out-v0" / "dataset.h5") as file:
            assert file["observation.depth"].shape == (84, 4, 5)
            assert file["ep_idx"][20:23].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("speed", "--record speed: names no part; expected observation, observation.KEY or info.KEY"),
        (
            "info.sped",
            "--record info.sped: the environment gives no such part; expected one of observation.image, observation.depth, "
            "info.speed, info.lap.number",
        ),
        ("observation.depths", "--record observation.depths: the environment gives no such part"),
        ("observation", "; expected a number or an array of numbers"),
    ],
)
def test_what_is_not_there_is_refused_by_name(tmp_path: Path, path: str, text: str) -> None:
    arguments = ("--env", "depth_world:Depth-v0", "--policy", "random", "--workers", 0, "--record", path)
    said = command(HERE, "wm-collect", "--out", tmp_path / "out", *arguments, code=2)
    assert text in said
    assert not (tmp_path / "out").exists()


def test_the_users_file_is_short() -> None:
    assert len((HERE / "depth_world.py").read_text().splitlines()) <= 40
    assert sys.version_info >= (3, 11)
