"""A source that is no Gymnasium environment, and a loop that the user steps: datasets with the guarantees of all others."""

import argparse
import copy
import dataclasses
import enum
import functools
import hashlib
import json
import math
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import ClipReward, RecordEpisodeStatistics, TimeLimit

from tests.builders import digests
from tests.commands import committed, start, wait_until
from tests.extending.conftest import command
from tests.extending.pendulums import Pendulums
from tests.extending.threads_executor import Threads
from worldmodel_v import Recorder
from worldmodel_v.collection import CollectionConfig, collect_source
from worldmodel_v.envs.stamp import StampEnv, action_stamp, read_stamps
from worldmodel_v.errors import ConfigError, EnvironmentNotUsable, EpisodeFailed, EpisodesSetAside, OutputNotUsable
from worldmodel_v.sources.base import episode_seeds
from worldmodel_v.storage import open_dataset, verify

HERE = Path(__file__).parent


def config(out: Path, episodes: int = 5, workers: int = 0) -> CollectionConfig:
    return CollectionConfig(out=out, episodes=episodes, workers=workers, episodes_per_shard=2)


class Broken(Pendulums):
    """Its fourth episode has no rewards."""

    def episode(self, number: int, rng: np.random.Generator) -> dict:
        rows = super().episode(number, rng)
        return {**rows, "reward": rows["reward"] * np.nan} if number == 3 else rows


class Wrong(Pendulums):
    """Gives something else in the place of its rows."""

    def __init__(self, **changes: object) -> None:
        self.changes = changes

    def episode(self, number: int, rng: np.random.Generator) -> dict:
        return {**super().episode(number, rng), **self.changes}


