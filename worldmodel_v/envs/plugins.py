"""Packages with environments: Gymnasium knows these only after an import of the package.

The beginning of an id says which package has it. Rejected: importing every installed package that needs Gymnasium until the
id is known, because that would load trainers and data sets.
"""

import ctypes.util
import functools
import importlib
import importlib.util
import os
import re
import sys
from dataclasses import dataclass

import gymnasium

from worldmodel_v.errors import one_line

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
WITHOUT_A_DISPLAY = {
    "MUJOCO_GL": {"EGL": "egl", "OSMesa": "osmesa"},
    "PYGLET_HEADLESS": {"EGL": "true"},
}
"""An environment variable (of MuJoCo and dm_control, of MiniWorld) -> its value for each library that can draw."""

DRAWING = re.compile(r"\be?gl[A-Z]\w+|OpenGL|EGL|OSMesa|GLFW|DISPLAY|NoSuchDisplay")
"""Matches errors of graphics libraries."""


@dataclass(frozen=True)
class Plugin:
    """A package with environments."""

    ids: str
    """A regular expression that matches its environments' ids."""

    module: str
    """The module whose import registers them."""

    install: str
    """Its name for pip."""


PLUGINS = (
    Plugin(r"ALE/.+|.+NoFrameskip-v\d+", "ale_py", "ale-py"),
    Plugin(r"(MiniGrid|BabyAI)-.+", "minigrid", "minigrid"),
    Plugin(r"dm_control/.+", "shimmy", "'shimmy[dm-control]'"),
    Plugin(r"Vizdoom.+", "vizdoom.gymnasium_wrapper", "vizdoom"),
    Plugin(r"MiniWorld-.+", "miniworld", "miniworld"),
    Plugin(
        r"(Fetch|HandReach|HandManip|AdroitHand|FrankaKitchen|PointMaze|AntMaze).+", "gymnasium_robotics", "gymnasium-robotics"
    ),
)


def import_plugin(env_id: str) -> None:
    """Import the module that registers an id that Gymnasium does not know, if it is installed."""
    if env_id not in gymnasium.registry and (plugin := _plugin(env_id)) and _is_installed(plugin.module):
        importlib.import_module(plugin.module)


def draw_without_a_display() -> None:
    """Make libraries draw without a display if there is none, unless environment variables say how. Call it before imports."""
    if sys.platform != "linux" or any(os.environ.get(name) for name in DISPLAYS):
        return
    for variable, values in WITHOUT_A_DISPLAY.items():
        if found := [value for library, value in values.items() if _has_library(library)]:
            os.environ.setdefault(variable, found[0])


@functools.cache
def _has_library(name: str) -> bool:
    """Cached, because the search starts other programs."""
    return ctypes.util.find_library(name) is not None


def remedy(env_id: str, error: BaseException) -> str:
    """What to do about an environment that cannot be made or begun, as the end of a sentence; empty if no remedy is known."""
    plugin = _plugin(env_id)
    if plugin and not _is_installed(plugin.module):
        return f"; pip install {plugin.install}"
    if isinstance(error, gymnasium.error.Error) and not isinstance(error, gymnasium.error.DependencyNotInstalled):
        return "; module:Id imports a module first, and `python -m gymnasium.envs.registration` lists the registered ids"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"; install the package with the module {error.name}, or have its folder on the Python path"
    if DRAWING.search(one_line(error)):
        return (
            "; to draw without a display: apt-get install libegl1 (or libosmesa6), and export MUJOCO_GL=egl (or osmesa), "
            "or run it under xvfb-run"
        )
    return ""


def _plugin(env_id: str) -> Plugin | None:
    """The package that has an id: by the id's beginning, or by a namespace that is the name of a module."""
    known = next((plugin for plugin in PLUGINS if re.fullmatch(plugin.ids, env_id)), None)
    namespace, slash, _ = env_id.partition("/")
    return known or (Plugin("", namespace, namespace) if slash and ":" not in env_id and _is_installed(namespace) else None)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a module inside a package that is not installed
        return False
