"""Any Gymnasium environment with images, behind one small interface.

The frame is the observation where that is an image, and `render()` of an "rgb_array" environment otherwise. An episode
gets a fresh environment: hidden state that an environment carries from one episode to the next (physics caches, counters)
would make an episode depend on its predecessors, and building CarRacing costs 14 ms against seconds of stepping.
"""

import importlib
import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from worldmodel_v.envs.car_racing import CAR_RACING_STATE, car_racing_state, is_car_racing
from worldmodel_v.envs.frames import FULL
from worldmodel_v.errors import EnvironmentNotUsable, one_line

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
        return self._frame(observation)

    def step(self, recorded_action: np.ndarray | int) -> tuple[np.ndarray, float, bool, bool]:
        """(frame, reward, terminated, truncated) after an action, given as it is recorded (see `record_action`)."""
        observation, reward, terminated, truncated, _ = self.gym.step(self._gym_action(recorded_action))
        return self._frame(observation), float(reward), bool(terminated), bool(truncated)

    def record_action(self, action: Any) -> np.ndarray | int:
        """An action as the dataset holds it: int for a discrete space, float32 (A,) for a Box.

        The environment then receives exactly that, cast to its space's dtype, so that recorded episodes replay.
        Raises ValueError if the action does not have the space's shape.
        """
        if self._discrete:
            return int(action)
        recorded = np.array(action, dtype=np.float32)  # a copy: a policy may use its array again
        if recorded.shape != self._space.shape:
            raise ValueError(f"the policy's action has shape {recorded.shape}, the action space {self._space.shape}")
        return recorded.reshape(-1)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The factors of the ground truth, as of the last reset; empty where the environment offers none."""
        return self._state_names

    def state(self) -> tuple[float, ...]:
        """The ground truth behind the frame just seen: a value for each of `state_names`."""
        if self._is_car_racing:
            return car_racing_state(self._world)
        truth = self._ground_truth()
        return tuple([truth[name] for name in self._state_names])

    def close(self) -> None:
        self.gym.close()

    def _ground_truth(self) -> dict[str, float]:
        ground_truth = getattr(self._world, "ground_truth", None)
        return ground_truth() if callable(ground_truth) else {}

    def _gym_action(self, recorded: np.ndarray | int) -> Any:
        space = self._space
        if isinstance(recorded, int):
            return space.dtype.type(recorded)
        return recorded.astype(space.dtype).reshape(space.shape)

    def _frame(self, observation: Any) -> np.ndarray:
        frame = observation if self._observes_image else self.gym.render()
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
            raise ValueError(f"expected a uint8 frame, got {getattr(frame, 'dtype', type(frame).__name__)}")
        if not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] in (1, 3))):
            raise ValueError(f"expected a frame of shape (H, W), (H, W, 1) or (H, W, 3), got {frame.shape}")
        return frame


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
