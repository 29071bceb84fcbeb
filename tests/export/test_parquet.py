"""Parquet files, read by `datasets`, by pandas and by pyarrow alone."""

import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow.parquet
import pytest

from tests.builders import made_rollout_schema, make_episode
from tests.export.conftest import ACTION, STEP, acted
from worldmodel_v.envs.stamp import action_stamp, read_stamps
from worldmodel_v.errors import ConfigError, PackageMissing
from worldmodel_v.export import ExportReport, export
from worldmodel_v.export import parquet as writer
from worldmodel_v.export.parquet import ParquetConfig, arrow_schema, rows_of_group, write_parquet
from worldmodel_v.records import Episode
from worldmodel_v.schema import Column, Schema, rollout_schema
from worldmodel_v.storage import open_dataset


def run(data: Path, out: Path) -> ExportReport:
    return export(ParquetConfig(data=data, out=out))


def load(folder: Path, cache: Path) -> datasets.Dataset:
    """All rows of an export, or of the Parquet files in a folder, as a user of `datasets` has them."""
    files = sorted(str(file) for file in folder.rglob("*.parquet"))
    return datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(cache))


def test_datasets_gives_each_frame_with_its_action_reward_and_ending(stamp_rollouts: Path, tmp_path: Path) -> None:
    assert run(stamp_rollouts, tmp_path / "out").notes == []
    rows, source = load(tmp_path / "out", tmp_path / "cache"), open_dataset(stamp_rollouts)
    assert len(rows) == source.num_rows
    assert isinstance(rows.features["pixels"], datasets.Image)
    ends = 0
    for row, after in zip(rows, [*rows.select(range(1, len(rows))), None], strict=True):
        episode, stamps = source.episode(row["ep_idx"]), read_stamps(np.array(row["pixels"]))
        assert (row["step_idx"], row["episode_seed"], row["episode_policy"]) == (stamps[0], episode.seed, "random")
        assert row["state"] == list(map(float, stamps))
        if after is None or after["ep_idx"] != row["ep_idx"]:
            ends += 1
            assert np.isnan([*row["action"], row["reward"]]).all()
            assert (row["terminated"], row["truncated"]) == (False, False)
        else:
            next_stamps = read_stamps(np.array(after["pixels"]))
            assert next_stamps[0] == stamps[0] + 1
            assert action_stamp(row["action"]) == next_stamps[1]
            assert row["reward"] == next_stamps[1] + stamps[0]
            assert row["terminated"] == (after["step_idx"] == episode.num_steps)
    assert ends == 8


def test_every_column_is_there_bit_for_bit(stamp_rollouts: Path, tmp_path: Path) -> None:
    run(stamp_rollouts, tmp_path / "out")
    rows = load(tmp_path / "out", tmp_path / "cache").with_format("numpy")
    episodes = [open_dataset(stamp_rollouts).episode(i) for i in range(8)]
    for name in episodes[0].columns:
        expected = np.concatenate([episode.columns[name] for episode in episodes])
        np.testing.assert_array_equal(rows[:][name], expected, strict=True)


def test_latents_are_lists_of_fixed_length(unequal_latents: Path, tmp_path: Path) -> None:
    run(unequal_latents, tmp_path / "out")
    rows = load(tmp_path / "out", tmp_path / "cache").with_format("numpy")[:]
    mu, goes_on = rows["mu"], ~np.isnan(rows["reward"])
    assert (mu.dtype, mu.shape[1], rows["logvar"].shape) == (np.float32, 4, mu.shape)
    before, after = np.flatnonzero(goes_on), np.flatnonzero(goes_on) + 1
    np.testing.assert_array_equal(mu[after, STEP], mu[before, STEP] + 1)
    assert acted(rows["action"][before], mu[after, ACTION]).all()
    np.testing.assert_array_equal(rows["reward"][before], mu[after, ACTION] + mu[before, STEP])
    assert rows["terminated"].sum() == (~goes_on).sum() == 8


def test_a_file_is_a_shard_and_pandas_reads_it(discrete_rollouts: Path, tmp_path: Path) -> None:
    run(discrete_rollouts, tmp_path / "out")
    source = open_dataset(discrete_rollouts)
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert [file.name for file in files] == [f"{entry.shard:06d}.parquet" for entry in source.entries]
    frame = pandas.concat(map(pandas.read_parquet, files))
    assert frame.ep_idx.tolist() == [i for i in range(8) for _ in range(source.episode(i).num_rows)]
    assert frame.action.tolist() == np.concatenate([source.episode(i).action for i in range(8)]).tolist()
    assert frame.pixels.iloc[0]["bytes"].startswith(b"\x89PNG")


EXTRAS = (
    *(
        Column(name=dtype, dtype=dtype, row_shape=(), role="extra")
        for dtype in ("bool", "uint16", "int8", "float16", "float64")
    ),
    Column(name="tokens", dtype="uint16", row_shape=(2, 3), role="extra", num_values=7),
    Column(name="depth", dtype="float32", row_shape=(2, 3, 4), role="extra"),
    Column(name="speed", dtype="float32", row_shape=(1,), role="extra", parts=("m/s",)),
)


