"""The recorders of other projects, in the toy world: their loops and their files, written anew from their repositories."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from worldmodel_v.envs.stamp import StampEnv, action_stamp, read_stamps
from worldmodel_v.records import Episode

EPISODES = 4


def toy(**options: Any) -> StampEnv:
    """A world of 7 to 10 actions."""
    return StampEnv(length=7, **options)


def record_hardmaru(folder: Path, **options: Any) -> list[list[np.ndarray]]:
    """As carracing/extract.py of hardmaru/WorldModelsExperiments, at 72e7004: it goes on after the end of an episode, to a
    fixed number of frames, and appends a frame before its action. Returns the actions of each episode, by the files' names."""
    folder.mkdir()
    taken: dict[int, list[np.ndarray]] = {}
    rng = np.random.default_rng(0)
    for seed in rng.integers(0, 2**31 - 1, EPISODES).tolist():
        env = toy(**options)
        obs, _ = env.reset(seed=seed)
        recording_obs, recording_action = [], []
        for _ in range(10):
            recording_obs.append(obs)
            action = rng.uniform(-1, 1, 2).astype(np.float16).astype(np.float32)
            recording_action.append(action)
            obs, _, _, _, _ = env.step(action)
        np.savez_compressed(
            folder / f"{seed}.npz",
            obs=np.array(recording_obs, dtype=np.uint8),
            action=np.array(recording_action, dtype=np.float16),
        )
        taken[seed] = recording_action
    return [taken[seed] for seed in sorted(taken)]


def record_ctallec(folder: Path, **options: Any) -> list[list[np.ndarray]]:
    """As data/carracing.py of ctallec/world-models, at d6abd9c: all actions are drawn before, the reset's frame is dropped, and
    each frame is appended after the action that led to it. Returns the actions drawn for each episode."""
    drawn = []
    for number in range(EPISODES):
        thread = folder / f"thread_{number % 2}"
        thread.mkdir(parents=True, exist_ok=True)
        env = toy(**options)
        env.reset(seed=number)
        env.action_space.seed(number)
        a_rollout = [env.action_space.sample() for _ in range(30)]
        s_rollout, r_rollout, d_rollout = [], [], []
        while not (d_rollout and d_rollout[-1]):
            s, r, terminated, truncated, _ = env.step(a_rollout[len(s_rollout)])
            s_rollout += [s]
            r_rollout += [r]
            d_rollout += [terminated or truncated]
        np.savez(
            thread / f"rollout_{number // 2}.npz",
            observations=np.array(s_rollout),
            rewards=np.array(r_rollout),
            actions=np.array(a_rollout),
            terminals=np.array(d_rollout),
        )
        drawn.append(a_rollout)
    return [drawn[number] for number in (0, 2, 1, 3)]


def record_plain(folder: Path, **options: Any) -> list[dict[str, np.ndarray]]:
    """A folder of plain arrays, with T + 1 frames and T of everything else. Returns the arrays."""
    folder.mkdir()
    episodes = []
    for number in range(EPISODES):
        env = toy(**options)
        frames, actions, rewards, ends = [env.reset(seed=number)[0]], [], [], []
        env.action_space.seed(number)
        while not (ends and any(ends[-1])):
            actions.append(env.action_space.sample())
            frame, reward, *end, _ = env.step(actions[-1])
            frames.append(frame)
            rewards.append(reward)
            ends.append(end)
        terminated, truncated = np.array(ends).T
        arrays = {"pixels": np.array(frames), "action": np.array(actions), "reward": np.array(rewards)}
        episodes.append(arrays | {"terminated": terminated, "truncated": truncated})
        np.savez(folder / f"{number}.npz", **episodes[-1])
    return episodes


def resaved(file: Path, **changes: Any) -> None:
    """Change arrays of a file; None removes one."""
    with np.load(file) as npz:
        arrays = {**npz, **changes}
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})


class WithInfo(gymnasium.Wrapper):
    """The toy world with numbers and a text in its info."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, _ = self.env.reset(**options)
        return observation, self._info()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        *result, _ = self.env.step(action)
        return *result, self._info()  # type: ignore[return-value]

    def _info(self) -> dict[str, Any]:
        step, _, _, total = self.unwrapped.stamps
        return {"step": np.array([step], np.int32), "deep": {"total": np.float32(total)}, "note": f"step {step}"}


class InADict(gymnasium.ObservationWrapper):
    """The toy world with its picture in a Dict, beside a number."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        box = gymnasium.spaces.Box(0, 1000, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Dict({"image": env.observation_space, "count": box})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": observation, "count": np.array([self.unwrapped.stamps[0]], np.float32)}


def assert_in_place(episode: Episode, *, first: int = 0, has_reward: bool = True) -> None:
    """Each frame says which step it is and which action led to it: step `first` is the first row's."""
    steps, actions, _, _ = np.array([read_stamps(frame) for frame in episode.pixels]).T
    np.testing.assert_array_equal(steps, first + np.arange(episode.num_rows))
    stamps = [action_stamp(action) for action in episode.action[:-1]]
    np.testing.assert_array_equal(stamps, actions[1:])
    if has_reward:
        np.testing.assert_array_equal(episode.reward[:-1], np.array(stamps) + steps[:-1])


def frames_of(episode: Episode) -> Iterator[tuple[int, int, int, int]]:
    """What each frame says."""
    return map(read_stamps, episode.pixels)
