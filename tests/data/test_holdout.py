"""An episode that an autoencoder was trained on is never held out: before a selection or after it, told or not told."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import stamp_config
from tests.selection.made import episodes_of, selected, write_latents, write_rollouts
from worldmodel_v.autoencoders.artifact import read_training
from worldmodel_v.collection import collect
from worldmodel_v.data import LatentSequences, LatentStream, Split
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.records import Origin
from worldmodel_v.spec import LatentSpec
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import TrainConfig, train
from worldmodel_v.training.trainer import open_training

COLLECTION = f"{0:064}"
"""The `spec_hash` of the collection that `write_latents` names."""


def in_split(path: Path, split: str, **settings: Any) -> list[Origin]:
    """Where the episodes in a split come from: those whose whole is one item."""
    sequences = LatentSequences(path, length=None, split=split, **settings)
    rewards = [sequences[item]["reward"][sequences[item]["mask"]].tolist() for item in range(len(sequences))]
    episodes = {tuple(each.reward[:-1].tolist()): each for each in episodes_of(path)}
    found = [episodes[tuple(each)] for each in rewards]
    return [each.origin or Origin(0, each.episode_id) for each in found]


def numbers(path: Path, split: str, **settings: Any) -> list[int]:
    return [origin.episode for origin in in_split(path, split, **settings)]


def test_latents_know_what_their_vae_was_not_trained_on(stamp_rollouts: Path, stamp_latents: Path) -> None:
    spec = open_dataset(stamp_latents, LatentSpec).spec
    assert (spec.holdout_every, spec.trained_on) == (4, (open_dataset(stamp_rollouts).spec_hash,))
    assert in_split(stamp_latents, "held-out") == in_split(stamp_latents, "held-out", holdout_every=4)
    assert numbers(stamp_latents, "held-out") == [3, 7]
    assert numbers(stamp_latents, "train") == [0, 1, 2, 4, 5, 6]


def test_a_selection_moves_no_episode_to_the_other_side(
    stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path, tmp_path: Path
) -> None:
    selected(tmp_path / "some", stamp_rollouts, drop="0,2")
    encode(EncodeConfig(data=tmp_path / "some", vae=stamp_vae, out=tmp_path / "before", device="cpu"))
    selected(tmp_path / "after", stamp_latents, drop="0,2")
    selected(tmp_path / "twice", tmp_path / "after", drop="0")
    for latents, trained in {"before": [1, 4, 5, 6], "after": [1, 4, 5, 6], "twice": [4, 5, 6]}.items():
        assert numbers(tmp_path / latents, "held-out") == [3, 7], latents
        assert numbers(tmp_path / latents, "train") == trained, latents


def test_a_training_on_a_selection_holds_out_the_same_episodes(stamp_rollouts: Path, tmp_path: Path) -> None:
    """Whatever is encoded later: the selection, or all of what it was selected from."""
    collect(stamp_config(tmp_path / "other", episodes=4, seed=8))
    selected(tmp_path / "both", stamp_rollouts, tmp_path / "other", where="episode != 1")
    settings = {"steps": 1, "batch_size": 8, "latent_dim": 2, "holdout_every": 4, "architecture": "mlp", "device": "cpu"}
    config = TrainConfig(data=tmp_path / "both", out=tmp_path / "vae", **settings)
    with open_training(config) as run:
        trained_on = {each.origin for each in episodes_of(tmp_path / "both") if run.is_trained_on(each.episode_id)}
    assert trained_on == {*(Origin(0, i) for i in (0, 2, 4, 5, 6)), Origin(1, 0), Origin(1, 2)}
    train(config)
    training = read_training(config.out)
    assert training.selected_from == tuple(open_dataset(path).spec_hash for path in (stamp_rollouts, tmp_path / "other"))
    encode(EncodeConfig(data=tmp_path / "both", vae=tmp_path / "vae", out=tmp_path / "latents", device="cpu"))
    assert in_split(tmp_path / "latents", "held-out") == [Origin(0, 3), Origin(0, 7), Origin(1, 3)]
    assert {*in_split(tmp_path / "latents", "train")} == trained_on
    encode(EncodeConfig(data=stamp_rollouts, vae=tmp_path / "vae", out=tmp_path / "whole", device="cpu"))
    assert numbers(tmp_path / "whole", "held-out") == [3, 7]
    with pytest.raises(ConfigError, match=r"holdout_every=5: the VAE of .* with every 4th held out"):
        in_split(tmp_path / "whole", "held-out", holdout_every=5)


@pytest.mark.parametrize("kind", [LatentSequences, LatentStream])
def test_another_number_is_refused_where_the_vae_saw_the_episodes(kind: Any, tmp_path: Path) -> None:
    latents = write_latents(tmp_path / "latents", 6, holdout_every=3, trained_on=(COLLECTION,))
    with pytest.raises(ConfigError) as caught:
        kind(latents, length=2, split="train", holdout_every=2)
    assert str(caught.value) == (
        f"holdout_every=2: the VAE of {latents} was trained on these episodes with every 3rd held out, so others are no test; "
        "leave it out"
    )
    assert kind(latents, length=2, split="all", holdout_every=2)
    selected(tmp_path / "some", latents, drop="0")
    with pytest.raises(ConfigError, match="with every 3rd held out"):
        kind(tmp_path / "some", length=2, split="held-out", holdout_every=2)


def test_a_collection_that_the_vae_never_saw_is_split_as_one_likes(tmp_path: Path) -> None:
    latents = write_latents(tmp_path / "latents", 6, holdout_every=3, trained_on=("f" * 64,))
    assert numbers(latents, "held-out") == [2, 5]
    assert numbers(latents, "held-out", holdout_every=2) == [1, 3, 5]


def test_latents_that_do_not_say_need_the_number(tmp_path: Path) -> None:
    latents = write_latents(tmp_path / "latents", 6)
    assert "holdout_every" not in open_dataset(latents).spec.settings()
    with pytest.raises(ConfigError, match=r"holdout_every: .* does not say which episodes the training of its VAE held out"):
        LatentSequences(latents, length=2, split="train")
    assert numbers(latents, "held-out", holdout_every=2) == [1, 3, 5]
    assert len(LatentSequences(latents, length=None)) == 6


@pytest.mark.parametrize(("episodes", "held_out"), [("0,1,4", 0), ("2,5", 2)])
def test_a_selection_with_nothing_on_one_side_is_refused_for_training(episodes: str, held_out: int, tmp_path: Path) -> None:
    selected(tmp_path / "some", write_rollouts(tmp_path / "all", 6), episodes=episodes)
    split = Split(open_dataset(tmp_path / "some"), 3)
    text = f"every 3rd episode of those held out, {held_out} of its {len(episodes) // 2 + 1} episodes are, and both sides need"
    with pytest.raises(DatasetNotUsable, match=text):
        split.require_both()
    assert pickle.loads(pickle.dumps(split)).is_held_out(1) == split.is_held_out(1)


def test_a_record_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    latents = write_latents(tmp_path / "latents", 2, holdout_every=2, trained_on=(COLLECTION,))
    file = latents / "dataset.json"
    described = json.loads(file.read_text())
    for name, value in {"holdout_every": 1, "trained_on": [5]}.items():
        file.write_text(json.dumps({**described, "spec": described["spec"] | {name: value}}))
        with pytest.raises(DatasetNotUsable, match=rf"not a valid description of a dataset .*{name}: expected"):
            open_dataset(latents)
