"""Environments by Gymnasium id, with their wrappers and the picture that the options ask for."""

import copy
import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import FrameStackObservation

from worldmodel_v.envs.image_env import ImageEnv
from worldmodel_v.envs.options import EnvOptions
from worldmodel_v.envs.parts import RENDER, choose_frames, require_paths
from worldmodel_v.envs.picture import AUTO
from worldmodel_v.envs.plugins import draw_without_a_display, import_plugin, remedy
from worldmodel_v.envs.source import layers
from worldmodel_v.errors import EnvironmentNotUsable, one_line, retold
from worldmodel_v.own_modules import import_own
from worldmodel_v.surface import option

AUTO_OPTIONS = EnvOptions()


def make_image_env(env_id: str, env_kwargs: dict[str, Any], options: EnvOptions = AUTO_OPTIONS) -> ImageEnv:
    """Build an environment by Gymnasium id (`module:EnvId` imports the module first; see `plugins`).

    Raises EnvironmentNotUsable if it is unknown, if it cannot be built, if the picture that the options ask for is absent or
    not clear, or if a dataset cannot hold its actions.
    """
    drawing = {**env_kwargs, "render_mode": "rgb_array"}
    env: gymnasium.Env | None = None
    if options.frames == RENDER:
        with suppress(EnvironmentNotUsable):  # one that always draws may not take the argument
            env = _make(env_id, drawing, options.wrap)
    if env is None:
        env = _make(env_id, env_kwargs, options.wrap)
    try:
        chosen = _chosen(env, env_id, options)
        if chosen.frames == RENDER and (mode := env_kwargs.get("render_mode")) not in (None, "rgb_array"):
            raise EnvironmentNotUsable(
                "the frames are those of render() in the mode rgb_array, and env_kwargs ask for another render_mode",
                where=env_id,
                got=mode,
                remedy="leave it out, or record an observation",
            )
        if chosen.frames == RENDER and env.render_mode != "rgb_array":
            with _told_by_name(env_id, env_kwargs):
                env.close()
            env = _make(env_id, drawing, options.wrap)
        return _image_env(env, env_id, chosen)
    except EnvironmentNotUsable:
        with suppress(Exception):
            env.close()
        raise


def choose_image_env(env: gymnasium.Env, name: str, options: EnvOptions) -> ImageEnv:
    """An existing environment, with the picture that the options ask for; raises EnvironmentNotUsable."""
    chosen = _chosen(env, name, options)
    if chosen.frames == RENDER and env.render_mode != "rgb_array":
        raise EnvironmentNotUsable(
            where=name, expected='render_mode="rgb_array"', got=repr(env.render_mode), remedy="make it so"
        )
    return _image_env(env, name, chosen)


def _image_env(env: gymnasium.Env, name: str, chosen: EnvOptions) -> ImageEnv:
    try:
        return ImageEnv(env, chosen)
    except ValueError as error:
        raise EnvironmentNotUsable(str(error), where=name) from None


def _chosen(env: gymnasium.Env, name: str, options: EnvOptions) -> EnvOptions:
    """The options with a picture and its axes in the place of "auto"; raises EnvironmentNotUsable."""
    require_paths(options.record)
    render_modes = env.metadata.get("render_modes") or []
    frames, layout = choose_frames(name, env.observation_space, render_modes, options.frames, options.layout)
    if layout == "CHW" and options.layout == AUTO and any(isinstance(layer, FrameStackObservation) for layer in layers(env)):
        raise EnvironmentNotUsable(
            f"{frames} is a FrameStackObservation's, and its shape that of a picture with channels first",
            where=name,
            remedy=f"say which it is with {option('layout', 'THW')} or {option('layout', 'CHW')}",
        )
    return dataclasses.replace(options, frames=frames, layout=layout)


@contextmanager
def registration_kept(env_id: str) -> Iterator[None]:
    """Raise EnvironmentNotUsable if the block registers another environment under this id; the first registration is
    restored."""
    name = env_id.rpartition(":")[2]
    before = gymnasium.registry.get(name)
    try:
        yield
    finally:
        now = gymnasium.registry.get(name)
        if before is not None:
            gymnasium.registry[name] = before
    if before is not None and now is not None and not _makes_the_same(before, now):
        raise EnvironmentNotUsable(
            "a wrapper's or a policy's module registers another environment under this id: "
            f"{now.entry_point} in the place of {before.entry_point}",
            where=f"environment {env_id!r}",
            remedy="give one of them another id",
        )


def _makes_the_same(one: EnvSpec, other: EnvSpec) -> bool:
    """Whether two registrations make the same, however each names its class."""
    said = [repr({**vars(each), "entry_point": None}) for each in (one, other)]
    makers = [load_env_creator(each) if isinstance(each, str) else each for each in (one.entry_point, other.entry_point)]
    return said[0] == said[1] and makers[0] is makers[1]


def import_env(env_id: str, env_kwargs: dict[str, Any], wrap: tuple[str, ...]) -> None:
    """Import the modules of an environment and of its wrappers, without building it; raises EnvironmentNotUsable."""
    draw_without_a_display()
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    with _told_by_name(env_id, env_kwargs):
        module, _, name = env_id.rpartition(":")
        if module:
            import_own(module)
        import_plugin(env_id)
        entry_point = getattr(gymnasium.registry.get(name), "entry_point", None)
        if isinstance(entry_point, str):
            load_env_creator(entry_point)
    with registration_kept(env_id):
        for wrapper in wrap:
            _wrapper(wrapper)


def _make(env_id: str, env_kwargs: dict[str, Any], wrap: tuple[str, ...]) -> gymnasium.Env:
    import_env(env_id, env_kwargs, wrap)
    with _told_by_name(env_id, env_kwargs):
        env = gymnasium.make(env_id, disable_env_checker=True, **copy.deepcopy(env_kwargs))  # they are recorded
    for name in wrap:
        env = _wrapped(env, name)
    return env


@contextmanager
def _told_by_name(env_id: str, env_kwargs: dict[str, Any]) -> Iterator[None]:
    """Replace any error in the block with EnvironmentNotUsable."""

    def told(error: BaseException) -> EnvironmentNotUsable:
        reason = f"{one_line(error)}{remedy(env_id, error)}"
        given = f" with {env_kwargs}" if env_kwargs else ""
        return EnvironmentNotUsable(f"cannot be built{given}: {reason}", where=f"environment {env_id!r}")

    with retold(told):
        yield


def _wrapped(env: gymnasium.Env, name: str) -> gymnasium.Env:
    """`env` in the wrapper `module:Class`; raises EnvironmentNotUsable."""
    wrapper = _wrapper(name)
    with _wrapping(name):
        wrapped = wrapper(env)
    if not isinstance(wrapped, gymnasium.Env):
        raise EnvironmentNotUsable(
            "is no wrapper", field="wrap", got=name, expected=f"a gymnasium.Wrapper, it makes a {type(wrapped).__name__}"
        )
    return wrapped


def _wrapper(name: str) -> Callable[[gymnasium.Env], Any]:
    module, _, attribute = name.partition(":")
    with _wrapping(name):
        return getattr(import_own(module), attribute)


@contextmanager
def _wrapping(name: str) -> Iterator[None]:
    """Replace any error in the block with EnvironmentNotUsable."""

    def told(error: BaseException) -> EnvironmentNotUsable:
        return EnvironmentNotUsable(
            f"cannot be loaded and put around the environment: {one_line(error)}",
            field="wrap",
            got=name,
            expected="module:Wrapper on the Python path, a class that takes the environment alone",
        )

    with retold(told):
        yield
