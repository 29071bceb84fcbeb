"""Several datasets are read as the one that `wm-select` would write of them: the same split, weights and latents."""

import dataclasses
import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands import run
from tests.conftest import stamp_config
from tests.selection.made import content, episodes_of, selected, write_latents, write_rollouts
from tests.serving import served
from worldmodel_v import inspection
from worldmodel_v.autoencoders.artifact import read_training
from worldmodel_v.cli.following import after_encode, after_train
from worldmodel_v.collection import collect
from worldmodel_v.data import Split
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.errors import ConfigError, DatasetNotUsable, OutputNotUsable, ShardDamaged
from worldmodel_v.evaluation import EvalConfig, evaluate
from worldmodel_v.execution.here import Here
from worldmodel_v.selection import open_rollouts
from worldmodel_v.spec import LatentSpec
from worldmodel_v.storage import Shard, open_dataset, verify
from worldmodel_v.training import TrainConfig, train

Paths = tuple[Path, ...]


@pytest.fixture(scope="module")
def pair(stamp_rollouts: Path, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Two collections of the toy world, of 8 and of 5 episodes, and their merge."""
    folder = tmp_path_factory.mktemp("pair")
    collect(stamp_config(folder / "other", episodes=5, policy="brownian", seed=8))
    selected(folder / "both", stamp_rollouts, folder / "other")
    return stamp_rollouts, folder / "other", folder / "both"


def training(data: Any, out: Path, **changes: Any) -> TrainConfig:
    settings = {"steps": 3, "batch_size": 16, "latent_dim": 4, "holdout_every": 4, "architecture": "mlp", "device": "cpu"}
    return TrainConfig(data=data, out=out, **{**settings, **changes})


@pytest.fixture(scope="module")
def vae(pair: Paths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE that was trained on both."""
    out = tmp_path_factory.mktemp("trained") / "vae"
    train(training(pair[:2], out))
    return out


@pytest.fixture(scope="module")
def latents(pair: Paths, vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The latents of both."""
    out = tmp_path_factory.mktemp("encoded") / "latents"
    encode(EncodeConfig(data=pair[:2], vae=vae, out=out, device="cpu"))
    return out


# What is read


def test_they_are_the_merge_that_nobody_wrote(pair: Paths) -> None:
    several, merge = open_rollouts(pair[:2]), open_dataset(pair[2])
    assert (several.spec, several.num_episodes, several.num_rows) == (merge.spec, merge.num_episodes, merge.num_rows)
    for found, expected in zip(several, merge, strict=True):
        assert (found.episode_id, found.seed, found.policy, found.origin) == (
            *(expected.episode_id, expected.seed, expected.policy),
            expected.origin,
        )
        for name, rows in expected.columns.items():
            np.testing.assert_array_equal(found.columns[name], rows, err_msg=name, strict=True)
    for entry, published in zip(several.entries, merge.entries, strict=True):
        assert several.image(entry) == merge.image(published)
        assert several.hashed(entry).sha256 == published.sha256
        with several.open_verified(entry) as shard:
            shard.check()
    assert several.episode(9).origin == merge.episode(9).origin
    assert (several.set_aside(), several.is_remote) == ([], False)
    assert repr(several) == f"Dataset('{pair[0]} + {pair[1]}': rollouts, 13 episodes, {merge.num_rows} rows)"
    assert pickle.loads(pickle.dumps(several)).episode(9).seed == several.episode(9).seed


def test_an_episode_is_on_the_side_that_its_number_in_its_collection_says(pair: Paths) -> None:
    split = Split(open_rollouts(pair[:2]), 4)
    held_out = [episode.origin for episode in episodes_of(open_rollouts(pair[:2])) if split.is_held_out(episode.episode_id)]
    assert held_out == [(0, 3), (0, 7), (1, 3)]
    with pytest.raises(DatasetNotUsable, match=r"rollouts \+ .*other: is made of other datasets; .* 0 of its 13 episodes"):
        Split(open_rollouts(pair[:2]), 9).require_both()


def test_a_selection_and_a_collection_are_read_as_their_merge(pair: Paths, tmp_path: Path) -> None:
    selected(tmp_path / "some", pair[0], drop="0,2")
    selected(tmp_path / "both", pair[1], tmp_path / "some")
    several, merge = open_rollouts([pair[1], str(tmp_path / "some")]), open_dataset(tmp_path / "both")
    assert several.spec == merge.spec
    assert [several.image(entry) for entry in several.entries] == [merge.image(entry) for entry in merge.entries]


def test_one_alone_is_itself(pair: Paths) -> None:
    assert open_rollouts(pair[0]) == open_rollouts([str(pair[0])]) == open_dataset(pair[0])


# The stages


def test_training_gives_the_bytes_of_training_on_the_merge(pair: Paths, vae: Path, tmp_path: Path) -> None:
    train(training(pair[2], tmp_path / "merge"))
    names = ("vae.safetensors", "config.json", "heldout.json", "reconstructions.png")
    assert [(vae / name).read_bytes() for name in names] == [(tmp_path / "merge" / name).read_bytes() for name in names]
    collections = tuple(open_dataset(path).spec_hash for path in pair[:2])
    assert read_training(vae).selected_from == collections
    assert read_training(vae).data_spec_hash == open_dataset(pair[2]).spec_hash


def test_a_conditional_vae_too(pair: Paths, tmp_path: Path) -> None:
    for name, data in {"several": pair[:2], "merge": pair[2]}.items():
        train(training(data, tmp_path / name, condition=("action", "step")))
    assert (tmp_path / "several/vae.safetensors").read_bytes() == (tmp_path / "merge/vae.safetensors").read_bytes()


def test_a_training_continues_with_the_same_list_alone(pair: Paths, vae: Path, tmp_path: Path) -> None:
    train(training(pair[:2], tmp_path / "vae", steps=1))
    there = open_rollouts(pair[:2]).spec_hash
    for other in (pair[1::-1], pair[:1]):
        asked = open_rollouts(other).spec_hash
        with pytest.raises(OutputNotUsable, match=f"other settings: data_spec_hash is '{there}' there, '{asked}' asked"):
            train(training(other, tmp_path / "vae"))
    train(training(pair[:2], tmp_path / "vae"))
    assert (tmp_path / "vae/vae.safetensors").read_bytes() == (vae / "vae.safetensors").read_bytes()


def test_latents_have_the_bytes_of_those_of_the_merge(pair: Paths, vae: Path, latents: Path, tmp_path: Path) -> None:
    encode(EncodeConfig(data=pair[2], vae=vae, out=tmp_path / "merge", device="cpu"))
    assert content(latents) == content(tmp_path / "merge")
    encode(EncodeConfig(data=pair[:2], vae=vae, out=tmp_path / "sent", device="cpu"), executor=Here())
    assert content(latents) == content(tmp_path / "sent")
    dataset = open_dataset(latents, LatentSpec)
    assert verify(dataset) == []
    assert [episode.origin for episode in dataset] == [(0, i) for i in range(8)] + [(1, i) for i in range(5)]
    assert dataset.spec.trained_on == tuple(open_dataset(path).spec_hash for path in pair[:2])
    for data in (pair[:2], pair[2]):
        inspection.require_binding(latents, data=data, vae=vae)
    with pytest.raises(DatasetNotUsable, match=r"000000.h5: was not encoded from the .*other/shards/000000.h5 that is there"):
        inspection.require_binding(latents, data=pair[1::-1], vae=None)
    shutil.copytree(latents, tmp_path / "copy")
    (tmp_path / "copy/index.jsonl").write_text((latents / "index.jsonl").read_text().splitlines(keepends=True)[2])
    with pytest.raises(DatasetNotUsable, match=rf"000002.h5: was not encoded from {pair[1]}; encode into a new"):
        inspection.require_binding(tmp_path / "copy", data=pair[1], vae=None)


def test_encoding_continues_with_the_same_list_alone(pair: Paths, vae: Path, latents: Path, tmp_path: Path) -> None:
    out = shutil.copytree(latents, tmp_path / "latents")
    lines = (out / "index.jsonl").read_text().splitlines(keepends=True)
    (out / "index.jsonl").write_text("".join(lines[:-2]))
    for number in (3, 4):
        (out / f"shards/00000{number}.h5").unlink()
    config = EncodeConfig(data=pair[:2], vae=vae, out=out, device="cpu")
    there, asked = (open_dataset(path).spec_hash for path in pair[:2])
    with pytest.raises(OutputNotUsable) as refused:
        encode(dataclasses.replace(config, data=pair[1::-1]))
    assert f"source.selection.datasets[0].spec_hash is '{there}' there, '{asked}' asked" in str(refused.value)
    report = encode(config)
    assert (report.episodes, 0 < report.new_rows < report.rows) == (13, True)
    assert content(out) == content(latents)
    assert encode(config).new_rows == 0


@pytest.mark.usefixtures("short_search")
def test_an_evaluation_has_the_figures_of_the_merge(pair: Paths, vae: Path, tmp_path: Path) -> None:
    reports = [
        evaluate(EvalConfig(vae=vae, data=data, out=tmp_path / str(number), frames=30, device="cpu"))
        for number, data in enumerate((pair[:2], pair[2]))
    ]
    assert reports[0].summary == reports[1].summary
    assert reports[0].summary.num_episodes == 3
    found, expected = (json.loads((report.out / "metrics.json").read_text()) for report in reports)
    assert found["identity"] == expected["identity"]
    assert found["training"]["on_this_data"]
    assert f"{pair[0]} + {pair[1]}" in reports[0].page.read_text()


def test_datasets_behind_urls_give_the_same_bytes(pair: Paths, vae: Path, latents: Path, tmp_path: Path) -> None:
    with served(pair[1].parent) as files:
        data = (pair[0], f"{files.url}/{pair[1].name}")
        assert open_rollouts(data).is_remote
        train(training(data, tmp_path / "vae"))
        encode(EncodeConfig(data=data, vae=vae, out=tmp_path / "latents", device="cpu"))
    assert (tmp_path / "vae/vae.safetensors").read_bytes() == (vae / "vae.safetensors").read_bytes()
    assert content(tmp_path / "latents") == content(latents)


def test_the_commands_take_several_and_suggest_them(pair: Paths, latents: Path, tmp_path: Path) -> None:
    words = ["--steps", 3, "--batch-size", 16, "--latent-dim", 4, "--holdout-every", 4, "--architecture", "mlp"]
    out, data = tmp_path / "vae", ["--data", *pair[:2]]
    run("wm-train", *data, "--out", out, *words, "--device", "cpu")
    run("wm-encode", *data, "--vae", out, "--out", tmp_path / "latents", "--device", "cpu")
    assert content(tmp_path / "latents") == content(latents)
    run("wm-inspect", tmp_path / "latents", *data, "--vae", out)
    _, line = run("wm-train", "--out", tmp_path / "no", "--data", "--steps", 3, code=2)
    assert "data: expected at least one dataset" in line
    assert next(after_train(training(pair[:2], out), None))[:3] == ["wm-eval", *data[:2]]
    config = EncodeConfig(data=pair[:2], vae=out, out=tmp_path / "latents")
    assert next(after_encode(config, None)) == ["wm-inspect", config.out, "--verify", *data, "--vae", out]


# Refusals


def test_the_same_episode_twice_is_refused_by_name(pair: Paths, tmp_path: Path) -> None:
    selected(tmp_path / "part", pair[0], episodes="2-4")
    first = open_dataset(pair[0]).spec_hash[:12]
    for twice, number, episode in ((pair[0], 8, 0), (tmp_path / "part", 3, 2)):
        with pytest.raises(DatasetNotUsable) as refused:
            open_rollouts([pair[0], pair[1], twice])
        assert str(refused.value) == (
            f"{number} episodes are chosen twice, such as episode {episode} of the collection {first}…, which is in {pair[0]} "
            f"and in {twice}; name each dataset once, or choose other parts of them with wm-select"
        )


def test_datasets_that_do_not_agree_are_refused_by_field(pair: Paths, vae: Path, tmp_path: Path) -> None:
    one, other = write_rollouts(tmp_path / "one", 2), write_rollouts(tmp_path / "other", 2, noise=1, frame_skip=4)
    text = f"{other}: frame_skip is 'not set' in {one}, 4 here; give datasets that agree in them"
    for attempt in (
        lambda: train(training((one, other), tmp_path / "vae")),
        lambda: encode(EncodeConfig(data=(one, other), vae=vae, out=tmp_path / "latents")),
    ):
        with pytest.raises(DatasetNotUsable) as refused:
            attempt()
        assert str(refused.value) == text
    with pytest.raises(DatasetNotUsable, match="expected a dataset of worldmodel_v/rollouts"):
        open_rollouts([one, write_latents(tmp_path / "latents", 2)])
    assert not (tmp_path / "vae").exists()


def test_damage_is_named_where_it_is(pair: Paths, vae: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(pair[1], tmp_path / "damaged")
    file = damaged / "shards/000001.h5"
    image = file.read_bytes()
    with Shard.from_bytes(image, open_dataset(pair[1]).schema) as opened:
        place = int(opened.pixel_places()[0, 0]) + 9
    file.write_bytes(image[:place] + bytes([image[place] ^ 1]) + image[place + 1 :])
    assert hashlib.sha256(file.read_bytes()).hexdigest() != open_dataset(pair[1]).entries[1].sha256
    with pytest.raises(ShardDamaged, match=r"damaged/shards/000001.h5: SHA-256 is"):
        encode(EncodeConfig(data=(pair[0], damaged), vae=vae, out=tmp_path / "latents", device="cpu"))
    with pytest.raises(ShardDamaged, match=r"damaged/shards/000001.h5: pixel chunk 0 .* fails its checksum"):
        train(training((pair[0], damaged), tmp_path / "vae"))


def test_strings_and_paths_one_or_several_and_none(tmp_path: Path) -> None:
    place = tmp_path / "a"
    for given in (place, str(place), [place], (str(place),)):
        for config in (TrainConfig(data=given, out="o"), EncodeConfig(data=given, vae="v", out="o")):
            assert config.data == (place,)
    assert EvalConfig(vae="v", out="o", data=[place, "s3://bucket/b"]).data == (place, "s3://bucket/b")
    with pytest.raises(ConfigError, match=r"^data: expected at least one dataset"):
        TrainConfig(data=[], out="o")
