"""Lance tables, read as stable-worldmodel's LanceDataset reads them (commit addbab4).

It reads through lancedb, whose tables are the folders that `lance` reads; the reader is written again on `lance`.
"""

import io
import sys
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image

from tests.builders import rollout_spec
from tests.export.conftest import ACTION, STEP, acted
from tests.export.test_parquet import EXTRAS, episode_with_extras
from worldmodel_v.envs.stamp import action_stamp, read_stamps
from worldmodel_v.errors import ConfigError, PackageMissing, ShardDamaged
from worldmodel_v.export import ExportReport, export
from worldmodel_v.export.lance import LanceConfig
from worldmodel_v.export.source import Source
from worldmodel_v.records import Episode
from worldmodel_v.schema import Column, rollout_schema
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset

NUM_STEPS = 4


def run(data: Path, out: Path) -> ExportReport:
    return export(LanceConfig(data=data, out=out))


class ItsDataset:
    """Clips of NUM_STEPS rows inside an episode; whatever is binary is an image."""

    def __init__(self, folder: Path) -> None:
        self.table = lance.dataset(str(folder / "dataset.lance"))
        episodes = self.table.to_table(columns=["episode_idx"])["episode_idx"].to_numpy()
        assert not (np.diff(episodes) < 0).any()
        self.offsets = np.concatenate([[0], np.flatnonzero(np.diff(episodes)) + 1])
        self.lengths = np.diff([*self.offsets, len(episodes)])
        assert not [field.name for field in self.table.schema if pyarrow.types.is_string(field.type)]
        self.keys = [name for name in self.table.schema.names if name not in ("episode_idx", "step_idx")]
        known = lance.dataset(str(folder / "dataset_episodes.lance")).to_table().to_pydict()
        assert known["episode_idx"] == list(range(len(self.lengths)))
        self.of_episodes = {name: values for name, values in known.items() if name != "episode_idx"}

    def clips(self) -> list[dict[str, torch.Tensor]]:
        return [
            self.rows(offset + start)
            for offset, length in zip(self.offsets, self.lengths, strict=True)
            for start in range(length - NUM_STEPS + 1)
        ]

    def rows(self, start: int) -> dict[str, torch.Tensor]:
        batch = self.table.take(list(range(start, start + NUM_STEPS)), columns=self.keys).combine_chunks()
        clip = {name: self._tensor(batch[name].chunk(0)) for name in self.keys}
        return clip | {"action": clip["action"].reshape(NUM_STEPS, -1)}

    def _tensor(self, column: Any) -> torch.Tensor:
        if pyarrow.types.is_binary(column.type):
            frames = [np.array(Image.open(io.BytesIO(blob)).convert("RGB")) for blob in column.to_pylist()]
            return torch.stack([torch.from_numpy(frame).permute(2, 0, 1) for frame in frames])
        if pyarrow.types.is_fixed_size_list(column.type):
            flat = column.flatten().to_numpy(zero_copy_only=False)
            return torch.tensor(flat.reshape(len(column), column.type.list_size))
        return torch.tensor(column.to_numpy(zero_copy_only=False))

    def column(self, name: str) -> np.ndarray:
        """Its get_col_data: whole numbers as int64, lists as float32."""
        values = self.table.to_table(columns=[name])[name].to_pylist()
        return np.asarray(values, np.float32 if isinstance(values[0], list) else np.int64)


def test_its_clips_of_frames_have_each_action_and_reward_between_two_frames(stamp_rollouts: Path, tmp_path: Path) -> None:
    report, source = run(stamp_rollouts, tmp_path / "out"), open_dataset(stamp_rollouts)
    assert report.notes == []
    loaded = ItsDataset(tmp_path / "out")
    assert loaded.lengths.tolist() == [source.episode(i).num_rows for i in range(8)]
    assert loaded.of_episodes == {"seed": [source.episode(i).seed for i in range(8)], "policy": ["random"] * 8}
    clips = loaded.clips()
    assert len(clips) == source.num_rows - 8 * (NUM_STEPS - 1)
    ends = 0
    for clip in clips:
        frames = clip["pixels"].permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(frames[0], source.episode(int(clip["ep_idx"][0])).pixels[read_stamps(frames[0])[0]])
        for t in range(NUM_STEPS - 1):
            step, after = read_stamps(frames[t])[0], read_stamps(frames[t + 1])
            assert after[0] == step + 1
            assert action_stamp(clip["action"][t].numpy()) == after[1]
            assert clip["reward"][t, 0] == after[1] + step
        if bool(torch.isnan(clip["action"][-1]).all()):
            ends += 1
            assert bool(clip["terminated"][-2, 0])
            assert bool(torch.isnan(clip["reward"][-1]).all())
    assert ends == 8