class Telling(StampEnv):
    """Says something beside each step, and nothing beside the reset."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        return *super().step(action)[:4], {"speed": 1.0}


class Gain(gymnasium.RewardWrapper):
    """Keeps its arguments, one of them under a name with an underscore."""

    def __init__(self, env: gymnasium.Env, gain: float, shift: tuple[float, ...] = (0,)) -> None:
        super().__init__(env)
        self.gain, self._shift = gain, shift

    def reward(self, reward: Any) -> Any:
        return self.gain * reward + self._shift[0]


class TestSource:
    def test_a_script_makes_a_dataset_and_the_same_script_continues_it(self, tmp_path: Path) -> None:
        assert "3 new episodes" in command(HERE, "pendulums.py", tmp_path / "out", 3)
        assert "2 new episodes" in command(HERE, "pendulums.py", tmp_path / "out", 5)
        assert "0 new episodes" in command(HERE, "pendulums.py", tmp_path / "out", 5)
        dataset = open_dataset(tmp_path / "out")
        assert verify(dataset) == []
        assert (dataset.num_episodes, dataset.spec.env, dataset.spec.env_kwargs) == (5, "pendulums", {"gravity": 9.8})
        for number in range(5):
            episode = dataset.episode(number)
            assert episode.num_steps == 12 + number % 3
            angle, velocity = episode.state.T.astype(np.float64)
            np.testing.assert_allclose(episode.columns["energy"], velocity**2 / 2 - 9.8 * np.cos(angle), rtol=1e-5)
            np.testing.assert_allclose(episode.reward[:-1], -np.abs(angle[1:]), rtol=1e-6)
            assert episode.truncated[-3:].tolist() == [False, True, False]
            assert (episode.pixels.max(axis=(1, 2, 3)) == 255).all()

    def test_shards_are_the_same_whoever_makes_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        collect_source(Pendulums(), config(tmp_path / "here"))
        collect_source(Pendulums(), config(tmp_path / "threads"), executor=Threads(3))
        collect_source(Pendulums(), config(tmp_path / "ray", workers=2))
        assert digests(tmp_path / "here") == digests(tmp_path / "threads") == digests(tmp_path / "ray")

    def test_other_settings_do_not_continue_it(self, tmp_path: Path) -> None:
        collect_source(Pendulums(), config(tmp_path / "out", 1))
        other = Pendulums()
        other.settings = {"gravity": 1.6}
        with pytest.raises(OutputNotUsable, match=r"env_kwargs is {'gravity': 9.8} there, {'gravity': 1.6} asked"):
            collect_source(other, config(tmp_path / "out", 2))

    @pytest.mark.parametrize("shape", [(), (2, 2)])
    def test_actions_have_the_shape_of_their_space(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        actions = np.linspace(0, 1, 12 * math.prod(shape), dtype=np.float32).reshape(12, *shape)
        source = Wrong(action=actions)
        source.action_space = gymnasium.spaces.Box(-1, 1, shape)
        collect_source(source, config(tmp_path / "out", 1))
        np.testing.assert_array_equal(open_dataset(tmp_path / "out").episode(0).action[:-1], actions.reshape(12, -1))

    @pytest.mark.parametrize(
        ("given", "ends"), [({"terminated": True, "truncated": True}, (True, True)), ({"truncated": False}, (False, True))]
    )
    def test_an_end_may_be_both(self, tmp_path: Path, given: dict, ends: tuple[bool, bool]) -> None:
        collect_source(Wrong(**given), config(tmp_path / "out", 1))
        episode = open_dataset(tmp_path / "out").episode(0)
        assert (episode.terminated[-2], episode.truncated[-2]) == ends

    def test_an_episode_that_fails_is_set_aside_and_the_rest_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(EpisodesSetAside, match=r"episode 3 \(seed \d+, tried 4 times\): .*reward is nan in row 0"):
            collect_source(Broken(), config(tmp_path / "out", 5))
        assert open_dataset(tmp_path / "out").num_episodes == 3

    def test_frames_that_no_architecture_trains_on_are_refused(self, tmp_path: Path) -> None:
        text = "Wrong: pixels of episode 0: no architecture trains on frames of 84x16; expected .* such as 88x16$"
        with pytest.raises(ConfigError, match=text):
            collect_source(Wrong(pixels=np.zeros((13, 84, 16, 3), np.uint8)), config(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"pixels": np.zeros((13, 16, 24), np.uint8)}, "cannot make episode 0"),
            ({"pixels": np.zeros((13, 8, 8, 3))}, "expected uint8 .*, got float64"),
            ({"energy": [1.0] * 5}, r"energy: expected 13 rows beside 12 actions, got the shape \(5,\)"),
            ({"pixels": np.zeros((12, 8, 8, 3), np.uint8)}, "pixels: expected 13 rows beside 12 actions, got the shape"),
            ({"reward": np.ones(13)}, r"reward: expected 12 rows beside 12 actions, got the shape \(13,\)"),
            ({"action": np.full((12, 2), 0.5)}, r"action: expected rows of float32 \[1\], got float32 \[2\]"),
            ({"energy": ["high"] * 13}, "record='energy': .*; expected a number"),
            ({"energy": np.ma.array([1.0] * 13, mask=[1] + [0] * 12)}, "energy: float64 values that float64 cannot hold"),
            ({"reward": [2**24 + 1] * 12}, "reward: int64 values that float32 cannot hold"),
            ({"action": np.full((12, 1), 1.5)}, r"action in step 0 is \[1.5\], outside Box\(-1.0, 1.0, \(1,\), float32\)"),
            ({"terminated": [False] * 12}, "terminated: expected True or False, got"),
            ({"ep_len": [1.0] * 13}, "record='ep_len': a column cannot be called 'ep_len'"),
            ({"mask": [1.0] * 13}, "it gives 'mask'; datasets and windows of latents have something else of this name"),
            ({"logvar": [1.0] * 13}, "it gives 'logvar'; datasets and windows of latents have something else of this name"),
            ({"terminated": np.nan}, "terminated: expected True or False, got nan"),
            ({"reward": np.full(12, 2**24 + 1)}, "reward: int64 values that float32 cannot hold"),
            ({"pixels": np.ma.array(np.zeros((13, 8, 8, 3), np.uint8), mask=True)}, "the frame has masked values"),
            ({"action": iter(())}, "action: expected rows, got <tuple_iterator"),
            ({"energy": 1.0}, r"energy: expected rows, got 1.0 \(float\)"),
            ({"energy": [[1], [1, 2]]}, "energy: no array can be made of it"),
            ({"energy": np.zeros((13, 0))}, r"energy: a row of shape \(0,\), expected 1 to \d+ bytes"),
        ],
    )
    def test_a_source_that_gives_no_episode_is_refused(self, tmp_path: Path, changes: dict, text: str) -> None:
        with pytest.raises(EnvironmentNotUsable, match=text):
            collect_source(Wrong(**changes), config(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("attribute", "value", "text"),
        [
            ("name", 5, "name: expected a printable text, got 5"),
            ("name", "", "name: expected a printable text, got ''"),
            ("policy", None, "policy: expected a printable text"),
            ("state_names", "angle", "state_names: expected a list of texts, got 'angle'"),
            ("state_names", None, "state_names: expected a list of texts"),
            ("settings", {"gravity": np.int64(3)}, "settings=.*: are no JSON values: Object of type int64 is not"),
            ("settings", {"gravity": np.nan}, "settings=.*: are no JSON values"),
            ("settings", None, "settings: are no JSON values"),
        ],
    )
    def test_what_a_source_says_of_itself_can_be_recorded(self, tmp_path: Path, attribute: str, value: Any, text: str) -> None:
        source = Pendulums()
        setattr(source, attribute, value)
        with pytest.raises(EnvironmentNotUsable, match=f"^Pendulums: {text}"):
            collect_source(source, config(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_what_is_no_source_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentNotUsable, match="expected an object of a subclass of EpisodeSource, got ABCMeta"):
            collect_source(Pendulums, config(tmp_path / "out"))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("given", "text"),
        [
            (None, r"its episode returns None \(NoneType\), expected a dictionary of columns"),
            ({3: 1}, r"it gives 3 \(int\), which is no name of a column"),
        ],
    )
    def test_what_is_no_episode_is_refused(self, tmp_path: Path, given: Any, text: str) -> None:
        class Other(Pendulums):
            def episode(self, number: int, rng: np.random.Generator) -> Any:
                return given

        with pytest.raises(EnvironmentNotUsable, match=text):
            collect_source(Other(), config(tmp_path / "out"))

    def test_a_further_column_is_not_rounded_to_the_type_that_it_had_first(self, tmp_path: Path) -> None:
        class Finer(Pendulums):
            def episode(self, number: int, rng: np.random.Generator) -> dict:
                rows = super().episode(number, rng)
                energy = np.full(len(rows["energy"]), 0.1, np.float64 if number else np.float32)
                return {**rows, "energy": energy}

        with pytest.raises(EpisodesSetAside, match="energy: float64 values that float32 cannot hold"):
            collect_source(Finer(), config(tmp_path / "out", 2))

    def test_a_source_that_leaves_out_what_an_episode_has_is_refused_by_its_name(self, tmp_path: Path) -> None:
        class Forgetful(Pendulums):
            def episode(self, number: int, rng: np.random.Generator) -> dict:
                rows = super().episode(number, rng)
                return {name: rows[name] for name in rows if name not in ("reward", "terminated")}

        with pytest.raises(EnvironmentNotUsable, match=r"it gives no reward, terminated$"):
            collect_source(Forgetful(), config(tmp_path / "out"))


class Failing(StampEnv):
    """Its second step fails once, in one of several ways, after the world has moved."""

    def __init__(self, wrong: Any) -> None:
        super().__init__()
        self.wrong = wrong

    def step(self, action: Any) -> Any:
        observation, reward, *others = super().step(action)
        if self.stamps[0] != 2 or self.wrong is None:
            return observation, reward, *others
        wrong, self.wrong = self.wrong, None
        if not isinstance(wrong, str):
            raise wrong
        return (observation[:16], reward, *others) if wrong == "another shape" else (observation, wrong, *others)


@dataclasses.dataclass
class Ball:
    radius: float


class Kind(enum.Enum):
    HARD = 1


class Told(StampEnv):
    """Is told more than it needs."""

    def __init__(self, *, length: int, size: int, **_: Any) -> None:
        super().__init__(length=length, size=size)


gymnasium.register("tests/Told-v0", entry_point=Told)


FORKS = """
import os, sys
import gymnasium
import worldmodel_v, worldmodel_v.envs
from worldmodel_v.errors import DatasetBusy

