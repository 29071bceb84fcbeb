"""What `wm-collect` can be asked for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval, Lt

from worldmodel_v.envs.picture import AUTO, Layout
from worldmodel_v.errors import ConfigError
from worldmodel_v.execution import Executor, Here, RayPool, WorkerSettings, refuse_idle_address
from worldmodel_v.execution.worker import MAX_GROWTH_BYTES
from worldmodel_v.preprocessing import FULL, Fit, Preprocessing, Resize, parse_frame_size, require_trainable
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import local_path
from worldmodel_v.storage.layout import MAX_EPISODES_PER_SHARD, MAX_ROWS_PER_EPISODE, MAX_SHARDS
from worldmodel_v.surface import option
from worldmodel_v.untrusted import canonical_json, parse_object

MAX_TIMEOUT_SECONDS = 1e6

Pool = Literal["last", "max"]
DEFAULT_MAX_STEPS = 1000
"""For an environment that is registered without a limit."""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


@dataclass(frozen=True, kw_only=True)
class CollectionConfig:
    """The options for any source: the dataset, the number of episodes, and the workers."""

    out: Path
    """The dataset's directory: new, empty, or a dataset made with these settings."""

    episodes: Annotated[int, Ge(1)] = 100
    """The number of episodes that the dataset will have: at most a million times --episodes-per-shard."""

    seed: Annotated[int, Ge(0)] = 0
    """The root seed; episode i uses numpy's SeedSequence(seed, spawn_key=(i,))."""

    workers: Annotated[int, Ge(0)] = 2
    """Ray workers, one CPU each; 0 collects without Ray, one episode after another."""

    address: str | None = None
    """The Ray cluster that workers run on (auto, ray://HOST:PORT, HOST:PORT); without it RAY_ADDRESS, or else a local Ray."""

    episodes_per_shard: Annotated[int, Interval(ge=1, le=MAX_EPISODES_PER_SHARD)] = 10
    """Consecutive episodes in one file: the unit of work, of commitment and of loss."""

    episode_timeout: Annotated[float, Interval(ge=0, le=MAX_TIMEOUT_SECONDS)] = 3600.0
    """Seconds that an episode may take; one that hangs longer, even in native code, is stopped, tried again and then set aside.
    0: no limit. In Python, without workers and without a process apart, there is no limit either."""

    def executor(self, num_tasks: int, *, apart: bool = False) -> Executor:
        """The executor for `num_tasks` tasks: no more workers than tasks; with `apart`, each has one task at a time."""
        if self.workers == 0:
            return Here()
        num_workers = min(self.workers, num_tasks)
        settings = WorkerSettings(num_workers=num_workers, address=self.address, max_growth_bytes=MAX_GROWTH_BYTES)
        return RayPool(settings, apart=apart)

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", local_path("out", self.out))
        require_settings(self)
        refuse_idle_address(self.address, self.workers)
        if self.episodes > (most := MAX_SHARDS * self.episodes_per_shard):
            raise ConfigError(
                field="episodes",
                expected=f"at most {most}, which are {MAX_SHARDS} shards",
                got=self.episodes,
                remedy=f"ask for fewer, or raise {option('episodes_per_shard')} (now {self.episodes_per_shard})",
            )


