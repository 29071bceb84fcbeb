"""Any Gymnasium environment with images, behind one small interface.

Which picture the frames are, and what is recorded beside them, `parts` says. An episode gets a fresh environment: hidden state
that an environment carries from one episode to the next (physics caches, counters) would make an episode depend on its
predecessors, and building CarRacing costs 14 ms against seconds of stepping.
"""

import importlib
import numbers
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from worldmodel_v.envs.car_racing import CAR_RACING_STATE, car_racing_state, is_car_racing
from worldmodel_v.envs.parts import (
    AUTO,
    MISSING,
    OBSERVATION,
    RENDER,
    channels_first,
    choose_frames,
    part_of,
    require_paths,
)
from worldmodel_v.errors import EnvironmentNotUsable, one_line
from worldmodel_v.preprocessing import FULL
from worldmodel_v.schema import ActionSpace, Column, Schema, rollout_schema, space_record

CAR_RACING_CROP = "0:84,0:96"
"""The paper's: the 84 rows above the indicator panel."""


class ImageEnv:
    """One environment: `reset` and `step` give raw uint8 frames, (H, W, 3) or (H, W)."""

    def __init__(self, env: gymnasium.Env, frames: str = OBSERVATION, record: tuple[str, ...] = ()) -> None:
        """`frames` is the path of the picture that is recorded, or "render"; `record` are the paths of further columns.

        Raises ValueError if its actions are of a space that no dataset holds.
        """
        self.gym, self.frames, self.record = env, frames, record
        self._frame_path = tuple(frames.split(".")[1:])
        self._paths = [(path.split(".")[0] == OBSERVATION, tuple(path.split(".")[1:])) for path in record]
        self._world = env.unwrapped
        self._is_car_racing = is_car_racing(env)
        self._space = env.action_space
        self.actions = ActionSpace(space_record(env.action_space))
        self._state_names: tuple[str, ...] = ()
        self.seen: tuple[Any, dict[str, Any]] = None, {}
        """The environment's own observation and info of the frame just seen."""

    @property
    def action_space(self) -> gymnasium.Space:
        return self._space

    @property
    def default_crop(self) -> str:
        return CAR_RACING_CROP if self._is_car_racing and self.frames == OBSERVATION else FULL

    def reset(self, seed: int, options: dict[str, Any] | None = None) -> np.ndarray:
        """Begin an episode; returns its first frame."""
        observation, info = self.gym.reset(seed=seed, options=options)
        self._state_names = CAR_RACING_STATE if self._is_car_racing else tuple(self._ground_truth())
        frame = self._frame(observation, info)
        if self.frames == OBSERVATION and observation.shape != self.gym.observation_space.shape:
            raise ValueError(
                f"the frame has shape {observation.shape}, the observation space {self.gym.observation_space.shape}"
            )
        return frame

    def step(self, recorded_action: np.ndarray | int) -> tuple[np.ndarray, float, bool, bool]:
        """(frame, reward, terminated, truncated) after an action, given as it is recorded (see `record_action`).

        Raises ValueError or TypeError if the environment gives something else; whether numbers are finite is for the record.
        """
        observation, reward, terminated, truncated, info = self.gym.step(self._gym_action(recorded_action))
        reward = _number("the reward", reward)
        return self._frame(observation, info), reward, _truth("terminated", terminated), _truth("truncated", truncated)

    def extras(self) -> list[Any]:
        """What `record` names, beside the frame just seen; MISSING for what is not there. The environment may change arrays."""
        observation, info = self.seen
        return [part_of(observation if of_observation else info, path) for of_observation, path in self._paths]

    def schema(self, frame_shape: tuple[int, int], extras: tuple[Column, ...] = ()) -> Schema:
        """What a dataset of this environment holds, after a reset; frames are recorded in `frame_shape`."""
        return rollout_schema(
            frame_shape=frame_shape,
            action_space=self.actions.record,
            observation_space=space_record(self.gym.observation_space),
            state_names=self._state_names,
            extras=extras,
        )

    def record_action(self, action: Any) -> np.ndarray | int:
        """An action as the dataset holds it: int for a discrete space, else float32 or int64 (A,).

        It is what the environment then receives, cast to its space's dtype first, so that recorded episodes replay.
        Raises ValueError if the action does not have the space's shape or its dtype cannot hold it, TypeError if it is no whole
        number for a discrete one.
        """
        kind = self.actions.kind
        if self.actions.row_shape == ():
            return operator.index(action)
        given = np.array(action, dtype=np.float32 if kind == "continuous" else None)  # a copy: a policy may use its array again
        if given.shape != self._space.shape:
            raise ValueError(f"the policy's action has shape {given.shape}, the action space {self._space.shape}")
        if kind == "continuous":
            received = given if self._space.dtype == np.float32 else given.astype(self._space.dtype).astype(np.float32)
            return received.reshape(-1)
        if kind == "discrete" and given.dtype.kind not in "iu":
            raise TypeError(f"the policy's action is {_shown(action)}, expected whole numbers for {self._space}")
        with np.errstate(invalid="ignore"):
            received = given.astype(self._space.dtype)
        if not (np.abs(received.astype(np.float64) - given) < 1).all():
            raise ValueError(f"the policy's action {given.tolist()} does not go into {self._space}")
        return received.astype(np.int64).reshape(-1)

    def require_inside(self, recorded_actions: np.ndarray) -> None:
        """Raise ValueError, naming the step, unless all actions of an episode, (T, A) or (T,), lie in the action space."""
        if self.actions.kind == "continuous":  # recorded in float32, to which a bound may be rounded too
            low, high = (bound.astype(np.float32).reshape(-1) for bound in (self._space.low, self._space.high))
        else:
            low, high = (bound.reshape(self.actions.row_shape) for bound in (self.actions.low, self.actions.high))
        inside = (recorded_actions >= low) & (recorded_actions <= high)
        if not inside.all():
            step = int(np.argwhere(~inside)[0, 0])
            action = recorded_actions[step].tolist()
            raise ValueError(f"the policy's action in step {step} is {action}, outside {self._space}; have the policy clip it")

    @property
    def state_names(self) -> tuple[str, ...]:
        """The factors of the ground truth, as of the last reset; empty where the environment offers none."""
        return self._state_names

    def state(self) -> tuple[float, ...]:
        """The ground truth behind the frame just seen: a value for each of `state_names`."""
        if self._is_car_racing:
            return car_racing_state(self._world)
        truth = self._ground_truth()
        if truth.keys() != set(self._state_names):
            raise ValueError(f"the ground truth's names changed from {list(self._state_names)} to {list(truth)}")
        return tuple([_number(f"the ground truth {name}", truth[name]) for name in self._state_names])

    def close(self) -> None:
        self.gym.close()

    def _ground_truth(self) -> dict[str, float]:
        ground_truth = getattr(self._world, "ground_truth", None)
        truth = ground_truth() if callable(ground_truth) else {}
        if not isinstance(truth, dict):
            raise TypeError(f"the ground truth: expected a dict of numbers by name, got {_shown(truth)}")
        return truth

    def _gym_action(self, recorded: np.ndarray | int) -> Any:
        if isinstance(recorded, int):
            return self._space.dtype.type(recorded)
        return recorded.astype(self._space.dtype).reshape(self._space.shape)

    def _frame(self, observation: Any, info: dict[str, Any]) -> np.ndarray:
        self.seen = observation, info
        picture = self.gym.render() if self.frames == RENDER else part_of(observation, self._frame_path)
        if picture is MISSING:
            raise ValueError(f"the observation has no {self.frames}")
        if isinstance(picture, np.ndarray) and channels_first(picture.shape):
            picture = np.moveaxis(picture, 0, -1)
        return require_frame(picture)


