"""Any Gymnasium environment with images, behind one small interface.

The frame is the observation where that is an image, and `render()` of an "rgb_array" environment otherwise. An episode
gets a fresh environment: hidden state that an environment carries from one episode to the next (physics caches, counters)
would make an episode depend on its predecessors, and building CarRacing costs 14 ms against seconds of stepping.
"""

import importlib
import numbers
import operator
import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from worldmodel_v.envs.car_racing import CAR_RACING_STATE, car_racing_state, is_car_racing
from worldmodel_v.errors import EnvironmentNotUsable, one_line
from worldmodel_v.preprocessing import FULL

CAR_RACING_CROP = "0:84,0:96"
"""The paper's: the 84 rows above the indicator panel."""


class ImageEnv:
    """One environment: `reset` and `step` give raw uint8 frames, (H, W, 3) or (H, W)."""

    def __init__(self, env: gymnasium.Env, observes_image: bool) -> None:
        self.gym = env
        self._observes_image = observes_image
        self._discrete = isinstance(env.action_space, Discrete)
        self._world = env.unwrapped
        self._is_car_racing = is_car_racing(env)
        self._space = env.action_space
        self._state_names: tuple[str, ...] = ()

    @property
    def action_space(self) -> Box | Discrete:
        return self._space

    @property
    def default_crop(self) -> str:
        return CAR_RACING_CROP if self._is_car_racing else FULL

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode; returns its first frame."""
        observation, _ = self.gym.reset(seed=seed)
        self._state_names = CAR_RACING_STATE if self._is_car_racing else tuple(self._ground_truth())
        frame = self._frame(observation)
        if self._observes_image and frame.shape != self.gym.observation_space.shape:
            raise ValueError(f"the frame has shape {frame.shape}, the observation space {self.gym.observation_space.shape}")
        return frame

    def step(self, recorded_action: np.ndarray | int) -> tuple[np.ndarray, float, bool, bool]:
        """(frame, reward, terminated, truncated) after an action, given as it is recorded (see `record_action`).

        Raises ValueError or TypeError if the environment gives something else; whether numbers are finite is for the record.
        """
        observation, reward, terminated, truncated, _ = self.gym.step(self._gym_action(recorded_action))
        reward = _number("the reward", reward)
        return self._frame(observation), reward, _truth("terminated", terminated), _truth("truncated", truncated)

    def record_action(self, action: Any) -> np.ndarray | int:
        """An action as the dataset holds it: int for a discrete space, float32 (A,) for a Box.

        The environment then receives exactly that, cast to its space's dtype, so that recorded episodes replay.
        Raises ValueError if the action does not have the space's shape, TypeError if it is no whole number for a discrete one.
        """
        if self._discrete:
            return operator.index(action)
        recorded = np.array(action, dtype=np.float32)  # a copy: a policy may use its array again
        if recorded.shape != self._space.shape:
            raise ValueError(f"the policy's action has shape {recorded.shape}, the action space {self._space.shape}")
        return recorded.reshape(-1)

    def require_inside(self, recorded_actions: np.ndarray) -> None:
        """Raise ValueError, naming the step, unless all actions of an episode, (T, A) or (T,), lie in the action space."""
        if self._discrete:
            low, high = self._space.start, self._space.start + self._space.n - 1
        else:  # actions are recorded in float32, to which a bound may be rounded too
            low, high = (bound.astype(np.float32).reshape(-1) for bound in (self._space.low, self._space.high))
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
        space = self._space
        if isinstance(recorded, int):
            return space.dtype.type(recorded)
        return recorded.astype(space.dtype).reshape(space.shape)

    def _frame(self, observation: Any) -> np.ndarray:
        return require_frame(observation if self._observes_image else self.gym.render())


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


def make_image_env(env_id: str, env_kwargs: dict[str, Any]) -> ImageEnv:
    """Build an environment by Gymnasium id (`module:EnvId` imports the module first).

    Raises EnvironmentNotUsable if it is unknown, cannot be built, gives no images, or has other actions than Box or Discrete.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    env = _make(env_id, env_kwargs)
    if not isinstance(env.action_space, Box | Discrete):
        raise EnvironmentNotUsable(f"{env_id}: expected Box or Discrete actions, got {type(env.action_space).__name__}")
    if _is_image(env.observation_space):
        return ImageEnv(env, observes_image=True)
    modes = env.metadata.get("render_modes", [])
    env.close()
    if "rgb_array" not in modes:
        raise EnvironmentNotUsable(
            f"{env_id}: gives no images: its observation is {env.observation_space} and its render modes are {modes}; "
            "expected a uint8 image observation or the render mode rgb_array"
        )
    return ImageEnv(_make(env_id, {**env_kwargs, "render_mode": "rgb_array"}), observes_image=False)


def _make(env_id: str, env_kwargs: dict[str, Any]) -> gymnasium.Env:
    try:
        if ":" in env_id:
            importlib.import_module(env_id.split(":")[0])
        return gymnasium.make(env_id, disable_env_checker=True, **env_kwargs)
    except Exception as error:
        raise EnvironmentNotUsable(
            f"environment {env_id!r} with {env_kwargs or 'no arguments'} cannot be built: {one_line(error)}; "
            "`python -m gymnasium.envs.registration` lists the registered ids"
        ) from error


def _is_image(space: gymnasium.Space) -> bool:
    if not isinstance(space, Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[2] in (1, 3))
