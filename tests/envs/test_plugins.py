"""Environments whose package is installed are found by their id, and drawn without a display; or the line to type is told."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.envs.test_source import folder as folder
from tests.envs.test_source import source_of
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.envs import make_image_env, plugins
from worldmodel_v.errors import EnvironmentNotUsable

REGISTERING = """
import gymnasium
from worldmodel_v.envs.stamp import StampEnv
class World(StampEnv): pass
gymnasium.register({id!r}, entry_point=World)
"""


def install(folder: Path, module: str, env_id: str) -> None:
    *packages, name = module.split(".")
    place = folder.joinpath(*packages)
    place.mkdir(exist_ok=True)
    for package in packages:
        (folder / package / "__init__.py").touch()
    (place / f"{name}.py").write_text(REGISTERING.format(id=env_id))


@pytest.mark.parametrize(
    ("module", "env_id"),
    [
        ("ale_py", "ALE/Pong-v5"),
        ("ale_py", "PongNoFrameskip-v4"),
        ("minigrid", "MiniGrid-Empty-5x5-v0"),
        ("minigrid", "BabyAI-GoToObj-v0"),
        ("shimmy", "dm_control/cartpole-balance-v0"),
        ("vizdoom.gymnasium_wrapper", "VizdoomBasic-v1"),
        ("miniworld", "MiniWorld-Hallway-v0"),
        ("gymnasium_robotics", "FetchReach-v4"),
        ("gymnasium_robotics", "PointMaze_UMaze-v3"),
        ("gym_pusher", "gym_pusher/Pusher-v0"),  # a namespace that is the module's name
    ],
)
def test_the_package_of_an_id_is_imported(folder: Path, module: str, env_id: str) -> None:
    if any(name in sys.modules for name in (module, module.split(".")[0])):
        pytest.skip("the real one is there")
    install(folder, module, env_id)
    assert f"{module.replace('.', '/')}.py" in source_of(env_id)


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("ALE/Pong-v5", "; pip install ale-py"),
        ("BabyAI-GoToObj-v0", "; pip install minigrid"),
        ("dm_control/cartpole-balance-v0", "; pip install 'shimmy[dm-control]'"),
        ("no_such_world:It-v0", "; install the package with the module no_such_world, or have its folder on the Python path"),
        ("Foo-v0", "; module:Id imports a module first, and `python -m gymnasium.envs.registration` lists the registered ids"),
        ("foo/Bar-v0", "`python -m gymnasium.envs.registration` lists the registered ids"),
    ],
)
def test_what_is_not_installed_is_told_with_the_line_to_type(
    env_id: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, absent = plugins._is_installed, ("ale_py", "minigrid", "shimmy")
    monkeypatch.setattr(plugins, "_is_installed", lambda module: module not in absent and real(module))
    with pytest.raises(EnvironmentNotUsable) as caught:
        make_image_env(env_id, {})
    assert str(caught.value).endswith(expected)


def test_a_package_that_cannot_be_imported_is_told(folder: Path) -> None:
    (folder / "gym_broken.py").write_text("raise OSError('libboom.so: cannot open')")
    with pytest.raises(EnvironmentNotUsable, match=r"'gym_broken/It-v0': cannot be built: OSError: libboom\.so: cannot open$"):
        make_image_env("gym_broken/It-v0", {})


# Without a display


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """The variables that libraries draw by, on a machine that has some of them."""

    def drawn_by(*libraries: str, **environment: str) -> dict[str, str]:
        for name in (*plugins.DISPLAYS, *plugins.WITHOUT_A_DISPLAY):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(plugins, "_has_library", lambda name: name in libraries)
        monkeypatch.setattr(sys, "platform", "linux")
        plugins.draw_without_a_display()
        return {name: os.environ.pop(name) for name in plugins.WITHOUT_A_DISPLAY if name in os.environ}

    return drawn_by


def test_mujoco_draws_by_what_there_is(bare: Callable[..., dict[str, str]]) -> None:
    assert bare("EGL", "OSMesa") == {"MUJOCO_GL": "egl", "PYGLET_HEADLESS": "true"}
    assert bare("OSMesa") == {"MUJOCO_GL": "osmesa"}
    assert bare() == {}
    assert bare("EGL", DISPLAY=":0") == {}
    assert bare("EGL", WAYLAND_DISPLAY="wayland-0") == {}
    assert bare("EGL", MUJOCO_GL="glfw") == {"MUJOCO_GL": "glfw", "PYGLET_HEADLESS": "true"}


@pytest.mark.parametrize(
    "error",
    [
        "FatalError('an OpenGL platform library has not been loaded into this process')",
        "AttributeError(\"'NoneType' object has no attribute 'glGetError'\")",
        "ImportError('Cannot initialize a EGL device display.')",
    ],
)
def test_what_cannot_draw_is_told_with_the_line_to_type(folder: Path, tmp_path: Path, error: str) -> None:
    (folder / "drawing.py").write_text(
        f"""
import gymnasium
from worldmodel_v.envs.stamp import StampEnv
class FatalError(Exception): pass
class World(StampEnv):
    def reset(self, **_):
        raise {error}
gymnasium.register("Drawing-v0", entry_point=World)
"""
    )
    config = CollectConfig(out=tmp_path / "out", env="drawing:Drawing-v0", policy="random", workers=0)
    expected = (
        r"cannot begin an episode: .*; to draw without a display: apt-get install libegl1 .* export MUJOCO_GL=egl \(or osmesa\)"
    )
    with pytest.raises(EnvironmentNotUsable, match=expected):
        collect(config)
