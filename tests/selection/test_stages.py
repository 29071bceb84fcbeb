"""A selection is a dataset as any other: it survives kills, the stages take it, and latents know what made its episodes."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.commands import run
from tests.conftest import stamp_config
from tests.faults.kills import killed_behind
from tests.selection.made import assert_same_content, content, episodes_of, selected, write_rollouts
from worldmodel_v import inspection
from worldmodel_v.collection import collect
from worldmodel_v.data import LatentSequences
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.export import FORMATS, export
from worldmodel_v.records import Origin
from worldmodel_v.spec import LatentSpec, RolloutSpec
from worldmodel_v.storage import open_dataset, verify
from worldmodel_v.training import TrainConfig, train


def test_killed_behind_every_step_the_same_again_gives_the_same_bytes(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "one", 5), write_rollouts(tmp_path / "other", 2, noise=1)
    selected(tmp_path / "undisturbed", *data, drop="1")
    expected = content(tmp_path / "undisturbed")
    assert len(expected) == 2 + 3
    step = 0
    while killed_behind(step, lambda: selected(tmp_path / f"killed-{step}", *data, drop="1")):  # noqa: B023  (it is done at once)
        selected(out := tmp_path / f"killed-{step}", *data, drop="1")
        assert content(out) == expected, step
        step += 1
    assert step > 20


@pytest.fixture(scope="module")
def halves(stamp_rollouts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two collections of the toy world by two policies, and their selection."""
    folder = tmp_path_factory.mktemp("halves")
    collect(stamp_config(folder / "other", episodes=3, policy="brownian", seed=8))
    selected(folder / "both", stamp_rollouts, folder / "other", where="episode != 1")
    return folder / "other", folder / "both"


def test_training_encoding_and_windows_take_a_selection(
    stamp_rollouts: Path, halves: tuple[Path, Path], tmp_path: Path
) -> None:
    _, both = halves
    settings = {"steps": 2, "batch_size": 16, "latent_dim": 4, "holdout_every": 4, "architecture": "mlp", "device": "cpu"}
    train(TrainConfig(data=both, out=tmp_path / "vae", **settings))
    encode(EncodeConfig(data=both, vae=tmp_path / "vae", out=tmp_path / "latents", device="cpu"))
    latents = open_dataset(tmp_path / "latents", LatentSpec)
    assert verify(latents) == []
    inspection.require_binding(tmp_path / "latents", data=both, vae=tmp_path / "vae")
    origins = [Origin(0, i) for i in (0, 2, 3, 4, 5, 6, 7)] + [Origin(1, 0), Origin(1, 2)]
    assert [each.origin for each in episodes_of(both)] == [each.origin for each in episodes_of(latents)] == origins
    assert len(LatentSequences(tmp_path / "latents", length=4)) > 0

    # latents of a selection are selected from, and still name the collections
    selected(tmp_path / "some", tmp_path / "latents", where="policy == 'brownian' or episode < 2")
    some = open_dataset(tmp_path / "some", LatentSpec)
    assert [each.origin for each in episodes_of(some)] == [Origin(0, 0), Origin(0, 2), Origin(1, 0), Origin(1, 2)]
    assert [origin["settings"]["policy"] for origin in some.spec.selection["origins"]] == ["random", "brownian"]
    assert some.spec.selection["origins"][0]["spec_hash"] == open_dataset(stamp_rollouts).spec_hash
    assert some.spec.selection["datasets"][0]["selection"]["where"] == "episode != 1"
    assert len(LatentSequences(tmp_path / "some", length=4)) > 0


def test_selecting_before_encoding_gives_the_latents_of_selecting_after_it(
    stamp_rollouts: Path, stamp_latents: Path, stamp_vae: Path, tmp_path: Path
) -> None:
    """Up to the last bits that the size of a batch changes."""
    selected(tmp_path / "rollouts", stamp_rollouts, drop="0,4")
    encode(EncodeConfig(data=tmp_path / "rollouts", vae=stamp_vae, out=tmp_path / "before", device="cpu"))
    selected(tmp_path / "after", stamp_latents, drop="0,4")
    for before, after in zip(episodes_of(tmp_path / "before"), episodes_of(tmp_path / "after"), strict=True):
        assert (before.episode_id, before.seed, before.origin) == (after.episode_id, after.seed, after.origin)
        np.testing.assert_array_equal(before.action, after.action)
        np.testing.assert_allclose(before.mu, after.mu, atol=1e-5)


def test_an_episode_of_a_selection_can_be_played_again(stamp_rollouts: Path, halves: tuple[Path, Path], tmp_path: Path) -> None:
    """From what dataset.json has of its original."""
    other, both = halves
    last = episodes_of(both)[-1]
    assert last.origin == Origin(1, 2)
    original = open_dataset(both, RolloutSpec).spec.selection["origins"][last.origin.dataset]
    assert original["spec_hash"] == open_dataset(other).spec_hash
    settings = original["settings"]
    again = stamp_config(tmp_path / "again", episodes=3, policy=settings["policy"], seed=settings["seed"])
    collect(again)
    played = open_dataset(tmp_path / "again").episode(last.origin.episode)
    assert (played.seed, played.policy) == (last.seed, last.policy)
    np.testing.assert_array_equal(played.pixels, last.pixels)


def test_the_command_selects_says_so_and_refuses_in_a_line(
    stamp_rollouts: Path, halves: tuple[Path, Path], tmp_path: Path
) -> None:
    other, _ = halves
    out = tmp_path / "out"
    words = ["wm-select", "--data", stamp_rollouts, other, "--out", out, "--where", "source == 1 or return > 1000"]
    said, told = run(*words, "--json")
    report = json.loads(said)
    assert report["episodes"] == report["new_episodes"] == len(episodes_of(out))
    assert report["chosen_from"] == 11
    assert "select: shard 0 committed" in told
    assert run(*words, "--quiet") == (run(*words, "--quiet")[0], "")
    shown, _ = run("wm-inspect", out, "--verify", COLUMNS="200")
    assert "selected           where source == 1 or return > 1000" in shown
    assert "made by            env worldmodel_v/Stamp-v0, policy random, seed 7, spec_hash" in shown
    assert "\nsettings           max_steps" in shown.replace(" \n", "\n")
    _, line = run("wm-select", "--data", other, "--out", tmp_path / "no", "--where", "__import__('os')", code=2)
    assert line.count("\n") == 1
    assert "(Call) is not allowed; compare facts with numbers and texts; the names are episode, return" in line
    _, line = run("wm-collect", "--env", "worldmodel_v/Stamp-v0", "--out", out, "--workers", 0, "--quiet", code=2)
    assert "holds episodes that were selected from other datasets" in line


def test_an_export_says_where_each_episode_comes_from(halves: tuple[Path, Path], tmp_path: Path) -> None:
    export(FORMATS["npz"](data=halves[1], out=tmp_path / "npz"))
    episodes = json.loads((tmp_path / "npz/source.json").read_text())["episodes"]
    assert episodes[-1]["origin"] == {"dataset": 1, "episode": 2}
    assert [each["origin"]["episode"] for each in episodes] == [0, 2, 3, 4, 5, 6, 7, 0, 2]


def test_whole_content_is_that_of_the_sources(stamp_rollouts: Path, halves: tuple[Path, Path], tmp_path: Path) -> None:
    other, _ = halves
    selected(tmp_path / "out", stamp_rollouts, other)
    assert_same_content(episodes_of(tmp_path / "out"), episodes_of(stamp_rollouts) + episodes_of(other))
