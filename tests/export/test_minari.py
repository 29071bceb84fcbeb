"""Minari datasets, opened with the package itself (0.5.4, whose reader is that of its repository at commit 1880118)."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from minari.serialization import deserialize_space
from rich.console import Console
from rich.markdown import Markdown

from tests.builders import made_rollout_schema, make_episode, rollout_spec
from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.envs.record import env_spec_json
from worldmodel_v.envs.stamp import action_stamp, read_stamps
from worldmodel_v.errors import ConfigError
from worldmodel_v.export import ExportReport, export
from worldmodel_v.export.minari import MinariConfig, _action_space
from worldmodel_v.schema import ActionSpace, Column, space_record
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset


def run(data: Path, out: Path, dataset_id: str | None = None) -> ExportReport:
    return export(MinariConfig(data=data, out=out, dataset_id=dataset_id))


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Minari looks."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("kind", ["unequal", "discrete"])
def test_minari_opens_it_and_nothing_is_lost(kind: str, stamp_rollouts: Path, discrete_rollouts: Path, datasets: Path) -> None:
    data = {"unequal": stamp_rollouts, "discrete": discrete_rollouts}[kind]
    report = run(data, datasets / "stamp-v0")
    assert report.notes == []
    loaded, source = minari.load_dataset("stamp-v0"), open_dataset(data)
    assert loaded.total_episodes == source.num_episodes == 8
    assert loaded.total_steps == source.num_rows - 8
    metadata = list(loaded.storage.get_episode_metadata(range(8)))
    for number, found in enumerate(loaded.iterate_episodes()):
        episode = source.episode(number)
        np.testing.assert_array_equal(found.observations, episode.pixels, strict=True)
        np.testing.assert_array_equal(found.actions, episode.action[:-1], strict=True)
        np.testing.assert_array_equal(found.rewards, episode.reward[:-1], strict=True)
        np.testing.assert_array_equal(found.terminations, episode.terminated[:-1], strict=True)
        np.testing.assert_array_equal(found.truncations, episode.truncated[:-1], strict=True)
        np.testing.assert_array_equal(np.stack([found.infos[name] for name in episode.state_names], axis=1), episode.state)
        assert (metadata[number]["seed"], metadata[number]["policy"]) == (episode.seed, "random")


def test_each_action_stands_between_its_frames(stamp_rollouts: Path, datasets: Path) -> None:
    run(stamp_rollouts, datasets / "stamp-v0")
    for found in minari.load_dataset("stamp-v0"):
        assert len(found.observations) == len(found) + 1
        for step, (action, reward) in enumerate(zip(found.actions, found.rewards, strict=True)):
            assert read_stamps(found.observations[step])[0] == step
            assert action_stamp(action) == read_stamps(found.observations[step + 1])[1]
            assert reward == action_stamp(action) + step
        assert found.terminations[-1]
        assert not found.terminations[:-1].any()


def test_spaces_are_the_frames_and_the_environments(stamp_rollouts: Path, discrete_rollouts: Path, datasets: Path) -> None:
    run(stamp_rollouts, datasets / "continuous-v0")
    run(discrete_rollouts, datasets / "five" / "actions-v1", dataset_id="five/actions-v1")
    continuous, discrete = minari.load_dataset("continuous-v0"), minari.load_dataset("five/actions-v1")
    assert continuous.observation_space == gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert continuous.action_space == gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert discrete.action_space == gymnasium.spaces.Discrete(5)
    assert set(minari.list_local_datasets()) == {"continuous-v0", "five/actions-v1"}
    assert all(continuous.action_space.contains(action) for action in continuous[0].actions)


@pytest.mark.parametrize("source", [{"wrappers": "[]"}, {"max_episode_steps": "9"}])
def test_an_environment_with_something_around_it_is_not_built_without_it(source: dict[str, str]) -> None:
    spec = rollout_spec(make_episode(0, size=64).schema, env="CartPole-v1", frame_height=64, frame_width=64)
    assert env_spec_json(spec) is not None
    assert env_spec_json(replace(spec, env_source=source)) is None


def test_a_limit_of_steps_that_the_environment_was_made_with_is_one_there() -> None:
    schema, settings = make_episode(0, size=64).schema, {"max_episode_steps": 9}
    spec = rollout_spec(schema, env="CartPole-v1", env_kwargs=settings, frame_height=64, frame_width=64)
    for given, expected in ((9, 9), (-1, None), (None, 500)):
        settings["max_episode_steps"] = given
        found = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(str(env_spec_json(spec))))
        assert found.spec is not None
        assert found.spec.max_episode_steps == expected


@pytest.mark.parametrize("action_size", [0, 3])
def test_the_space_of_actions_is_the_recorded_one_where_the_environment_is_gone(action_size: int, datasets: Path) -> None:
    episodes = [make_episode(i, size=64, action_size=action_size) for i in range(2)]
    spec, data = rollout_spec(episodes[0].schema, env="elsewhere/Gone-v0", frame_height=64, frame_width=64), datasets / "data"
    with DatasetWriter(data, spec) as writer:
        writer.commit(0, build_shard(episodes, spec_hash=spec.hash))
    why = "is not registered here, or was recorded with something around it"
    assert run(data, datasets / "gone-v0").notes == [f"env_spec: not held, because elsewhere/Gone-v0 {why}"]
    loaded = minari.load_dataset("gone-v0")
    expected = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32) if action_size else gymnasium.spaces.Discrete(5)
    assert loaded.action_space == expected
    np.testing.assert_array_equal(loaded[1].observations, episodes[1].pixels)
    assert loaded[0].infos == {}  # nothing recorded as state


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Discrete(3, start=-1),
        gymnasium.spaces.MultiDiscrete([3, 5], start=[1, -2]),
        gymnasium.spaces.MultiBinary(4),
        gymnasium.spaces.Box(np.array([0, -5]), np.array([3, 5]), dtype=np.int64),
        gymnasium.spaces.Box(np.array([-1, 0], np.float32), np.array([1, np.inf], np.float32)),
    ],
    ids=lambda space: type(space).__name__,
)
def test_a_space_of_actions_stays_of_its_kind(space: gymnasium.Space) -> None:
    assert deserialize_space(_action_space(ActionSpace(space_record(space)))) == space


def test_the_example_in_its_help_is_where_minari_looks() -> None:
    text = re.sub(r"\s+", " ", MinariConfig.__doc__ or "")
    assert "~/.minari/datasets/NAME-v0 as --out" in text


def test_writing_needs_no_minari(stamp_rollouts: Path, datasets: Path) -> None:
    code = (
        "import sys; sys.modules['minari'] = None\nfrom pathlib import Path\n"
        "from worldmodel_v.export import export\nfrom worldmodel_v.export.minari import MinariConfig\n"
        "export(MinariConfig(data=Path(sys.argv[1]), out=Path(sys.argv[2])))"
    )
    subprocess.run([sys.executable, "-c", code, str(stamp_rollouts), str(datasets / "stamp-v0")], check=True)
    assert minari.load_dataset("stamp-v0").total_episodes == 8


def test_names_that_minari_does_not_know_are_refused(stamp_rollouts: Path, datasets: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"out: expected NAME-v0 or NAMESPACE/NAME-v0, as Minari calls its datasets, .*, got 'stamp'"
    ):
        run(stamp_rollouts, datasets / "stamp")
    with pytest.raises(
        ConfigError, match=r"dataset_id='me/b-v0': Minari finds a dataset in a folder of its id; expected an out that ends"
    ):
        run(stamp_rollouts, datasets / "b-v0", dataset_id="me/b-v0")
    with pytest.raises(ConfigError, match=r"dataset_id: expected .* two letters or more, got 'a/b-v0'"):
        run(stamp_rollouts, datasets / "a" / "b-v0", dataset_id="a/b-v0")


def test_a_factor_and_a_column_of_one_name_are_refused(datasets: Path) -> None:
    schema = made_rollout_schema(num_factors=1)
    extra = Column(name="factor_0", dtype="float32", row_shape=(), role="extra")
    schema = replace(schema, columns=(*schema.columns[:-2], extra, *schema.columns[-2:]))
    episode = make_episode(num_factors=1)
    episode = replace(episode, schema=schema, columns={**episode.columns, "factor_0": np.zeros(6, np.float32)})
    with DatasetWriter(datasets / "rollouts", rollout_spec(schema)) as writer:
        writer.commit(0, build_shard([episode], spec_hash=writer.spec.hash))
    with pytest.raises(ConfigError, match=r"^minari: 'factor_0' is the name of two of the dataset's columns and factors"):
        run(datasets / "rollouts", datasets / "stamp-v0")
    assert not (datasets / "stamp-v0").exists()


def test_truncated_episodes_are_told_from_terminated_ones(datasets: Path) -> None:
    collect(stamp_config(datasets / "rollouts", episodes=2, max_steps=5))
    run(datasets / "rollouts", datasets / "cut-v0")
    for found in minari.load_dataset("cut-v0"):
        assert found.truncations.tolist() == [False] * 4 + [True]
        assert not found.terminations.any()


def test_the_environment_comes_back_as_it_was_made(datasets: Path) -> None:
    collect(stamp_config(datasets / "rollouts", episodes=2, env_kwargs={"discrete": True, "length": 6}))
    run(datasets / "rollouts", datasets / "stamp-v0")
    loaded = minari.load_dataset("stamp-v0")
    with loaded.recover_environment() as env:
        assert env.spec.id == "worldmodel_v/Stamp-v0"
        for episode, seed in zip(loaded, [open_dataset(datasets / "rollouts").episode(i).seed for i in range(2)], strict=True):
            frames, rewards = [env.reset(seed=seed)[0]], []
            for action in episode.actions:
                frame, reward, terminated, truncated, _ = env.step(action)
                frames.append(frame)
                rewards.append(reward)
            assert (terminated, truncated) == (episode.terminations[-1], episode.truncations[-1])
            np.testing.assert_array_equal(frames, episode.observations)
            np.testing.assert_array_equal(rewards, episode.rewards)


class Half(gymnasium.RewardWrapper):
    """Half of each reward."""

    def reward(self, reward: float) -> float:
        return reward / 2


def test_car_racing_comes_back_with_its_wrappers_and_rewards(datasets: Path) -> None:
    settings = {"env": "worldmodel_v/CarRacing-v3", "wrap": ("tests.export.test_minari:Half",), "max_steps": 3}
    collect(stamp_config(datasets / "rollouts", episodes=1, env_kwargs={"lap_complete_percent": 0.5}, **settings))
    assert run(datasets / "rollouts", datasets / "car-v0").notes == []
    loaded, seed = minari.load_dataset("car-v0"), open_dataset(datasets / "rollouts").episode(0).seed
    with loaded.recover_environment() as env:
        assert isinstance(env, Half)
        assert env.unwrapped.lap_complete_percent == 0.5
        env.reset(seed=seed)
        rewards = [env.step(action)[1] for action in loaded[0].actions]
    np.testing.assert_array_equal(np.array(rewards, np.float32), loaded[0].rewards)


def test_a_mixture_of_policies_is_shown_as_it_is_called(datasets: Path) -> None:
    """`minari show` takes the name for Markdown, where two asterisks make italics."""
    policy = "mixture(4*random, 2*brownian, 1*random)"
    collect(stamp_config(datasets / "rollouts", episodes=1, policy=policy, max_steps=3))
    run(datasets / "rollouts", datasets / "mixed-v0")
    console = Console(width=200)
    with console.capture() as shown:
        console.print(Markdown(minari.load_dataset("mixed-v0").storage.metadata["algorithm_name"]))
    assert shown.get().strip() == policy
