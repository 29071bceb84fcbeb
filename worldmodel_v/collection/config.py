"""What `wm-collect` can be asked for."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval, Lt

from worldmodel_v.envs.picture import AUTO, Layout
from worldmodel_v.errors import ConfigError
from worldmodel_v.execution import Executor, Here, RayPool, WorkerSettings, refuse_idle_address
from worldmodel_v.execution.worker import MAX_GROWTH_BYTES
from worldmodel_v.preprocessing import FULL, Fit, Preprocessing, Resize, parse_frame_size, require_trainable
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import LocalPath
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

    out: LocalPath = LocalPath()
    """The dataset's directory: new, empty, or a dataset made with these settings."""

    episodes: Annotated[int, Ge(1)] = 100
    """Episodes that the dataset will have; a larger number extends it."""

    seed: Annotated[int, Ge(0)] = 0
    """The same seed gives the same episodes: episode i draws from NumPy's SeedSequence(seed, spawn_key=(i,))."""

    workers: Annotated[int, Ge(0)] = 2
    """Ray workers, one core each; 0 plays one episode after another, without Ray."""

    address: str | None = None
    """Ray cluster of the workers: auto, HOST:PORT or ray://HOST:PORT; else RAY_ADDRESS, else one on this machine."""

    episodes_per_shard: Annotated[int, Interval(ge=1, le=MAX_EPISODES_PER_SHARD)] = 10
    """Episodes in one file; a run that is killed loses at most the files under way."""

    episode_timeout: Annotated[float, Interval(ge=0, le=MAX_TIMEOUT_SECONDS)] = 3600.0
    """Seconds after which an episode that hangs is stopped and tried again; 0: no limit, as in Python without workers."""

    def executor(self, num_tasks: int, *, apart: bool = False) -> Executor:
        """The executor for `num_tasks` tasks: no more workers than tasks; with `apart`, each has one task at a time."""
        if self.workers == 0:
            return Here()
        num_workers = min(self.workers, num_tasks)
        settings = WorkerSettings(num_workers=num_workers, address=self.address, max_growth_bytes=MAX_GROWTH_BYTES)
        return RayPool(settings, apart=apart)

    def __post_init__(self) -> None:
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
    """A Gymnasium id, or module:EnvId. The default is Gymnasium's CarRacing-v3, the same bytes, drawn faster."""

    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment, on a command line JSON: '{"continuous": false}'."""

    wrap: tuple[str, ...] = ()
    """Wrappers, innermost first, each module:Class, such as gymnasium.wrappers:GrayscaleObservation."""

    reset_options: dict[str, Any] = field(default_factory=dict)
    """The `options` of every reset, likewise: '{"randomize": false}'."""

    frame_skip: Annotated[int, Ge(1)] = 1
    """Times that each action is repeated; rewards are summed, and one row is recorded."""

    frame_skip_pool: Pool = "last"
    """Which frame of a skip is recorded: the last, or the maximum of the last two (for Atari's flicker)."""

    max_steps: Annotated[int | None, Ge(1), Lt(MAX_ROWS_PER_EPISODE)] = None
    """Actions after which an episode is cut (truncated); by default the environment's own limit, or 1000."""

    policy: str = "brownian"
    """random, brownian, driver, random-start(driver), mixture(4*driver, brownian), onnx:FILE, sb3:FILE, module:factory, …"""

    frame_size: int | str = 64
    """Size of the recorded frames: a multiple of 8 up to 1024, or HEIGHTxWIDTH such as 96x128."""

    frames: str = AUTO
    """observation, observation.KEY or render (the spectator's view); auto: the observation's only picture, else render."""

    layout: Layout = AUTO
    """Axes of that picture; with T a stack, whose last frame is recorded. auto: HWC, HW or CHW, by its shape."""

    record: tuple[str, ...] = ()
    """Further columns of numbers: observation.KEY or info.KEY."""

    crop: str = AUTO
    """What is kept before resizing: TOP:BOTTOM,LEFT:RIGHT, full, or auto (CarRacing: without the panel, else full)."""

    resize: Resize = "area"
    """area: the mean of what each pixel covers; bilinear: no antialiasing."""

    fit: Fit = "stretch"
    """stretch: fill the frame; letterbox: keep the aspect ratio, with black borders."""

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
        _take_object(self, "env_kwargs", '{"continuous": false}')
        _take_object(self, "reset_options", '{"randomize": false}')


def _take_object(config: CollectConfig, name: str, example: str) -> None:
    """Make a field, given as a dictionary or as the text of a JSON object, a dictionary of the config's own."""
    given = getattr(config, name)
    try:
        text = given if isinstance(given, str) else json.dumps(_with_names(given))
        json.loads(text, parse_constant=_refuse_constant)
        values = parse_object(text)
        canonical_json(values)  # as it is recorded
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"is not JSON such as '{example}': {error}", field=name, got=given) from None
    object.__setattr__(config, name, values)


def _with_names(given: Any) -> Any:
    """`given`; raises ValueError if a dictionary in it has other keys than names, of which JSON would make some."""
    if isinstance(given, dict) and not all(isinstance(key, str) for key in given):
        raise ValueError("expected names with values")
    for inner in given.values() if isinstance(given, dict) else given if isinstance(given, list | tuple) else ():
        _with_names(inner)
    return given