def require_frame(frame: Any) -> np.ndarray:
    """A frame as it is, uint8 (H, W), (H, W, 1) or (H, W, 3); raises ValueError if it is something else."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        raise ValueError(f"expected a uint8 frame, got {getattr(frame, 'dtype', type(frame).__name__)}")
    if not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] in (1, 3))):
        raise ValueError(f"expected a frame of shape (H, W), (H, W, 1) or (H, W, 3), got {frame.shape}")
    return frame


def _number(what: str, value: Any) -> float:
    """A number of Python's or a library's, as a float; a text or a list of one number is none."""
    if isinstance(value, float):  # numpy's float64 is one
        return value
    is_scalar = isinstance(value, numbers.Real) or getattr(value, "shape", None) == ()
    if not is_scalar or np.asarray(value).dtype.kind not in "fiub":
        raise TypeError(f"{what}: expected a number, got {_shown(value)}")
    return float(value)


def _truth(what: str, value: Any) -> bool:
    if value is True or value is False:
        return value
    if getattr(value, "shape", None) != () or np.asarray(value).dtype.kind != "b":
        raise TypeError(f"{what}: expected True or False, got {_shown(value)}")
    return bool(value)


def _shown(value: Any) -> str:
    return f"{' '.join(repr(value).split()):.100} ({type(value).__name__})"


def make_image_env(env_id: str, env_kwargs: dict[str, Any], frames: str = AUTO, record: tuple[str, ...] = ()) -> ImageEnv:
    """Build an environment by Gymnasium id (`module:EnvId` imports the module first).

    Raises EnvironmentNotUsable if it is unknown, cannot be built, has no picture at `frames` or none that is clear, or has
    actions that no dataset holds.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    require_paths(record)
    env = _make(env_id, env_kwargs)
    try:
        if choose_frames(env_id, env.observation_space, env.metadata.get("render_modes", []), frames) == RENDER:
            if env.render_mode != "rgb_array":
                env.close()
                env = _make(env_id, {**env_kwargs, "render_mode": "rgb_array"})
            frames = RENDER
        return choose_image_env(env, env_id, frames, record)
    except EnvironmentNotUsable:
        env.close()
        raise