def fork_ends(at_its_end):
    pid = os.fork()
    if not pid:
        at_its_end()
        sys.exit()
    return os.waitpid(pid, 0)[1]

def close():
    with env:
        env.step([0.0, 0.0])
    print("the fork has closed", flush=True)

def reset():
    try:
        env.reset()
    except DatasetBusy as error:
        print(str(error).replace(str(os.getppid()), "PARENT"), flush=True)

with worldmodel_v.Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), sys.argv[1]) as env:
    env.reset()
    for _ in range(4):
        env.step([0.0, 0.0])
    print(fork_ends(close), fork_ends(reset), flush=True)
"""

OF_A_FORK = "and this is a fork of it, which writes nothing; let that process write"


class TestRecorder:
    def test_an_action_outside_of_its_space_is_refused_and_another_may_be_taken(self, tmp_path: Path) -> None:
        with Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out") as env:
            env.reset()
            env.step([1.0, 1.0])
            with pytest.raises(ValueError, match=r"the action in step 1 is \[1.5, 0.0\], outside Box\(-1.0, 1.0"):
                env.step([1.5, 0.0])
            env.step([-1.0, 0.0])
        episode = open_dataset(tmp_path / "out").episode(0)
        assert episode.action[:-1].tolist() == [[1.0, 1.0], [-1.0, 0.0]]
        assert read_stamps(episode.pixels[-1])[0] == 2

    def test_arguments_that_make_no_sense_are_refused_by_name(self, tmp_path: Path) -> None:
        env = gymnasium.make("worldmodel_v/Stamp-v0")
        of_the_loop = ({"seed": "1"}, {"seed": -1}, {"frame_size": 64.0}, {"policy": None}, {"policy": "two\nlines"})
        of_the_frames = ({"layout": "WHC"}, {"layout": None}, {"frames": 3}, {"record": "info.speed"}, {"record": None})
        for wrong in (*of_the_loop, *of_the_frames):
            with pytest.raises(ConfigError, match=f"{next(iter(wrong))}"):
                Recorder(env, tmp_path / "out", **wrong)
        with pytest.raises(EnvironmentNotUsable, match=r"Recorder: expected one gymnasium\.Env, got SyncVectorEnv"):
            Recorder(gymnasium.vector.SyncVectorEnv([StampEnv]), tmp_path / "out")
        with Recorder(env, tmp_path / "out", seed=np.int64(3)) as recorder:
            recorder.reset()
            recorder.step(recorder.action_space.sample())
        assert open_dataset(tmp_path / "out").spec.seed == 3

    def test_arguments_that_are_no_json_are_recorded_as_far_as_they_are(self, tmp_path: Path) -> None:
        given = {"length": np.int64(3), "size": 16, "hook": len, "file": Path("/a/b"), "limit": np.nan, "start": np.zeros(2)}
        given |= {"keys": {(0, 1): np.longdouble(2), 3: np.inf}, "long": np.zeros(1001, np.uint8)}
        given |= {
            "ball": Ball(2),
            "kinds": {Kind.HARD},
            "more": argparse.Namespace(a=1),
            "cls": Told,
            "part": functools.partial(Told, 3),
            "many": [0] * 1001,
            "great": 1 << 70,
            "loop": (loop := {"n": 1}),
        }
        loop["again"] = [loop]
        env = gymnasium.make("tests/Told-v0", **given)
        with Recorder(env, tmp_path / "out", frame_size=8) as recorder:
            recorder.reset()
            recorder.step([0.0, 0.0])
        recorded = {
            **given,
            "length": 3,
            "hook": "builtin_function_or_method",
            "file": "/a/b",
            "limit": "NaN",
            "start": [0.0, 0.0],
            "many": f"1001 values {hashlib.sha256(json.dumps([0] * 1001).encode()).hexdigest()}",
            "great": str(1 << 70),
            "loop": {"n": 1, "again": ["itself"]},
            "ball": {"radius": 2},
            "kinds": ['"Kind.HARD"'],
            "more": {"a": 1},
            "cls": f"{__name__}.Told",
            "part": [f"{__name__}.Told", [3], {}],
            "keys": {"(0, 1)": "2.0", "3": "Infinity"},
            "long": f"uint8 (1001,) {hashlib.sha256(bytes(1001)).hexdigest()}",
        }
        assert open_dataset(tmp_path / "out").spec.env_kwargs == recorded

    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (lambda env, number: ClipReward(env, 0, number), "transform_reward:ClipReward.*max_reward.*: 1"),
            (lambda env, number: Gain(env, number), r"test_source:Gain\", {\"gain\": 1, \"shift\": \[0\]}"),
            (lambda env, number: env if number == 1 else ClipReward(env, 0, 1), "{} there"),
            (lambda env, number: TimeLimit(env, number), "'max_episode_steps': '1'} there"),
            (lambda env, number: TimeLimit(StampEnv(length=4), number), "max_episode_steps.*: 1"),
            (lambda env, number: StampEnv(length=3 + number), r"env_kwargs is .*'length': 4.* there, .*'length': 5"),
        ],
    )
    def test_another_wrapper_or_argument_does_not_continue_the_dataset(self, tmp_path: Path, make: Any, says: str) -> None:
        def record(number: int) -> int:
            env = RecordEpisodeStatistics(make(gymnasium.make("worldmodel_v/Stamp-v0", length=4), number), buffer_length=number)
            with Recorder(env, tmp_path / "out", frame_size=8) as recorder:
                recorder.reset()
                recorder.step(np.zeros(2, np.float32))
            return recorder.num_episodes

        assert [record(1), record(1)] == [1, 2]
        with pytest.raises(OutputNotUsable, match=says):
            record(2)

    def test_what_the_users_loop_did_is_recorded_and_the_same_script_goes_on(self, tmp_path: Path) -> None:
        assert "2 episodes" in command(HERE, "record_by_hand.py", tmp_path / "out", 2)
        assert "3 episodes" in command(HERE, "record_by_hand.py", tmp_path / "out", 1)
        dataset = open_dataset(tmp_path / "out")
        assert verify(dataset) == []
        assert dataset.spec.policy == "by hand"
        for number in range(3):
            episode, rng = dataset.episode(number), np.random.default_rng(number % 2)
            chosen = np.array([rng.uniform(-1, 1, 2) for _ in range(episode.num_steps)], np.float32)
            np.testing.assert_array_equal(episode.action[:-1], chosen)
            for t, action in enumerate(chosen):
                (step, *_), (next_step, came_from, *_) = read_stamps(episode.pixels[t]), read_stamps(episode.pixels[t + 1])
                assert (step, next_step, came_from) == (t, t + 1, action_stamp(action))
                assert episode.reward[t] == action_stamp(action) + t

    def test_a_recorded_episode_plays_again(self, tmp_path: Path) -> None:
        command(HERE, "record_by_hand.py", tmp_path / "out", 2)
        for number in range(2):
            episode = open_dataset(tmp_path / "out").episode(number)
            env = gymnasium.make("worldmodel_v/Stamp-v0", length=6)
            env.reset(seed=episode.seed)
            outcomes = [env.step(action)[1:4] for action in episode.action[:-1]]
            assert [reward for reward, _, _ in outcomes] == episode.reward[:-1].tolist()
            assert [terminated for _, terminated, _ in outcomes] == episode.terminated[:-1].tolist()

    def test_the_user_sees_what_the_environment_gives(self, tmp_path: Path) -> None:
        plain = gymnasium.make("worldmodel_v/Stamp-v0", length=3)
        with Recorder(gymnasium.make("worldmodel_v/Stamp-v0", length=3), tmp_path / "out") as recorder:
            for seed in (5, 6):
                np.testing.assert_array_equal(plain.reset(seed=seed)[0], recorder.reset(seed=seed)[0])
                ended = False
                while not ended:
                    expected, found = (env.step(np.array([0.5, 0.0])) for env in (plain, recorder))
                    np.testing.assert_array_equal(expected[0], found[0])
                    assert expected[1:] == found[1:]
                    ended = found[2] or found[3]
        assert [open_dataset(tmp_path / "out").episode(i).seed for i in range(2)] == [5, 6]

    def test_an_episode_that_is_reset_or_closed_is_cut_there_and_one_that_raises_is_dropped(self, tmp_path: Path) -> None:
        with Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out") as env:
            for num_steps in (1, 2):
                env.reset()
                for _ in range(num_steps):
                    env.step(np.zeros(2))
        with pytest.raises(KeyboardInterrupt):
            self._interrupted(tmp_path / "out")
        dataset = open_dataset(tmp_path / "out")
        assert [dataset.episode(i).num_steps for i in range(dataset.num_episodes)] == [1, 2]
        assert all(dataset.episode(i).truncated[-2] for i in range(2))
        assert verify(dataset) == []

    @staticmethod
    def _interrupted(out: Path) -> None:
        with Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), out) as env:
            env.reset()
            env.step(np.zeros(2))
            raise KeyboardInterrupt

    def test_seeds_go_on_where_the_dataset_ends(self, tmp_path: Path) -> None:
        for num_episodes in (2, 3, 4):
            env = Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out")
            assert env.num_episodes == {2: 0, 3: 2, 4: 3}[num_episodes]
            for _ in range(num_episodes - env.num_episodes):
                env.reset()
                env.step(np.zeros(2))
            env.close()
            assert env.num_episodes == num_episodes
        assert [each.seed for each in open_dataset(tmp_path / "out")] == [episode_seeds(0, number)[0] for number in range(4)]

    @pytest.mark.parametrize("wrong", [KeyboardInterrupt, ValueError, "a reward that is none", "another shape"])
    def test_an_episode_with_a_step_that_failed_is_dropped_even_if_the_loop_goes_on(self, wrong: Any, tmp_path: Path) -> None:
        """The environment has moved on, so the next frame would stand beside an action that did not lead to it."""
        with Recorder(Failing(wrong), tmp_path / "out") as env:
            env.reset()
            env.step(np.zeros(2))
            with pytest.raises((KeyboardInterrupt, ValueError, TypeError)):
                env.step(np.zeros(2))
            with pytest.raises(
                ConfigError, match=r"a step of it has failed, or none has begun; call reset\(\) before step\(\)"
            ):
                env.step(np.zeros(2))
            assert env.num_episodes == 0
            env.reset()
            env.step(np.zeros(2))
        assert [[read_stamps(frame)[0] for frame in each.pixels] for each in open_dataset(tmp_path / "out")] == [[0, 1]]

    @pytest.mark.parametrize("past", ["step", "reset"])
    def test_an_episode_whose_environment_moves_past_the_recorder_is_dropped(self, past: str, tmp_path: Path) -> None:
        step = StampEnv.step
        with Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out") as env:
            env.reset()
            env.step(np.zeros(2))
            copy.deepcopy(env.unwrapped).step(np.ones(2))  # a copy is another environment
            env.step(np.zeros(2))
            _ = env.unwrapped.reset() if past == "reset" else env.unwrapped.step(np.ones(2))
            with pytest.raises(ConfigError, match=rf"^Recorder: the environment's {past} was called past the recorder, .*copy"):
                env.step(np.zeros(2))
            env.reset()
            env.step(np.zeros(2))
            env.unwrapped.step(np.ones(2))  # after the last row, so it is in none
        assert [each.num_steps for each in open_dataset(tmp_path / "out")] == [1]
        assert StampEnv.step is step

    def test_a_fork_that_closes_its_recorder_leaves_the_episode_to_its_parent(self, tmp_path: Path) -> None:
        (tmp_path / "forks.py").write_text(FORKS)
        said = command(tmp_path, "forks.py", tmp_path / "out")
        assert said.splitlines() == ["the fork has closed", f"{tmp_path}/out: process PARENT has it open, {OF_A_FORK}", "0 0"]
        assert [each.num_steps for each in open_dataset(tmp_path / "out")] == [4]

    def test_an_action_that_is_refused_before_the_environment_sees_it_ends_nothing(self, tmp_path: Path) -> None:
        with Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out") as env:
            env.reset()
            with pytest.raises(ValueError, match="action has shape"):
                env.step(np.zeros(3))
            env.step(np.zeros(2))
        assert [each.num_steps for each in open_dataset(tmp_path / "out")] == [1]

    def test_a_seed_that_cannot_be_recorded_is_refused_before_the_episode(self, tmp_path: Path) -> None:
        env = Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out")
        for seed in (-1, 2**63, "5", 5.0):
            with pytest.raises(ConfigError, match=rf"expected a whole number from 0 to 9223372036854775807, got {seed}$"):
                env.reset(seed=seed)
        with pytest.raises(ConfigError, match="seed: expected at least 0, got -1"):
            Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out", seed=-1)
        assert not (tmp_path / "out").exists()

    def test_a_seed_of_numpy_is_taken(self, tmp_path: Path) -> None:
        with Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out") as env:
            env.reset(seed=np.int64(7))
            env.step(np.zeros(2))
        assert [each.seed for each in open_dataset(tmp_path / "out")] == [7]

    def test_an_environment_that_moves_past_the_recorder_before_the_dataset_is_begun(self, tmp_path: Path) -> None:
        """What `reset` does not give is known after the first step only, and the dataset is begun then."""
        with Recorder(Telling(), tmp_path / "out", record=("info.speed",)) as env:
            env.reset()
            env.unwrapped.step(np.ones(2))
            with pytest.raises(ConfigError, match="the environment's step was called past the recorder"):
                env.step(np.zeros(2))
            assert env.num_episodes == 0

    def test_reset_options_are_recorded_and_others_do_not_continue_the_dataset(self, tmp_path: Path) -> None:
        with Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out") as env:
            env.reset(options={"hills": np.array([1, 2])})
            env.step(np.zeros(2))
            with pytest.raises(ConfigError, match=r"options of a reset.* expected {'hills': \[1, 2\]}, got {'hills': 3};"):
                env.reset(options={"hills": 3})
            env.step(np.zeros(2))
        assert [each.num_steps for each in open_dataset(tmp_path / "out")] == [2]
        with (
            Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out") as env,
            pytest.raises(OutputNotUsable, match=r"reset_options is {'hills': \[1, 2\]} there, {} asked"),
        ):
            env.reset()

    def test_a_last_episode_that_cannot_be_recorded_leaves_nothing_open(self, tmp_path: Path) -> None:
        for reward in (np.nan, 1.0):
            env = Recorder(gymnasium.wrappers.TransformReward(StampEnv(), lambda _, given=reward: given), tmp_path / "out")
            with nullcontext() if reward == 1 else pytest.raises(EpisodeFailed, match="reward is nan in row 0"):
                env.reset()
                env.step(np.zeros(2))
                env.close()
        assert [each.num_steps for each in open_dataset(tmp_path / "out")] == [1]

    def test_a_kill_loses_only_the_episode_in_progress(self, tmp_path: Path) -> None:
        process = start(HERE / "record_by_hand.py", tmp_path / "out", 100_000)
        wait_until(lambda: committed(tmp_path / "out") >= 5, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed_at = open_dataset(tmp_path / "out").num_episodes
        assert killed_at >= 5
        command(HERE, "record_by_hand.py", tmp_path / "out", 2)
        dataset = open_dataset(tmp_path / "out")
        assert verify(dataset) == []
        assert dataset.num_episodes >= killed_at + 2

    def test_what_cannot_be_recorded_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentNotUsable, match='CartPole-v1: expected render_mode="rgb_array", got None; make it so'):
            Recorder(gymnasium.make("CartPole-v1"), tmp_path / "out")
        with pytest.raises(ConfigError, match=r"^Recorder: frame_size=84: no architecture trains on frames of 84x84; "):
            Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out", frame_size=84)
        env = Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out")
        with pytest.raises(ConfigError, match=r"call reset\(\) before step\(\)"):
            env.step(np.zeros(2))
        assert not (tmp_path / "out").exists()

    def test_another_policy_does_not_continue_the_dataset(self, tmp_path: Path) -> None:
        for policy in ("own", "other"):
            env = Recorder(gymnasium.make("worldmodel_v/Stamp-v0"), tmp_path / "out", policy=policy)
            if policy == "other":
                with pytest.raises(OutputNotUsable, match="policy is 'own' there, 'other' asked"):
                    env.reset()
                shutil.rmtree(tmp_path / "out")
            else:
                env.reset()
                env.step(np.zeros(2))
            env.close()


def test_the_users_files_are_short() -> None:
    for name in ("pendulums.py", "record_by_hand.py"):
        assert len((HERE / name).read_text().splitlines()) <= 40