def episode_with_extras(number: int) -> Episode:
    """An episode of make_episode with a column of random values of each of EXTRAS."""
    plain, rng = make_episode(number, 5, size=8), np.random.default_rng(number)
    spaces: dict[str, Any] = {"observation_space": plain.schema.observation_space, "action_space": plain.schema.action_space}
    schema = rollout_schema(frame_shape=(8, 8), extras=EXTRAS, **spaces)
    made = {column.name: rng.integers(0, 2, (6, *column.row_shape)).astype(column.dtype) for column in EXTRAS}
    return Episode(schema=schema, episode_id=number, seed=plain.seed, policy="*", columns=dict(plain.columns) | made)


def test_columns_of_any_dtype_and_shape_come_back(tmp_path: Path) -> None:
    episodes = [episode_with_extras(number) for number in range(3)]
    write_parquet(tmp_path / "a.parquet", episodes[0].schema, episodes)
    rows = load(tmp_path, tmp_path / "cache")
    for column in episodes[0].schema.data_columns:
        expected = np.concatenate([episode.columns[column.name] for episode in episodes])
        np.testing.assert_array_equal(rows.with_format("numpy")[:][column.name], expected)
        if column.role == "extra":
            assert innermost(rows.features[column.name]).dtype == column.dtype
    stored = pyarrow.parquet.read_schema(tmp_path / "a.parquet")
    assert stored.field("speed").metadata[b"names"] == b'["m/s"]'
    assert stored.metadata[b"alignment"].startswith(b"Row t holds the observation o_t")


def innermost(feature: Any) -> datasets.Value:
    """What the lists of a feature hold in the end."""
    return innermost(feature.feature) if isinstance(feature, datasets.List) else feature


def test_row_groups_are_bounded_whatever_the_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = [make_episode(number, steps, size=8) for number, steps in enumerate((1, 30, 2, 9, 12))]
    schema = episodes[0].schema
    monkeypatch.setattr(writer, "GROUP_BYTES", 10 * sum(column.row_bytes for column in schema.columns))
    assert rows_of_group(schema) == 10
    write_parquet(tmp_path / "a.parquet", schema, iter(episodes))
    file = pyarrow.parquet.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [10, 10, 10, 10, 10, 9]
    found = file.read()["ep_idx"].to_pylist()
    assert found == [episode.episode_id for episode in episodes for _ in range(episode.num_rows)]


def test_a_row_group_has_few_megabytes() -> None:
    assert rows_of_group(made_rollout_schema(64)) == 681
    assert rows_of_group(made_rollout_schema((1182, 1182))) == 2
    assert rows_of_group(wide_schema()) == 1


def wide_schema() -> Schema:
    """A schema whose row alone is larger than a row group should be."""
    plain = made_rollout_schema(8)
    wide = Column(name="wide", dtype="float64", row_shape=(1 << 21,), role="extra")
    return Schema(columns=(*plain.columns, wide), observation_space=plain.observation_space, action_space=plain.action_space)


def test_a_column_with_a_name_that_is_added_is_refused() -> None:
    plain = made_rollout_schema(8)
    taken = Column(name="episode_seed", dtype="int64", row_shape=(), role="extra")
    schema = Schema(columns=(*plain.columns, taken), observation_space=plain.observation_space, action_space=plain.action_space)
    with pytest.raises(ConfigError, match="parquet: the dataset has a column 'episode_seed', which is the name of one that"):
        arrow_schema(schema)


def test_without_pyarrow_its_extra_is_named_before_the_dataset_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PackageMissing, match=r"needs pyarrow, which is not installed; pip install 'worldmodel_v\[export\]'"):
        run(tmp_path / "none", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_datasets_reads_shards_of_latents_if_features_name_the_columns(unequal_latents: Path, tmp_path: Path) -> None:
    """As docs/howto/export.md says; without features it takes ep_len for a column, which is shorter."""
    files = str(unequal_latents / "shards" / "*.h5")
    mu = datasets.List(datasets.Value("float32"), length=4)
    features = datasets.Features({"mu": mu, "reward": datasets.Value("float32"), "ep_idx": datasets.Value("int64")})
    rows = datasets.load_dataset("hdf5", data_files=files, features=features, split="train", cache_dir=str(tmp_path))
    expected = np.concatenate([open_dataset(unequal_latents).episode(i).mu for i in range(8)])
    np.testing.assert_array_equal(rows.with_format("numpy")[:]["mu"], expected)
    with pytest.raises(datasets.exceptions.DatasetGenerationError) as caught:
        datasets.load_dataset("hdf5", data_files=files, split="train", cache_dir=str(tmp_path / "other"))
    assert "'ep_len' has length" in str(caught.value.__cause__)
