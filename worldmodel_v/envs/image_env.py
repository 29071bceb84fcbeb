"""Any Gymnasium environment with images, behind one small interface.

`parts` says which picture the frames are, and what is recorded beside them. Each episode gets a fresh environment, because
hidden state that an environment carries over (physics caches, counters) would make an episode depend on earlier ones.
Building CarRacing costs 14 ms, stepping it costs seconds.
"""

import copy
import numbers
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import gymnasium
import numpy as np

from worldmodel_v.envs.actions import Actions
from worldmodel_v.envs.calls import Call, calls_noted
from worldmodel_v.envs.car_racing import car_racing_state, is_car_racing
from worldmodel_v.envs.options import EnvOptions
from worldmodel_v.envs.parts import MISSING, OBSERVATION, RENDER, leaves, part_of, recorded_leaves
from worldmodel_v.envs.picture import PLAIN, Picture, layout_of, plain_array
from worldmodel_v.envs.source import layers
from worldmodel_v.errors import ConfigError, shown
from worldmodel_v.interrupts import is_interruption
from worldmodel_v.preprocessing import FULL
from worldmodel_v.profiles import CAR_RACING
from worldmodel_v.schema import ActionSpace, Column, Schema, rollout_schema, space_record

PLAIN_OPTIONS = EnvOptions(frames=OBSERVATION)
FINAL_OBSERVATION = ("final_obs", "final_observation", "terminal_observation")
"""What environments that reset themselves call the observation that they do not return, in `info`."""

RESET_GIVES = ("observation", "info")
STEP_GIVES = ("observation", "reward", "terminated", "truncated", "info")


