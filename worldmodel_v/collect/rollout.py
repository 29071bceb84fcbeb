"""One episode, start to end, as a function of the dataset's settings and the episode's number alone. No Ray here."""

import copy
from typing import Any

import numpy as np

from worldmodel_v.envs import FramePreprocessor, ImageEnv, make_image_env, require_frame
from worldmodel_v.envs.parts import extra_rows
from worldmodel_v.errors import EpisodeFailed, WorldModelError, one_line
from worldmodel_v.policies import Policy, make_policy
from worldmodel_v.records import Episode
from worldmodel_v.schema import Column, Schema
from worldmodel_v.spec import RolloutSpec

FRAMES_AT_FIRST = 1001
"""Room for an episode of CarRacing; longer ones make more."""


def episode_seeds(root_seed: int, episode_id: int) -> tuple[int, np.random.Generator]:
    """The environment's seed (32 bits) and the policy's generator of episode `episode_id`."""
    sequence = np.random.SeedSequence(root_seed, spawn_key=(episode_id,))
    return int(sequence.generate_state(1)[0]), np.random.default_rng(sequence.spawn(1)[0])


def rollout(spec: RolloutSpec, episode_id: int) -> Episode:
    """Play one episode in a fresh environment.

    Raises EpisodeFailed, naming episode, seed and step, if the environment or the policy raises or breaks its contract.
    """
    seed, policy_rng = episode_seeds(spec.seed, episode_id)
    try:
        env = make_image_env(spec.env, spec.env_kwargs, spec.frames, tuple(spec.record))
        try:
            policy = make_policy(spec.policy, env.gym)
            return _play(env, policy, spec, episode_id, seed, policy_rng)
        finally:
            env.close()
    except WorldModelError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(spec, episode_id, seed, error) from error


def _failed(spec: RolloutSpec, episode_id: int, seed: int, error: BaseException, where: str = "") -> EpisodeFailed:
    return EpisodeFailed(f"episode {episode_id} (seed {seed}) of {spec.env}: {where}{one_line(error)}")


def _play(
    env: ImageEnv, policy: Policy, spec: RolloutSpec, episode_id: int, seed: int, policy_rng: np.random.Generator
) -> Episode:
    raw = env.reset(seed)
    if env.state_names != spec.schema.state_names:
        raise EpisodeFailed(
            f"episode {episode_id} (seed {seed}) of {spec.env}: the environment's ground truth is {list(env.state_names)}, "
            f"in episode 0 it is {list(spec.schema.state_names)}"
        )
    moved = policy.reset(policy_rng)
    raw = raw if moved is None else require_frame(moved)
    preprocess = FramePreprocessor(raw.shape, spec.preprocessing)
    frames = _Frames(preprocess, spec.max_steps + 1)
    rows: list[_Row] = []
    extras: list[list[Any]] = []
    ended = False
    try:
        while not ended:
            action = env.record_action(policy.act(raw))
            frames.add(raw)
            state, before = env.state(), raw.shape
            extras.append(_kept(env))
            raw, reward, terminated, truncated = env.step(action)
            if raw.shape != before:
                raise ValueError(f"the frame's shape changed from {before} to {raw.shape}")
            truncated = truncated or (not terminated and len(rows) + 1 == spec.max_steps)
            rows.append((state, action, reward, terminated, truncated))
            ended = terminated or truncated
    except WorldModelError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(spec, episode_id, seed, error, where=f"in step {len(rows)}: ") from error
    frames.add(raw)
    extras.append(_kept(env))
    rows.append((env.state(), spec.schema.action.fill_value, np.nan, False, False))
    states, actions, rewards, terminations, truncations = zip(*rows, strict=True)
    return Episode(
        schema=spec.schema,
        episode_id=episode_id,
        seed=seed,
        policy=getattr(policy, "chosen", spec.policy),
        columns={
            "pixels": frames.pixels,
            "action": _actions(env, spec.schema.action, actions),
            "reward": _float32(rewards),
            "terminated": np.array(terminations, dtype=np.bool_),
            "truncated": np.array(truncations, dtype=np.bool_),
            **({"state": _float32(states)} if env.state_names else {}),
            **_extras(spec.schema, extras),
        },
    )


def _kept(env: ImageEnv) -> list[Any]:
    """What is recorded beside a frame; copied, since the environment may use its arrays again."""
    return copy.deepcopy(env.extras()) if env.record else []


def _actions(env: ImageEnv, column: Column, actions: tuple[Any, ...]) -> np.ndarray:
    """The actions of an episode, and the fill of the last row: (T + 1, …)."""
    rows = np.empty((len(actions), *column.row_shape), column.dtype)
    for row, action in zip(rows[:, None], actions, strict=True):
        row[:] = action
    env.require_inside(rows[:-1])
    return rows


def _extras(schema: Schema, extras: list[list[Any]]) -> dict[str, np.ndarray]:
    by_column = zip(schema.by_role("extra"), zip(*extras, strict=True), strict=True)
    return {column.name: extra_rows(column, list(values)) for column, values in by_column}


def _float32(values: tuple[Any, ...]) -> np.ndarray:
    """Numbers as the dataset holds them; those beyond its range become infinite, which the record refuses."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32)


_Row = tuple[tuple[float, ...], Any, float, bool, bool]
"""State, action as recorded, reward, terminated, truncated."""


class _Frames:
    """Frames of an episode of unknown length, each resized right into its place: copying them later costs as much again."""

    def __init__(self, preprocess: FramePreprocessor, limit: int) -> None:
        self._preprocess = preprocess
        self._num_frames = 0
        self._buffer = np.empty((min(limit, FRAMES_AT_FIRST), *preprocess.frame_shape), np.uint8)

    def add(self, raw: np.ndarray) -> None:
        if self._num_frames == len(self._buffer):
            self._buffer = np.concatenate([self._buffer, np.empty_like(self._buffer)])
        self._preprocess(raw, self._buffer[self._num_frames])
        self._num_frames += 1

    @property
    def pixels(self) -> np.ndarray:
        """uint8 (n, H, W, 3): the frames so far."""
        return self._buffer[: self._num_frames]
