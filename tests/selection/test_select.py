"""Merge, filter, split and drop: what is chosen is there row by row, and nothing else."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.builders import make_episode, rollout_spec
from tests.selection.made import (
    PER_SHARD,
    VAE,
    assert_same_content,
    content,
    episodes_of,
    policy_of,
    selected,
    write_latents,
    write_rollouts,
)
from tests.serving import served
from worldmodel_v.errors import ConfigError, DatasetNotUsable, OutputNotUsable, ShardDamaged
from worldmodel_v.records import Episode, Origin
from worldmodel_v.selection import SelectConfig, select
from worldmodel_v.spec import LatentSpec, RolloutSpec
from worldmodel_v.storage import DatasetWriter, Shard, build_shard, open_dataset, verify


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rollouts(tmp_path_factory.mktemp("one") / "rollouts", 8)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rollouts(tmp_path_factory.mktemp("other") / "rollouts", 5, noise=1, max_steps=99)


def numbers(out: Path) -> list[Origin]:
    """Where each episode comes from."""
    return [episode.origin for episode in episodes_of(out) if episode.origin is not None]


# Merge


def test_a_merge_holds_both_row_by_row(one: Path, other: Path, tmp_path: Path) -> None:
    before = content(one), content(other)
    report = selected(tmp_path / "both", one, other)
    merged = open_dataset(tmp_path / "both", RolloutSpec)
    assert verify(merged) == []
    assert_same_content(episodes_of(merged), episodes_of(one) + episodes_of(other))
    assert (report.episodes, report.chosen_from, report.new_episodes, report.rows) == (13, 13, 13, merged.num_rows)
    assert report.shards == report.copied_shards == 5
    assert [entry.num_episodes for entry in merged.entries] == [3, 3, 2, 3, 2]
    assert before == (content(one), content(other))


def test_chunks_of_whole_shards_are_those_of_the_source(one: Path, tmp_path: Path) -> None:
    selected(tmp_path / "out", one, drop="0")
    source, out = open_dataset(one), open_dataset(tmp_path / "out")
    assert [entry.num_episodes for entry in out.entries] == [2, 3, 2]
    with source.open_shard(source.entries[1]) as before, out.open_shard(out.entries[1]) as after:
        assert after.stored("pixels", 0) == before.stored("pixels", 0)
        assert after.stored("ep_idx", 0) != before.stored("ep_idx", 0)


def test_a_copied_shard_has_the_bytes_of_one_that_is_built_anew(one: Path, tmp_path: Path) -> None:
    """Whoever made the shard: only where compression is another one would they differ."""
    selected(tmp_path / "out", one)
    out = open_dataset(tmp_path / "out")
    for entry in out.entries:
        with out.open_shard(entry) as shard:
            episodes = [shard.episode(position) for position in range(shard.num_episodes)]
        assert build_shard(episodes, spec_hash=out.spec_hash) == out.image(entry)


def test_settings_that_differ_are_named_and_kept_for_each_original(one: Path, other: Path, tmp_path: Path) -> None:
    selected(tmp_path / "both", one, other)
    spec = open_dataset(tmp_path / "both", RolloutSpec).spec
    sources = [open_dataset(path, RolloutSpec) for path in (one, other)]
    assert spec.selection["origins"] == [
        {"spec_hash": source.spec_hash, "settings": source.spec.settings()} for source in sources
    ]
    assert spec.selection["differ"] == ["max_steps", "policy", "seed"]
    assert [each["episodes"] for each in spec.selection["datasets"]] == [8, 5]
    assert spec.policy == f"{policy_of(0)} + {policy_of(1)}"
    assert numbers(tmp_path / "both") == [*(Origin(0, i) for i in range(8)), *(Origin(1, i) for i in range(5))]


def test_the_order_in_which_shards_were_committed_changes_nothing(one: Path, tmp_path: Path) -> None:
    lines = (one / "index.jsonl").read_text().splitlines(keepends=True)
    copy = shutil.copytree(one, tmp_path / "copy")
    (copy / "index.jsonl").write_text("".join(reversed(lines)))
    selected(tmp_path / "a", one, sample=3)
    selected(tmp_path / "b", copy, sample=3)
    assert content(tmp_path / "a") == content(tmp_path / "b")


# Filter, drop, split, draw


def chosen(out: Path) -> list[int]:
    return [origin.episode for origin in numbers(out)]


def returns(path: Path) -> list[float]:
    return [episode.episode_return for episode in episodes_of(path)]


def test_a_filter_keeps_what_the_condition_holds_for(one: Path, tmp_path: Path) -> None:
    middle = sorted(returns(one))[4]
    report = selected(tmp_path / "out", one, where=f"return >= {middle} and not truncated")
    expected = [each for each in episodes_of(one) if each.episode_return >= middle and each.terminated.any()]
    assert 0 < len(expected) < 8
    assert verify(open_dataset(tmp_path / "out")) == []
    assert_same_content(episodes_of(tmp_path / "out"), expected)
    assert report.chosen_from == 8


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("episode in (1, 5)", [1, 5, 1]),
        ("source == 1 and episode < 2", [0, 1]),
        ("length == 6 or seed == 103", [2, 2, 3]),
        ("policy == 'policy-1' and terminated", [0, 2, 4]),
        ("'-1' in policy and truncated != False", [1, 3]),
        ("3 <= episode < 5 and source not in [1]", [3, 4]),
        ("not (source == 0 or episode > -1 and episode != 4)", [4]),
    ],
)
def test_conditions_know_the_facts_of_each_episode(
    where: str, expected: list[int], one: Path, other: Path, tmp_path: Path
) -> None:
    selected(tmp_path / "out", one, other, where=where)
    assert chosen(tmp_path / "out") == expected


def test_episodes_are_listed_and_dropped_by_number(one: Path, tmp_path: Path) -> None:
    selected(tmp_path / "kept", one, episodes="6, 0-2,2")
    assert chosen(tmp_path / "kept") == [0, 1, 2, 6]
    selected(tmp_path / "dropped", one, drop="6,0-2")
    assert chosen(tmp_path / "dropped") == [3, 4, 5, 7]
    assert open_dataset(tmp_path / "kept", RolloutSpec).spec.selection["episodes"] == "0-2,6"


@pytest.mark.parametrize("more", [{}, {"seed": 3}])
def test_a_split_is_disjoint_and_complete_and_each_part_has_of_each(
    more: dict[str, int], one: Path, other: Path, tmp_path: Path
) -> None:
    selected(tmp_path / "train", one, other, share="0.75", **more)
    selected(tmp_path / "test", one, other, share="0.75:1", **more)
    train, test = numbers(tmp_path / "train"), numbers(tmp_path / "test")
    assert [sum(origin.dataset == source for origin in train) for source in (0, 1)] == [6, 3]
    assert sorted(train + test) == [*(Origin(0, i) for i in range(8)), *(Origin(1, i) for i in range(5))]
    assert (chosen(tmp_path / "train")[:6] == [*range(6)]) == (not more)
    selected(tmp_path / "again", tmp_path / "train", tmp_path / "test")
    assert sorted(numbers(tmp_path / "again")) == sorted(train + test)


def test_a_draw_is_a_function_of_its_seed(one: Path, tmp_path: Path) -> None:
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        selected(tmp_path / name, one, sample=4, seed=seed)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert chosen(tmp_path / "a") == sorted(chosen(tmp_path / "a")) != chosen(tmp_path / "c")
    selected(tmp_path / "all", one, sample=8)
    assert chosen(tmp_path / "all") == [*range(8)]
    assert open_dataset(tmp_path / "all", RolloutSpec).spec.selection["seed"] == 0


def test_parts_of_shards_are_put_together_up_to_the_largest_of_the_sources(one: Path, other: Path, tmp_path: Path) -> None:
    selected(tmp_path / "out", one, other, drop="1,4")
    assert [entry.num_episodes for entry in open_dataset(tmp_path / "out").entries] == [3, 1, 2, 3]
    assert verify(open_dataset(tmp_path / "out")) == []


# Selections of selections, and latents


def test_a_selection_of_a_selection_still_names_the_original(one: Path, other: Path, tmp_path: Path) -> None:
    selected(tmp_path / "both", one, other)
    selected(tmp_path / "second", tmp_path / "both", where="episode >= 8")
    spec, plain = (open_dataset(path, RolloutSpec).spec for path in (tmp_path / "second", other))
    assert (spec.policy, spec.seed, spec.max_steps) == (plain.policy, plain.seed, plain.max_steps) != (policy_of(0), 0, 1000)
    assert [origin["spec_hash"] for origin in spec.selection["origins"]] == [plain.hash]
    assert spec.selection["differ"] == []
    assert numbers(tmp_path / "second") == [Origin(0, i) for i in range(5)]
    selected(tmp_path / "late", tmp_path / "both", where="episode >= 7")
    assert numbers(tmp_path / "late") == [Origin(0, 7), *(Origin(1, i) for i in range(5))]
    selected(tmp_path / "other-way", tmp_path / "late", one, where="source == 0 or episode == 2")
    assert numbers(tmp_path / "other-way") == [Origin(0, 7), *(Origin(1, i) for i in range(5)), Origin(0, 2)]
    record = open_dataset(tmp_path / "other-way", RolloutSpec).spec.selection
    assert [origin["settings"]["policy"] for origin in record["origins"]] == [policy_of(0), policy_of(1)]
    assert record["datasets"][0]["selection"]["where"] == "episode >= 7"
    assert record["datasets"][0]["selection"]["datasets"][0]["selection"]["differ"] == ["max_steps", "policy", "seed"]


def test_latents_are_selected_likewise(tmp_path: Path) -> None:
    one, other = write_latents(tmp_path / "one", 4), write_latents(tmp_path / "other", 3, noise=1)
    selected(tmp_path / "out", one, other, drop="3")
    out = open_dataset(tmp_path / "out", LatentSpec)
    assert verify(out) == []
    expected = [each for path in (one, other) for each in episodes_of(path) if each.episode_id != 3]
    assert_same_content(episodes_of(out), expected)
    assert (out.spec.vae_sha256, out.spec.source["policy"]) == (VAE, f"{policy_of(0)} + {policy_of(1)}")
    assert out.spec.selection["differ"] == ["policy", "seed", "source_spec_hash"]
    assert [origin["settings"]["seed"] for origin in out.spec.selection["origins"]] == [0, 1]
    assert all(entry.source_sha256 is None for entry in out.entries)
    assert numbers(tmp_path / "out")[3:] == [Origin(1, 0), Origin(1, 1), Origin(1, 2)]


def test_latents_in_shards_of_another_vae_are_refused(tmp_path: Path) -> None:
    latents = write_latents(tmp_path / "latents", 2, vae_sha256="e" * 64)
    described = json.loads((latents / "dataset.json").read_text())
    with DatasetWriter(tmp_path / "mixed", open_dataset(latents, LatentSpec).spec) as writer:
        image = build_shard(episodes_of(latents), spec_hash=described["spec_hash"], attributes={"vae_sha256": VAE})
        writer.commit(0, image)
    with pytest.raises(DatasetNotUsable, match=r"000000.h5: was not made by the VAE that dataset.json names"):
        selected(tmp_path / "out", tmp_path / "mixed")


def test_latents_of_the_second_of_two_collections_name_it_alone(tmp_path: Path) -> None:
    one, other = write_latents(tmp_path / "one", 2), write_latents(tmp_path / "other", 2, noise=1)
    selected(tmp_path / "both", one, other)
    selected(tmp_path / "second", tmp_path / "both", where="episode > 1")
    spec, plain = (open_dataset(path, LatentSpec).spec for path in (tmp_path / "second", other))
    assert (spec.source, spec.source_spec_hash) == (plain.source, plain.source_spec_hash)
    assert (spec.selection["differ"], len(spec.selection["origins"])) == ([], 1)


def test_a_dataset_behind_a_url_is_selected_from_as_from_a_disk(one: Path, other: Path, tmp_path: Path) -> None:
    selected(tmp_path / "here", one, other, drop="1")
    with served(one.parent) as files:
        select(SelectConfig(data=(f"{files.url}/{one.name}", other), out=tmp_path / "there", drop="1"))
    assert content(tmp_path / "there") == content(tmp_path / "here")


# Refusals


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"crop": "0:84,0:96"}, "crop is 'full' in .*one, '0:84,0:96' here"),
        ({"resize": "bilinear"}, "resize is 'area' in"),
        ({"frames": "render"}, "frames is 'observation' in"),
        ({"frame_skip": 4}, "frame_skip is 'not set' in .*one, 4 here"),
    ],
)
def test_rollouts_whose_rows_mean_something_else_are_refused(settings: dict, named: str, tmp_path: Path) -> None:
    one = write_rollouts(tmp_path / "one", 2, crop="full", resize="area", frames="observation")
    base = {"crop": "full", "resize": "area", "frames": "observation"}
    other = write_rollouts(tmp_path / "other", 2, noise=1, **base | settings)
    with pytest.raises(DatasetNotUsable, match=f"other: {named}.*; select from them apart$"):
        selected(tmp_path / "out", one, other)
    assert not (tmp_path / "out").exists()


def test_other_latents_columns_and_kinds_are_refused(one: Path, tmp_path: Path) -> None:
    latents = write_latents(tmp_path / "latents", 2)
    others = {
        "vae_sha256 is 'bbb.* here": write_latents(tmp_path / "vae", 2, noise=1, vae_sha256="d" * 64),
        "precision is 'fp32' in": write_latents(tmp_path / "precision", 2, noise=1, precision="bf16"),
        "crop is 'full' in .*, '0:9,0:9' here": write_latents(tmp_path / "crop", 2, noise=1, source={"crop": "0:9,0:9"}),
        "latents holds latents, this one rollouts": one,
    }
    for named, other in others.items():
        with pytest.raises(DatasetNotUsable, match=named):
            selected(tmp_path / "out", latents, other)


def test_an_episode_is_never_in_a_dataset_twice(one: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotUsable, match="8 episodes are chosen twice, such as episode 0 of the collection"):
        selected(tmp_path / "out", one, one)
    selected(tmp_path / "part", one, episodes="0-3")
    with pytest.raises(DatasetNotUsable, match="4 episodes are chosen twice"):
        selected(tmp_path / "out", tmp_path / "part", one)
    selected(tmp_path / "whole", tmp_path / "part", one, where="source == 0 or episode > 3")
    assert chosen(tmp_path / "whole") == [*range(8)]


def test_shards_of_another_size_make_no_other_episodes(one: Path, tmp_path: Path) -> None:
    again = write_rollouts(tmp_path / "again", 8, per_shard=2, episodes_per_shard=7)
    text = f"8 episodes are chosen twice, such as episode 0 of the collection .* which is in {one} and in {again}"
    with pytest.raises(DatasetNotUsable, match=text):
        selected(tmp_path / "out", one, again)
    loop = write_rollouts(tmp_path / "loop", 8, noise=1, seed=0, policy=policy_of(0), episodes_per_shard=7)
    assert selected(tmp_path / "both", one, loop).episodes == 16  # of a user's own loop: other episodes


def test_what_chooses_nothing_is_refused_and_leaves_nothing(one: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DatasetNotUsable, match="no episode of 8 is selected"):
        selected(out, one, where="length > 1000")
    with pytest.raises(ConfigError, match=r"episodes='0-99': not all of 0-99 are there; they are 0 to 7"):
        selected(out, one, episodes="0-99")
    with pytest.raises(ConfigError, match=r"episodes='0,9-12': there is no episode 9-12; they are 0 to 7"):
        selected(out, one, episodes="9-12,0")
    with pytest.raises(DatasetNotUsable, match="3 episodes are left to draw 4 from; lower sample"):
        selected(out, one, episodes="0-2", sample=4)
    assert not out.exists()


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        *[
            ({"episodes": text}, "episodes: expected numbers and ranges such as 0,3,10-20")
            for text in ("", "a", "3-1", "-1", "1,,2")
        ],
        *[
            ({"share": text}, "share: expected a part of 0 to 1, such as 0.9, 0:0.9 or 0.9:1")
            for text in ("", "0", "1.1", "0.5:0.5", "0.9:0.1", "1/0", "nan", "0:1:1", "-0.1:1", "1e-3")
        ],
        ({"sample": 0}, "sample: expected at least 1"),
        ({"seed": 3}, "seed=3: draws nothing; give share or sample"),
        ({"data": ()}, "data: expected at least one dataset"),
        ({"out": "here/below"}, "lies in here, which is only read"),
        ({"out": "here"}, "lies in here, which is only read"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(asked: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        SelectConfig(**{"data": ("here",), "out": "there", **asked})


def test_one_path_alone_may_be_given(one: Path, tmp_path: Path) -> None:
    assert SelectConfig(data=str(one), out=tmp_path).data == SelectConfig(data=(one,), out=tmp_path).data == (one,)  # type: ignore[arg-type]


# Continuing


def test_the_same_again_does_nothing_and_another_selection_is_refused(one: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    selected(out, one, other, where="episode > 1", share="0:0.5")
    before = content(out)
    assert selected(out, one, other, where="episode > 1", share="0.5").new_episodes == 0
    with pytest.raises(OutputNotUsable, match=r"selection.where is 'episode > 1' there, 'episode > 2' asked; use those"):
        selected(out, one, other, where="episode > 2", share="0.5")
    with pytest.raises(OutputNotUsable, match=r"selection.datasets\[1\].episodes is 5 there, 'not set' asked"):
        selected(out, one, where="episode > 1", share="0.5")
    assert content(out) == before


def test_no_other_command_continues_a_selection_nor_a_selection_another_dataset(one: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    selected(out, one)
    with pytest.raises(
        OutputNotUsable, match="holds episodes that were selected from other datasets, and this command does not"
    ):
        DatasetWriter(out, open_dataset(one).spec)
    with pytest.raises(OutputNotUsable, match="holds a dataset that was not selected from others"):
        selected(write_rollouts(tmp_path / "plain", 2), one)


def test_a_damaged_source_is_named_and_a_repaired_one_continues(one: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(one, source)
    shard = source / "shards/000002.h5"
    whole = shard.read_bytes()
    with Shard.from_bytes(whole, open_dataset(one).schema) as opened:
        place = int(opened.pixel_places()[0, 0]) + 9
    shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ShardDamaged, match=r"000002.h5"):
        selected(out, source)
    shard.write_bytes(whole)
    selected(out, source)
    selected(tmp_path / "undisturbed", one)
    assert content(out) == content(tmp_path / "undisturbed")


@pytest.mark.parametrize("kind", ["flipped", "without filters"])
def test_a_chunk_that_is_wrong_is_not_copied_even_where_the_index_knows_its_bytes(kind: str, one: Path, tmp_path: Path) -> None:
    """As a stranger could make it."""
    source = tmp_path / "source"
    shutil.copytree(one, source)
    shard = source / "shards/000001.h5"
    if kind == "flipped":
        image = shard.read_bytes()
        with Shard.from_bytes(image, open_dataset(one).schema) as opened:
            place = int(opened.pixel_places()[0, 0]) + 9
        shard.write_bytes(image[:place] + bytes([image[place] ^ 1]) + image[place + 1 :])
    else:
        with h5py.File(shard, "r+", libver=("v110", "v110")) as file:
            rows = file["pixels"]
            rows.id.write_direct_chunk((0, 0, 0, 0), bytes(rows.chunks[0] * 192), filter_mask=3)
    lines = [json.loads(line) for line in (source / "index.jsonl").read_text().splitlines()]
    lines[1] |= {"bytes": shard.stat().st_size, "sha256": hashlib.sha256(shard.read_bytes()).hexdigest()}
    (source / "index.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(ShardDamaged, match=r"000001.h5: chunk 0 of pixels fails its checksum"):
        selected(tmp_path / "out", source)


def test_a_record_of_a_collection_that_is_none_is_refused(one: Path, other: Path, tmp_path: Path) -> None:
    selected(tmp_path / "both", one, other)
    spec = open_dataset(tmp_path / "both", RolloutSpec).spec
    for wrong in ({"seed": "seven"}, {"unknown": 3}):
        origins = [{**origin, "settings": origin["settings"] | wrong} for origin in spec.selection["origins"]]
        selection = spec.selection | {"origins": origins, "differ": ["seed", *wrong]}
        changed = dataclasses.replace(spec, selection=selection)
        path = tmp_path / next(iter(wrong))
        with DatasetWriter(path, changed) as writer:
            writer.commit(0, build_shard(episodes_of(tmp_path / "both")[:PER_SHARD], spec_hash=changed.hash))
        with pytest.raises(DatasetNotUsable, match=r"dataset.json names a collection with settings that are none \("):
            selected(tmp_path / "out", path)


def test_shards_without_origins_in_a_selection_are_refused(one: Path, tmp_path: Path) -> None:
    selected(tmp_path / "out", one)
    spec = open_dataset(tmp_path / "out", RolloutSpec).spec

    def of(name: str, episodes: list[Episode]) -> Path:
        with DatasetWriter(tmp_path / name, spec) as writer:
            writer.commit(0, build_shard(episodes[:PER_SHARD], spec_hash=spec.hash))
        return tmp_path / name

    beyond = [dataclasses.replace(each, origin=Origin(9, each.episode_id)) for each in episodes_of(one)]
    for path in (of("none", episodes_of(one)), of("beyond", beyond)):
        with pytest.raises(ShardDamaged, match="does not say of each episode which of the datasets"):
            selected(tmp_path / "again", path)


def test_a_return_that_nobody_recorded_is_no_condition(tmp_path: Path) -> None:
    """It is NaN, so `not return > 0` chose every episode."""
    episode = make_episode()
    columns = [dataclasses.replace(column, absent=column.name == "reward") for column in episode.schema.columns]
    schema = dataclasses.replace(episode.schema, columns=tuple(columns))
    rows = {**episode.columns, "reward": np.full_like(episode.reward, np.nan)}
    with DatasetWriter(tmp_path / "data", rollout_spec(schema)) as writer:
        writer.commit(0, build_shard([dataclasses.replace(episode, schema=schema, columns=rows)], spec_hash=writer.spec.hash))
    with pytest.raises(ConfigError, match=r"where='not return > 0': asks for the return, and nobody recorded rewards$"):
        selected(tmp_path / "out", tmp_path / "data", where="not return > 0")
    assert selected(tmp_path / "out", tmp_path / "data", where="length > 0").episodes == 1
