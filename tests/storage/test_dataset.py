"""A dataset is a sequence of episodes, and a table."""

import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.builders import is_open, made_rollout_schema, make_episode, rollout_spec
from tests.selection.made import write_rollouts
from worldmodel_v import open_dataset, verify
from worldmodel_v.errors import PackageMissing
from worldmodel_v.records import Episode
from worldmodel_v.schema import Column
from worldmodel_v.storage import Dataset, DatasetWriter, Shard, build_shard


def same(one: Episode, other: Episode) -> bool:
    return one.episode_id == other.episode_id and all(
        np.array_equal(one.columns[name], rows, equal_nan=rows.dtype.kind == "f") for name, rows in other.columns.items()
    )


def test_it_has_a_length_and_gives_each_episode_by_its_place(stamp_rollouts: Path) -> None:
    dataset = open_dataset(str(stamp_rollouts))
    assert len(dataset) == dataset.num_episodes == 8
    assert [episode.episode_id for episode in dataset] == [*range(8)]
    assert all(same(episode, dataset.episode(number)) for number, episode in enumerate(dataset))
    assert same(dataset[3], dataset.episode(3))
    assert same(dataset[np.int64(-1)], dataset.episode(7))
    assert same(dataset[-8], dataset.episode(0))
    assert [episode.episode_id for episode in dataset[1:-1:2]] == [1, 3, 5]
    assert dataset[8:] == []
    for place in (8, -9):
        with pytest.raises(IndexError, match=f"^episode {place} of 8$"):
            dataset[place]
    with pytest.raises(TypeError):
        dataset["0"]


def test_it_stays_where_it_was_opened(stamp_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stamp_rollouts.parent)
    dataset = open_dataset(stamp_rollouts.name)
    shutil.copytree(stamp_rollouts, tmp_path / "there" / "d")
    (tmp_path / "there/d/shards/000009.h5").write_bytes(b"stray")
    monkeypatch.chdir(tmp_path / "there")
    stray = open_dataset("d")
    monkeypatch.chdir(tmp_path)
    (finding,) = verify(stray)
    assert "000009.h5: is not in the index" in finding
    assert dataset.name == stamp_rollouts.name
    assert len([*dataset]) == len(dataset)
    assert pickle.loads(pickle.dumps(dataset)).episode(7).num_rows == dataset[7].num_rows
    with dataset.open_verified(dataset.entries[0]) as shard:
        assert shard.num_episodes


def test_places_count_what_is_there(tmp_path: Path) -> None:
    """Not the numbers of episodes, some of which may be missing."""
    path = write_rollouts(tmp_path / "data", 7, per_shard=2)
    lines = (path / "index.jsonl").read_text().splitlines(keepends=True)
    (path / "index.jsonl").write_text("".join(lines[:1] + lines[2:]))
    dataset = open_dataset(path)
    assert [episode.episode_id for episode in dataset] == [dataset[place].episode_id for place in range(5)] == [0, 1, 4, 5, 6]


def test_episodes_are_read_when_they_are_asked_for(stamp_rollouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_shard = Dataset.open_shard
    monkeypatch.setattr(Dataset, "open_shard", lambda self, entry: opened.append(entry.name) or open_shard(self, entry))
    dataset = open_dataset(stamp_rollouts)
    episodes = iter(dataset)
    assert opened == []
    next(episodes)
    assert len(opened) == 1
    del episodes
    assert not is_open(stamp_rollouts / dataset.entries[0].name)


def written(path: Path, episodes: list[Episode]) -> Path:
    spec = rollout_spec(episodes[0].schema)
    with DatasetWriter(path, spec) as writer:
        for shard, episode in enumerate(episodes):
            writer.commit(shard, build_shard([episode], spec_hash=spec.hash))
    return path


def test_the_table_has_a_row_for_each_row_and_a_column_for_each_number(tmp_path: Path) -> None:
    dataset = open_dataset(written(tmp_path / "data", [make_episode(i, 3 + i, num_factors=2) for i in range(2)]))
    table = dataset.to_pandas()
    numbers = ["action[0]", "action[1]", "reward", "terminated", "truncated", "state[factor_0]", "state[factor_1]"]
    assert table.columns.tolist() == ["episode", "step", *numbers]
    assert table.index.tolist() == [*range(9)]
    assert table["episode"].tolist() == [0] * 4 + [1] * 5
    assert table["step"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    for name in numbers:
        recorded = np.concatenate([episode.columns[name.partition("[")[0]] for episode in dataset])
        recorded = recorded[:, 0 if "0" in name else 1] if recorded.ndim == 2 else recorded
        assert table[name].dtype == recorded.dtype, name
        np.testing.assert_array_equal(table[name].to_numpy(), recorded)
    returns = table.groupby("episode")["reward"].sum()
    np.testing.assert_allclose(returns, [episode.episode_return for episode in dataset], rtol=1e-6)


def test_frames_are_read_only_if_they_are_asked_for(stamp_rollouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(stamp_rollouts)
    read: set[str] = set()
    rows: Callable = Shard.rows
    monkeypatch.setattr(Shard, "rows", lambda shard, name, *places: read.add(name) or rows(shard, name, *places))
    assert "pixels" not in {*dataset.to_pandas().columns} | read
    frames = dataset.to_pandas(arrays=True)["pixels"]
    np.testing.assert_array_equal(np.stack(frames), np.concatenate([episode.pixels for episode in dataset]))


def test_latents_are_a_table_of_their_dimensions(stamp_latents: Path) -> None:
    dataset = open_dataset(stamp_latents)
    table = dataset.to_pandas()
    np.testing.assert_array_equal(table[[f"mu[{z}]" for z in range(8)]], np.concatenate([each.mu for each in dataset]))


def test_no_recorded_column_takes_the_place_of_another_in_a_table(tmp_path: Path) -> None:
    schema, episode = made_rollout_schema(), make_episode()
    named = [Column(name=name, dtype="int8", row_shape=(), role="extra") for name in ("episode", "step", "action[0]")]
    schema = replace(schema, columns=(*schema.columns[:-2], *named, *schema.columns[-2:]))
    extras = {column.name: np.full(6, 7, np.int8) for column in named}
    with DatasetWriter(tmp_path / "data", rollout_spec(schema)) as writer:
        assert [*open_dataset(tmp_path / "data").to_pandas().columns][-3:] == ["episode_", "step_", "action[0]_"]
        episode = replace(episode, schema=schema, columns={**episode.columns, **extras})
        writer.commit(0, build_shard([episode], spec_hash=writer.spec.hash))
    table = open_dataset(tmp_path / "data").to_pandas()
    assert (table["step"].tolist(), table["step_"].tolist()) == ([*range(6)], [7] * 6)
    np.testing.assert_array_equal(table["action[0]"], episode.action[:, 0])


def test_a_dataset_without_episodes_is_an_empty_table(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data", rollout_spec(made_rollout_schema())):
        pass
    dataset = open_dataset(tmp_path / "data")
    assert [*dataset] == []
    table = dataset.to_pandas()
    assert (len(table), table.columns.tolist()[:3]) == (0, ["episode", "step", "action[0]"])


def test_a_table_without_pandas_says_how_to_install_it(stamp_rollouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(PackageMissing, match=r"^a table needs pandas, which is not installed; pip install pandas$"):
        open_dataset(stamp_rollouts).to_pandas()