def test_its_clips_of_latents_too(unequal_latents: Path, tmp_path: Path) -> None:
    run(unequal_latents, tmp_path / "out")
    for clip in ItsDataset(tmp_path / "out").clips():
        mu, action = clip["mu"].numpy(), clip["action"].numpy()
        assert (np.diff(mu[:, STEP]) == 1).all()
        assert acted(action[:-1], mu[1:, ACTION]).all()
        np.testing.assert_array_equal(clip["reward"][:-1, 0], mu[1:, ACTION] + mu[:-1, STEP])


def test_its_evaluation_finds_the_episodes(discrete_rollouts: Path, tmp_path: Path) -> None:
    """scripts/plan/eval_wm.py takes episode_idx, eval_ff.py ep_idx; both step_idx, and actions without NaN by rows."""
    report = run(discrete_rollouts, tmp_path / "out")
    assert report.notes == ["action: discrete, written one-hot over the 5 values of its space"]
    loaded, source = ItsDataset(tmp_path / "out"), open_dataset(discrete_rollouts)
    for name in ("episode_idx", "ep_idx"):
        lengths = [loaded.column("step_idx")[loaded.column(name) == episode].max() + 1 for episode in range(8)]
        assert lengths == [source.episode(i).num_rows for i in range(8)]
    action = loaded.column("action")
    known = action[~np.isnan(action).any(axis=1)]
    np.testing.assert_array_equal(known.argmax(axis=1), np.concatenate([source.episode(i).action[:-1] for i in range(8)]))


def write(episodes: list[Episode], data: Path) -> Path:
    spec = rollout_spec(episodes[0].schema)
    with DatasetWriter(data, spec) as writer:
        writer.commit(0, build_shard(episodes, spec_hash=spec.hash))
    return data


def test_columns_of_any_dtype_come_back_in_lists(tmp_path: Path) -> None:
    episodes = [episode_with_extras(number) for number in range(2)]
    report = run(write(episodes, tmp_path / "data"), tmp_path / "out")
    assert report.notes == [f"{name}: its values are in one list, without their shape" for name in ("tokens", "depth")]
    table = lance.dataset(str(tmp_path / "out" / "dataset.lance")).to_table()
    for column in EXTRAS:
        assert str(table.schema.field(column.name).type.value_type) == str(pyarrow.from_numpy_dtype(np.dtype(column.dtype)))
        expected = np.concatenate([episode.columns[column.name].reshape(6, -1) for episode in episodes])
        np.testing.assert_array_equal(table[column.name].to_pylist(), expected)


def test_dots_in_names_become_underscores_unless_two_columns_would_be_one(tmp_path: Path) -> None:
    made = [episode_of(("info.speed", "info.x"), tmp_path / "one"), episode_of(("info.speed", "info_speed"), tmp_path / "two")]
    run(made[0], tmp_path / "out")
    assert lance.dataset(str(tmp_path / "out" / "dataset.lance")).schema.names[-4:] == [
        "info_speed",
        "info_x",
        "ep_idx",
        "step_idx",
    ]
    with pytest.raises(ConfigError, match="lance: would have two columns 'info_speed': Lance takes no dots in names"):
        run(made[1], tmp_path / "other")


def episode_of(names: tuple[str, ...], data: Path) -> Path:
    """A dataset of one episode with float32 columns of these names."""
    plain = episode_with_extras(0)
    extras = tuple(Column(name=name, dtype="float32", row_shape=(), role="extra") for name in names)
    spaces: dict[str, Any] = {"observation_space": plain.schema.observation_space, "action_space": plain.schema.action_space}
    schema = rollout_schema(frame_shape=(8, 8), extras=extras, **spaces)
    columns = {name: plain.columns[name] for name in ("pixels", "action", "reward", "terminated", "truncated")} | {
        name: np.zeros(6, np.float32) for name in names
    }
    return write([Episode(schema=schema, episode_id=0, seed=0, columns=columns)], data)


def test_two_exports_have_the_same_rows(stamp_rollouts: Path, tmp_path: Path) -> None:
    """Their files have random names, so the bytes are not compared."""
    tables = []
    for name in ("a", "b"):
        run(stamp_rollouts, tmp_path / name)
        tables.append(lance.dataset(str(tmp_path / name / "dataset.lance")).to_table())
    assert tables[0].schema == tables[1].schema
    assert tables[0].drop_columns(["action", "reward"]) == tables[1].drop_columns(["action", "reward"])
    for name in ("action", "reward"):  # which hold NaN
        np.testing.assert_array_equal(tables[0][name].to_pylist(), tables[1][name].to_pylist())


def test_what_stops_the_reading_is_raised_as_it_is(
    stamp_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Source.episodes

    def stopped(source: Source, keep: Any = None) -> Any:
        episodes = whole(source, keep)
        yield next(episodes)
        raise ShardDamaged("is gone", where="shard 1")

    monkeypatch.setattr(Source, "episodes", stopped)
    with pytest.raises(ShardDamaged, match=r"^shard 1: is gone$"):
        run(stamp_rollouts, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_pylance_its_extra_is_named_before_the_dataset_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(PackageMissing, match=r"needs pylance, which is not installed; pip install 'worldmodel_v\[export\]'"):
        run(tmp_path / "none", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