class ImageEnv:
    """One environment: `reset` and `step` give raw uint8 frames, (H, W, 3) or (H, W)."""

    def __init__(self, env: gymnasium.Env, options: EnvOptions = PLAIN_OPTIONS) -> None:
        """`env` already has its wrappers. The options say what is recorded; `frames` is a path or "render", not "auto".

        Raises ValueError if a dataset cannot hold its actions.
        """
        self.gym, self.frames, self.record, self._options = env, options.frames, options.record, options
        self._frame_path = tuple(options.frames.split(".")[1:])
        self._frame_space = _frame_space(env, options)
        self.picture = self._frame_space and Picture(self._frame_space, layout_of(self._frame_space, options.layout) or PLAIN)
        """Makes frames from the observation; None if they need no conversion."""

        self.layout = self.picture.layout if self.picture else PLAIN
        self._convert = None if self.picture is None or self.picture.is_plain else self.picture
        self._paths = [(path.split(".")[0] == OBSERVATION, tuple(path.split(".")[1:])) for path in options.record]
        self._look_inside()
        self._actions = Actions(env.action_space)
        self._state_names: tuple[str, ...] = ()
        self._frame_shape: tuple[int, ...] = ()
        self.seen: tuple[Any, dict[str, Any]] = None, {}
        """The environment's own observation and info of the frame just seen."""

        self.calls: list[Call] = []
        """Of its last step, those of `step` and `reset` on its layers, if `calls_noted` notes them here."""

    @property
    def action_space(self) -> gymnasium.Space:
        return self._actions.space

    @property
    def actions(self) -> ActionSpace:
        """Its space as a dataset records it."""
        return self._actions.as_recorded

    @property
    def default_crop(self) -> str:
        is_its_picture = self._is_car_racing and self.frames == OBSERVATION and self.picture
        return CAR_RACING.crop if is_its_picture and is_its_picture.sides == CAR_RACING.sides else FULL

    def reset(self, seed: int, options: dict[str, Any] | None = None) -> np.ndarray:
        """Begin an episode; returns its first frame. `options` replace `reset_options`.

        Raises ValueError if its spaces are others now, or the frame has another shape than its space says.
        """
        options = copy.deepcopy(self._options.reset_options) or None if options is None else options
        observation, info = _parts("reset", self.gym.reset(seed=seed, options=options), RESET_GIVES)
        self.seen = observation, info
        self._look_inside()
        self._state_names = CAR_RACING.state_names if self._tells_as_car_racing else tuple(self._truth())
        frame = self._frame()
        self._frame_shape = frame.shape
        self._require_spaces_as_before()
        if self._frame_space is not None:
            shown = part_of(observation, self._frame_path).shape
            if shown != (promised := self._frame_space.shape):
                raise ValueError(f"the frame has shape {shown}, the observation space {promised}")
        return frame

    def begin(self, policy: Any, rng: np.random.Generator, frame: np.ndarray, name: str) -> np.ndarray:
        """The first frame once the policy, called `name`, is reset: its own if it moves the environment, else `frame`.

        Raises ConfigError if it moves the environment and returns no frame, or if that frame is not enough.
        """
        with calls_noted(self.gym) as calls:
            moved = policy.reset(rng)
        if moved is not None:
            return self._moved(moved, name)
        if calls:
            raise ConfigError(
                f"the policy {name} calls the environment's {calls[0].name} in its own reset and returns no frame, so the "
                "first frame would be the one before",
                field="policy",
                got=name,
                remedy="return the frame that the environment shows then",
            )
        return frame

    def step(self, recorded_action: np.ndarray | int) -> tuple[np.ndarray, float, bool, bool]:
        """(frame, reward, terminated, truncated) after an action, given as it is recorded (see `record_action`).

        With a frame skip the environment receives the action that many times, unless the episode ends before. Rewards are
        summed. The frame is the last one, or with `max` the largest values of the last two.

        Raises ValueError or TypeError if the environment gives something else. The record checks whether numbers are finite.
        """
        reward, terminated, truncated = self._step(recorded_action)
        before = None
        for _ in range(self._options.frame_skip - 1):
            if terminated or truncated:
                break
            if self._options.frame_skip_pool == "max":
                before = self._frame().copy()
            elif "T" in self.layout:
                self._frame()  # a stack shows by each frame alone which end is the newest
            more, terminated, truncated = self._step(recorded_action)
            reward += more
        if terminated or truncated:
            self._require_final()
        frame = self._of_one_shape(self._frame())
        return frame if before is None else np.maximum(before, frame), reward, terminated, truncated

    def extras(self) -> list[Any]:
        """The parts that `record` names, for the frame just seen; MISSING if absent. The environment may change the arrays."""
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

    @property
    def render_shape(self) -> tuple[int, ...]:
        """The shape of the frame at the last reset if `render()` gives it, else ()."""
        return self._frame_shape if self.frames == RENDER else ()

    def require_as_recorded(self, schema: Schema, render_shape: tuple[int, ...]) -> None:
        """Raise ValueError, naming them, if the actions or the frames of this episode, after its reset, have another space than
        those of the dataset, or `render()` another shape."""
        recorded: dict[str, Any] = {"action_space": schema.action_space, "render": render_shape}
        here = {"action_space": self.actions.record, "render": self.render_shape}
        if self._frame_space is not None:
            recorded[self.frames] = dict(recorded_leaves(schema.observation_space)).get(self.frames)
            here[self.frames] = space_record(self._frame_space)
        if differing := [name for name in here if here[name] != recorded[name]]:
            name = differing[0]
            raise ValueError(
                f"the environment's {name} is {here[name]!r:.300} in this episode, and {recorded[name]!r:.300} in the dataset; "
                "make it the same in every episode, in a wrapper if need be"
            )

    def record_action(self, action: Any) -> np.ndarray | int:
        """An action as the dataset holds it and the environment then receives it (see `Actions.recorded`)."""
        return self._actions.recorded(action)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The factors of the ground truth, as of the last reset; empty if the environment has none."""
        return self._state_names

    def state(self) -> tuple[float, ...]:
        """The ground truth behind the frame just seen: a value for each of `state_names`."""
        if self._tells_as_car_racing:
            return car_racing_state(self._world)
        truth = self._truth()
        if truth.keys() != set(self._state_names):
            raise ValueError(f"the ground truth's names changed from {list(self._state_names)} to {list(truth)}")
        return tuple([_number(f"the ground truth {name}", truth[name]) for name in self._state_names])

    def close(self) -> None:
        self.gym.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it; if an error has ended the block, that error counts, and not one of closing."""
        try:
            self.close()
        except BaseException as another:
            if error is None or is_interruption(another):
                raise

    def _moved(self, frame: Any, policy: str) -> np.ndarray:
        """The first frame, from a policy that has moved the environment after the reset.

        Raises ConfigError if this frame is not enough: if more is recorded beside it, or a wrapper would change it.
        """
        options = self._options
        is_plain = self.frames == OBSERVATION and self.picture is not None and self.picture.is_plain
        if options.record or options.wrap or not is_plain:
            field = "record" if options.record else "wrap" if options.wrap else "frames"
            raise ConfigError(
                f"the policy {policy} moves the environment before the first step, and what stands beside the frame it "
                "moves to is not known, nor what a wrapper makes of it",
                field=field,
                got=getattr(self, field, None) or getattr(options, field),
                remedy="use another policy, or leave it out",
            )
        self.seen = self._of_one_shape(require_frame(frame)), self.seen[1]
        return frame

    def _look_inside(self) -> None:
        """Find what tells the ground truth; a wrapper may put another environment inside at a reset."""
        self._world, self._is_car_racing = self.gym.unwrapped, is_car_racing(self.gym)
        told = (getattr(layer, "ground_truth", None) for layer in layers(self.gym))
        self._ground_truth: Callable[[], Any] | None = next(filter(callable, told), None)

    @property
    def _tells_as_car_racing(self) -> bool:
        return self._is_car_racing and self._ground_truth is None

    def _truth(self) -> dict[str, float]:
        truth = {} if self._ground_truth is None else self._ground_truth()
        if not isinstance(truth, dict):
            raise TypeError(f"the ground truth: expected a dict of numbers by name, got {shown(truth)}")
        return truth

    def _require_spaces_as_before(self) -> None:
        now = space_record(self.gym.action_space)
        if now != self.actions.record:
            raise ValueError(f"its action space is {now} after reset, and {self.actions.record} before")
        if self._frame_space is not None:
            shown = dict(leaves(self.gym.observation_space)).get(self.frames)
            if shown is not self._frame_space and shown != self._frame_space:  # comparing large ones takes milliseconds
                raise ValueError(f"the space of its {self.frames} is {shown} after reset, and {self._frame_space} before")
            if self._convert is not None and not self._convert.scales_by(shown):
                raise ValueError(f"the bounds in the space of its {self.frames} changed at its reset; set them when it is made")

    def _of_one_shape(self, frame: np.ndarray) -> np.ndarray:
        if self._frame_shape and frame.shape != self._frame_shape:
            raise ValueError(f"the frame's shape changed from {self._frame_shape} to {frame.shape}")
        return frame

    def _step(self, recorded_action: np.ndarray | int) -> tuple[float, bool, bool]:
        self.calls.clear()
        given = self.gym.step(self._actions.received(recorded_action))
        observation, reward, terminated, truncated, info = _parts("step", given, STEP_GIVES)
        self.seen = observation, info
        return _number("the reward", reward), require_truth("terminated", terminated), require_truth("truncated", truncated)

    def _require_final(self) -> None:
        """Raise ValueError if it resets itself and gives the next episode's first observation, not the final one."""
        if self._shows_next_episode():
            raise ValueError(
                "the episode has ended, and the environment resets itself in the same step, so that what it shows is the next "
                "episode's first frame; have it wait for the caller's reset"
            )
        observation, info = self.seen
        given = part_of(observation, self._frame_path)
        for name in FINAL_OBSERVATION:
            final = part_of(info, (name,))
            if isinstance(final, np.ndarray) and final.dtype.hasobject and final.size == 1:  # as of a vector of one
                final = final.item()
            final = part_of(final, self._frame_path)
            both_arrays = isinstance(final, np.ndarray) and isinstance(given, np.ndarray) and final.shape == given.shape
            if both_arrays and not np.array_equal(final, given):
                raise ValueError(
                    f"the episode has ended, and info[{name!r}] is another observation than the one returned: the environment "
                    "resets itself; have it return the final observation"
                )

    def _shows_next_episode(self) -> bool:
        """Whether a layer was reset in the last step, and what a layer then gave is what the reset did.

        An environment that a layer holds may be reset for the layer's own ends. So it counts if it was reset in its own step,
        or if what is seen is what the reset gave.
        """
        told = [call for call in self.calls if isinstance(call.given, tuple | list)]
        for reset in (call for call in told if call.name == "reset"):
            steps = [call.given[0] for call in told if call.name == "step" and call.of_layer == reset.of_layer]
            shown = steps if reset.of_layer or reset.in_step else [self.seen[0]]
            if any(_are_equal(reset.given[0], each) for each in shown) or (reset.of_layer and self.frames == RENDER):
                return True
        return False

    def _frame(self) -> np.ndarray:
        picture = self.gym.render() if self.frames == RENDER else part_of(self.seen[0], self._frame_path)
        if picture is MISSING:
            raise ValueError(f"the observation has no {self.frames}")
        return require_frame(picture) if self._convert is None else self._convert(picture)