def choose_image_env(env: gymnasium.Env, name: str, frames: str, record: tuple[str, ...]) -> ImageEnv:
    """An environment that was made already, with the picture that `frames` asks for; raises EnvironmentNotUsable."""
    render_modes = env.metadata.get("render_modes", [])
    chosen = choose_frames(name, env.observation_space, render_modes, frames)
    if chosen == RENDER and env.render_mode != "rgb_array":
        raise EnvironmentNotUsable(f'{name}: renders as {env.render_mode!r}, expected render_mode="rgb_array"; make it so')
    try:
        return ImageEnv(env, chosen, record)
    except ValueError as error:
        raise EnvironmentNotUsable(f"{name}: {error}") from None


def import_env(env_id: str, env_kwargs: dict[str, Any]) -> None:
    """Import the modules of an environment, without building it; raises EnvironmentNotUsable."""
    with _told_by_name(env_id, env_kwargs):
        module, _, name = env_id.rpartition(":")
        if module:
            importlib.import_module(module)
        entry_point = getattr(gymnasium.registry.get(name), "entry_point", None)
        if isinstance(entry_point, str):
            load_env_creator(entry_point)


def _make(env_id: str, env_kwargs: dict[str, Any]) -> gymnasium.Env:
    import_env(env_id, env_kwargs)
    with _told_by_name(env_id, env_kwargs):
        return gymnasium.make(env_id, disable_env_checker=True, **env_kwargs)


@contextmanager
def _told_by_name(env_id: str, env_kwargs: dict[str, Any]) -> Iterator[None]:
    """Raise EnvironmentNotUsable in the place of whatever is raised in the block."""
    try:
        yield
    except Exception as error:
        raise EnvironmentNotUsable(
            f"environment {env_id!r} with {env_kwargs or 'no arguments'} cannot be built: {one_line(error)}; "
            "`python -m gymnasium.envs.registration` lists the registered ids"
        ) from error
