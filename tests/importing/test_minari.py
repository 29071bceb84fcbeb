"""Minari datasets, written by minari's own collector from the toy world: HDF5 and Arrow."""

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box
from minari.data_collector.episode_buffer import EpisodeBuffer
from minari.serialization import serialize_space

from tests.importing.recorders import EPISODES, InADict, WithInfo, assert_in_place, toy
from worldmodel_v.envs.picture import Picture
from worldmodel_v.errors import DatasetNotUsable, PackageMissing
from worldmodel_v.importing import ImportReport, import_recordings
from worldmodel_v.importing.minari import MinariImportConfig, _frames, _picture
from worldmodel_v.records import Episode
from worldmodel_v.storage import Dataset, open_dataset, verify


def record(env: gymnasium.Env, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Path:
    """A dataset of a few episodes, seeded 100, 101, …; the last one is cut after five actions."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    buffers = [play(env, number) for number in range(EPISODES)]
    about = {"algorithm_name": "noise", "author": "me", "author_email": "me@x", "code_permalink": "x", "description": "toy"}
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # minari's, about what it is not told of the environment
        minari.create_dataset_from_buffers("toy/stamp-v0", buffers, **about, **spaces, **options)
    return folder / "toy" / "stamp-v0"


def play(env: gymnasium.Env, number: int) -> EpisodeBuffer:
    """An episode as minari's collector keeps it: a row more of observations and infos than of everything else."""
    observation, info = env.reset(seed=100 + number)
    env.action_space.seed(number)
    seen, steps = [(observation, info)], []
    while not (steps and any(steps[-1][2:])) and (number < EPISODES - 1 or len(steps) < 5):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append((observation, info))
        steps.append((action, reward, terminated, truncated))
    observations, infos = zip(*seen, strict=True)
    actions, rewards, terminations, truncations = map(list, zip(*steps, strict=True))
    truncations[-1] = truncations[-1] or not terminations[-1]
    return EpisodeBuffer(
        id=number,
        seed=100 + number,
        observations=stacked(observations),
        actions=np.array(actions),
        rewards=rewards,
        terminations=terminations,
        truncations=truncations,
        infos=stacked(infos),
    )


def stacked(values: Sequence[Any]) -> Any:
    """Dictionaries of rows in the place of rows of dictionaries."""
    if isinstance(values[0], dict):
        return {name: stacked([value[name] for value in values]) for name in values[0]}
    return list(values) if isinstance(values[0], str) else np.array(values)


def run(source: Path, out: Path, **options: Any) -> tuple[ImportReport, list[Episode], Dataset]:
    report = import_recordings(MinariImportConfig(from_=source, out=out, alignment=False, **options))
    dataset = open_dataset(out)
    assert verify(dataset) == []
    return report, [dataset.episode(number) for number in range(dataset.num_episodes)], dataset


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("discrete", [False, True])
def test_every_row_is_in_its_place_with_seed_space_and_ending(
    data_format: str, discrete: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = record(toy(discrete=discrete), tmp_path, monkeypatch, data_format=data_format, jpeg_encoding=False)
    report, episodes, dataset = run(source, tmp_path / "out")
    stored = minari.load_dataset("toy/stamp-v0")
    for number, episode in enumerate(episodes):
        assert_in_place(episode)
        assert (episode.seed, episode.policy) == (100 + number, "noise")
        np.testing.assert_array_equal(episode.pixels, stored[number].observations)
        np.testing.assert_array_equal(episode.action[:-1], stored[number].actions)
        assert (bool(episode.terminated[-2]), bool(episode.truncated[-2])) == (number < EPISODES - 1, number == EPISODES - 1)
    assert episodes[-1].num_steps == 5
    assert report.notes == []
    assert dataset.spec.imported["lacks"] == []
    assert dataset.spec.imported["options"]["dataset_id"] == "toy/stamp-v0"
    assert dataset.schema.actions.num_actions == (5 if discrete else None)
    if not discrete:
        assert (dataset.schema.action_space["low"], dataset.schema.action_space["high"]) == (-1.0, 1.0)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_a_picture_in_a_dict_and_all_numbers_beside_it(
    data_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = record(InADict(WithInfo(toy())), tmp_path, monkeypatch, data_format=data_format, jpeg_encoding=False)
    report, episodes, dataset = run(source, tmp_path / "out")
    assert dataset.spec.frames == "observation.image"
    assert dataset.schema.observation_space["type"] == "Dict"
    extras = {"observation.count", "info.step"} | ({"info.deep.total"} if data_format == "hdf5" else set())
    assert {column.name for column in dataset.schema.by_role("extra")} == extras
    for episode in episodes:
        assert_in_place(episode)
        np.testing.assert_array_equal(episode.columns["observation.count"][:, 0], np.arange(episode.num_rows))
        np.testing.assert_array_equal(episode.columns["info.step"][:, 0], np.arange(episode.num_rows))
    left_out = {note.partition(":")[0] for note in report.notes}
    assert left_out == {"info.note"} | ({"info.deep"} if data_format == "arrow" else set())
    _, _, dataset = run(source, tmp_path / "without", without=("info.step", "info.note"))
    assert {column.name for column in dataset.schema.by_role("extra")} == extras - {"info.step"}
    with pytest.raises(
        DatasetNotUsable, match=r"there is no observation\.picture; pictures in its observation: observation\.image"
    ):
        run(source, tmp_path / "other", frames="observation.picture")


def test_an_info_that_a_later_episode_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = record(WithInfo(toy()), tmp_path, monkeypatch, jpeg_encoding=False)
    with h5py.File(source / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_1/infos/step"]
    text = r"episode 1: expected info\.step, as in the first episode, got .*leave it out with without='info\.step'"
    with pytest.raises(DatasetNotUsable, match=text):
        run(source, tmp_path / "out")
    run(source, tmp_path / "without", without=("info.step",))


def test_a_seed_that_no_dataset_holds_is_said_to_be_lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = record(toy(), tmp_path, monkeypatch, jpeg_encoding=False)
    with h5py.File(source / "data" / "main_data.hdf5", "r+") as file:
        file["episode_1"].attrs["seed"] = np.uint64(2**63)
    _, episodes, dataset = run(source, tmp_path / "out")
    assert [episode.seed for episode in episodes[:2]] == [100, -1]
    assert dataset.spec.imported["lacks"] == ["seed"]


def test_a_stack_in_another_order_is_no_damage() -> None:
    frames = np.arange(60, 68, dtype=np.uint8)
    stacks = np.stack([frames[step : step + 4][::-1] for step in range(5)])[..., None, None]
    with pytest.raises(DatasetNotUsable, match=r"^the newest frame of its stack is the first"):
        _frames(stacks, Picture(Box(0, 255, (4, 1, 1), np.uint8), "THW"), first=True)


def test_jpeg_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, _, _ = run(record(toy(), tmp_path, monkeypatch), tmp_path / "out")
    assert report.notes == ["frames: JPEG, as Minari stores them by default, so they are not exactly what the policy saw"]


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An HDF5 dataset to be damaged."""
    return record(toy(), tmp_path, monkeypatch, jpeg_encoding=False)


def change_metadata(source: Path, **changes: Any) -> None:
    file = source / "data" / "metadata.json"
    metadata = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in metadata.items() if value is not None}))


def test_a_dataset_that_names_an_environment_in_place_of_its_spaces_runs_nothing(plain: Path, tmp_path: Path) -> None:
    spec = {"id": "Evil-v0", "entry_point": "os:mkdir", "kwargs": {"path": str(tmp_path / "ran")}, "additional_wrappers": []}
    change_metadata(plain, observation_space=None, env_spec=json.dumps(spec))
    with pytest.raises(
        DatasetNotUsable, match=r"metadata\.json: does not say its observation_space, and making its environment"
    ):
        run(plain, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_leads_to_others_is_refused(plain: Path, tmp_path: Path) -> None:
    with h5py.File(plain / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]
        file["episode_1/rewards"] = h5py.ExternalLink("/etc/other.h5", "/x")
    with pytest.raises(
        DatasetNotUsable, match=r"main_data\.hdf5: 'episode_1/rewards' is a link, which may lead to another file"
    ):
        run(plain, tmp_path / "out")


def test_a_shape_that_memory_does_not_hold_is_refused(plain: Path, tmp_path: Path) -> None:
    with h5py.File(plain / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]
        file.create_dataset("episode_1/rewards", (1 << 44,), np.float64, chunks=(1024,), compression="gzip")
    with pytest.raises(DatasetNotUsable, match=r"'episode_1/rewards' claims float64 \(17592186044416,\), more than half"):
        run(plain, tmp_path / "out")


def test_damaged_files(plain: Path, tmp_path: Path) -> None:
    data = plain / "data"
    with h5py.File(data / "main_data.hdf5", "a") as file:
        file["episode_2/rewards"].resize((3,))
    with pytest.raises(DatasetNotUsable, match=r"episode 2: expected \d+ steps, as its metadata says, got 3"):
        run(plain, tmp_path / "out")
    change_metadata(plain, total_episodes=EPISODES + 1)
    with pytest.raises(DatasetNotUsable, match="cannot be read: KeyError"):
        run(plain, tmp_path / "more")
    change_metadata(plain, total_episodes=EPISODES, minari_version="9.0.0")
    with pytest.raises(DatasetNotUsable, match=r"cannot be read: ValueError: The installed Minari version .* does not support"):
        run(plain, tmp_path / "newer")
    (data / "main_data.hdf5").write_bytes(b"no HDF5")
    with pytest.raises(DatasetNotUsable, match=r"main_data\.hdf5: is no sound HDF5 file"):
        run(plain, tmp_path / "none")
    (data / "metadata.json").write_text("{")
    with pytest.raises(DatasetNotUsable, match=r"metadata\.json: cannot be read: JSONDecodeError"):
        run(plain, tmp_path / "none")
    (data / "metadata.json").unlink()
    with pytest.raises(DatasetNotUsable, match=r"holds no metadata\.json; give the folder of a Minari dataset"):
        run(plain, tmp_path / "none")


def test_observations_without_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = record(toy(image_observation=False), tmp_path, monkeypatch)
    with pytest.raises(DatasetNotUsable, match=r"expected observations with a picture, got Box"):
        run(source, tmp_path / "out")


def test_what_may_be_a_picture_is_named_and_no_other_view_is_offered() -> None:
    space = gymnasium.spaces.Box(-1, 1, (32, 32), np.float32)
    with pytest.raises(
        DatasetNotUsable, match=r"if it is one, say frames='observation'\); say which part is the picture with frames$"
    ):
        _picture(MinariImportConfig(from_="a", out="b"), space)


def test_without_the_package_its_line_is_named(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(
        PackageMissing, match=r"Minari datasets need minari, which is not installed; pip install 'worldmodel_v\[import\]'"
    ):
        run(plain, tmp_path / "out")


def test_actions_of_several_parts_are_refused(plain: Path, tmp_path: Path) -> None:
    file = plain / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    space = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3), gymnasium.spaces.Discrete(2)])
    file.write_text(json.dumps(metadata | {"action_space": serialize_space(space)}))
    with pytest.raises(DatasetNotUsable, match=r"stamp-v0: actions of a space 'Tuple': expected Box, Discrete"):
        run(plain, tmp_path / "out")


def test_a_policy_that_is_a_number_is_its_name(plain: Path, tmp_path: Path) -> None:
    with h5py.File(plain / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0"].attrs["policy"] = 7
    assert run(plain, tmp_path / "out")[1][0].policy == "7"