@dataclass(frozen=True, kw_only=True)
class CollectConfig(CollectionConfig):
    """Roll out episodes of an environment into a dataset of frames, actions, rewards and ends.

    The same command again continues where it stopped; a larger --episodes extends the dataset. Episode i depends only on
    the settings and i, so the number of workers changes nothing in the files.
    """

    env: str = "worldmodel_v/CarRacing-v3"
    """A Gymnasium id, or module:EnvId to import a module first. Needs an image observation or rgb_array rendering. The
    default is Gymnasium's CarRacing-v3, the same to the byte, drawn some twenty times faster."""

    env_kwargs: str = "{}"
    """Arguments of the environment as JSON, such as '{"continuous": false}'."""

    wrap: tuple[str, ...] = ()
    """Wrappers around the environment, the innermost first, each module:Class such as
    gymnasium.wrappers:GrayscaleObservation."""

    reset_options: str = "{}"
    """The `options` of every reset as JSON, such as '{"randomize": false}'."""

    frame_skip: Annotated[int, Ge(1)] = 1
    """How often the environment receives each action, besides any skip of its own. Rewards are summed; one row is recorded."""

    frame_skip_pool: Pool = "last"
    """What is recorded of the frames of a skip: the last, or the largest values of the last two (for Atari's flicker)."""

    max_steps: Annotated[int | None, Ge(1), Lt(MAX_ROWS_PER_EPISODE)] = None
    """Actions after which an episode is cut (and recorded as truncated): below 2^31 - 1. Without it, the limit that the
    environment is registered with, or 1000."""

    policy: str = "brownian"
    """random, brownian (a random walk in action space), driver(noise=0.2) (follows CarRacing's track), random-start(driver),
    mixture(4*driver, brownian), checkpoint:MODULE:FACTORY:FILE, onnx:FILE, sb3:FILE (a zip of Stable-Baselines3), or
    module:factory of your own (see worldmodel_v.policies)."""

    frame_size: int | str = 64
    """Height and width of the recorded frames, multiples of 8 from 8 to 1024: a number, or HEIGHTxWIDTH such as 96x128."""

    frames: str = AUTO
    """Which picture is recorded: observation, observation.KEY (a part of a Dict or Tuple), render (the spectator's view), or
    auto: the one picture in the observation, and render only if there is none. Floats are scaled by their space's bounds."""

    layout: Layout = AUTO
    """The axes of that picture: HWC, HW, CHW, or with T for a stack of frames. From a stack, the last (newest) frame is
    recorded. auto: HWC, HW or CHW if only one of them fits the shape; never a stack."""

    record: tuple[str, ...] = ()
    """What to record beside the frames, each as a column: observation.KEY or info.KEY, numbers or arrays of numbers."""

    crop: str = AUTO
    """Rows and columns kept before resizing: TOP:BOTTOM,LEFT:RIGHT, full, or auto (CarRacing: 0:84,0:96, without the panel)."""

    resize: Resize = "area"
    """area (the mean over the area that each pixel covers) or bilinear (half-pixel centres, no antialiasing)."""

    fit: Fit = "stretch"
    """stretch (the crop fills the frame) or letterbox (the crop keeps its aspect ratio, and the rest of the frame is black)."""

    def preprocessing(self, default_crop: str) -> Preprocessing:
        """How frames are cropped and resized; `auto` is `default_crop`. Raises ConfigError."""
        height, width = parse_frame_size(self.frame_size)
        crop = default_crop if self.crop == AUTO else self.crop
        return Preprocessing(crop=crop, frame_height=height, frame_width=width, resize=self.resize, fit=self.fit)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frame_skip_pool == "max" and self.frame_skip == 1:
            raise ConfigError(
                "needs two frames to take the largest of",
                field="frame_skip_pool",
                got="max",
                remedy=f"give a {option('frame_skip')} of at least 2",
            )
        require_trainable(*self.preprocessing(FULL).frame_shape, field="frame_size", got=self.frame_size)
        self.parsed_env_kwargs()
        self.parsed_reset_options()

    def parsed_env_kwargs(self) -> dict[str, Any]:
        """`env_kwargs` as a dictionary; raises ConfigError if it is no JSON object, or none that can be recorded."""
        return _parsed("env_kwargs", self.env_kwargs, '{"continuous": false}')

    def parsed_reset_options(self) -> dict[str, Any]:
        """`reset_options`, likewise."""
        return _parsed("reset_options", self.reset_options, '{"randomize": false}')


def _parsed(field: str, text: str, example: str) -> dict[str, Any]:
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
        parse_object(canonical_json(values))  # as it is recorded and read again
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"is not JSON such as '{example}': {error}", field=field, got=text) from None
    return values