def _frame_space(env: gymnasium.Env, options: EnvOptions) -> gymnasium.spaces.Box | None:
    """The space of the picture; None for `render()`."""
    if options.frames == RENDER:
        return None
    space = dict(leaves(env.observation_space))[options.frames]
    assert isinstance(space, gymnasium.spaces.Box)
    return space


def require_frame(frame: Any) -> np.ndarray:
    """A frame as it is, uint8 (H, W), (H, W, 1) or (H, W, 3); raises ValueError if it is something else."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        found = frame.dtype if isinstance(frame, np.ndarray) else f"{type(frame).__name__}, which is no NumPy array"
        raise ValueError(f"expected a uint8 frame, got {found}")
    if type(frame) is not np.ndarray:  # a subclass may have values that are none, or other shapes than those of its data
        frame = plain_array(frame)
    if not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] in (1, 3))):
        raise ValueError(f"expected a frame of shape (H, W), (H, W, 1) or (H, W, 3), got {frame.shape}")
    return frame


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two observations hold the same values; NaN is the same as NaN."""
    try:
        np.testing.assert_equal(one, other)
    except (AssertionError, TypeError, ValueError):
        return False
    return True


def _parts(method: str, given: Any, expected: tuple[str, ...]) -> Any:
    """What `reset` or `step` has given; raises TypeError if the parts are not as many, as of old Gym's environments."""
    if not isinstance(given, tuple | list) or len(given) != len(expected):
        found = f"{len(given)} parts" if isinstance(given, tuple | list) else shown(given)
        raise TypeError(f"its {method} gives {found}, expected ({', '.join(expected)}) as Gymnasium's environments give")
    return given


def _number(what: str, value: Any) -> float:
    """A number of Python or of a library, as a float; a text, or a list of one number, is not accepted, nor a whole number that
    float32, in which it is recorded, would round (ValueError)."""
    if isinstance(value, float):  # numpy's float64 is one
        return value
    is_scalar = isinstance(value, numbers.Real) or getattr(value, "shape", None) == ()
    if not is_scalar or np.asarray(value).dtype.kind not in "fiub":
        raise TypeError(f"{what}: expected a number, got {shown(value)}")
    if np.asarray(value).dtype.kind in "iu" and int(np.float32(value)) != int(value):
        raise ValueError(
            f"{what} is {shown(value)}, a whole number that float32 would round; scale it, in a wrapper if need be"
        )
    return float(value)


def require_truth(what: str, value: Any) -> bool:
    """A truth value of Python or of a library; raises TypeError if it is something else."""
    if value is True or value is False:
        return value
    if getattr(value, "shape", None) != () or np.asarray(value).dtype.kind != "b":
        raise TypeError(f"{what}: expected True or False, got {shown(value)}")
    return bool(value)
