"""What an environment simulates and draws with is recorded by version; another version does not continue the dataset."""

import dataclasses
import importlib.metadata
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import PIL.Image
import pytest
import yaml

from tests.conftest import stamp_config
from tests.extending.pendulums import Pendulums
from worldmodel_v.collection import collect, collect_source
from worldmodel_v.collection.block import block_collector
from worldmodel_v.collection.collector import resolve_spec
from worldmodel_v.collection.config import CollectionConfig
from worldmodel_v.envs import FAST_CAR_RACING_ENV_ID, STAMP_ENV_ID, engines, make_image_env
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.errors import EnvironmentNotUsable, OutputNotUsable
from worldmodel_v.sources import GymSource
from worldmodel_v.storage import open_dataset


class Drawn(StampEnv):
    """Holds a picture of Pillow's deep in it from its first frame on and names PyYAML in a method; others are imported."""

    def reset(self, **how: Any) -> Any:
        self.drawings = {"layers": [(PIL.Image.new("RGB", (2, 2)),)], "itself": self}
        return super().reset(**how)

    def step(self, action: Any) -> Any:
        yaml.safe_load("")
        return super().step(action)


gymnasium.register("tests/Drawn-v0", entry_point=Drawn)
DRAWN_WITH = {"pillow": version("pillow"), "PyYAML": version("PyYAML")}


def engines_of(env_id: str) -> dict[str, str]:
    env = make_image_env(env_id, {})
    env.reset(1)
    found = engines.engines(env.gym)
    env.close()
    return found


@pytest.mark.parametrize(
    ("env_id", "packages"),
    [
        ("CartPole-v1", ["pygame-ce"]),
        ("CarRacing-v3", ["Box2D", "pygame-ce"]),
        ("tests/Drawn-v0", [*DRAWN_WITH]),
        (STAMP_ENV_ID, []),
        (FAST_CAR_RACING_ENV_ID, []),
    ],
)
def test_it_is_what_the_environment_holds_and_names(env_id: str, packages: list[str]) -> None:
    assert engines_of(env_id) == {package: version(package) for package in packages}


def test_ours_records_other_versions_than_those_it_leaves_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {package: version(package) for package in engines.UNSAID} == engines.UNSAID
    monkeypatch.setitem(engines.UNSAID, "Box2D", "1.0")
    assert engines_of(FAST_CAR_RACING_ENV_ID) == {"Box2D": version("Box2D")}


def test_before_the_first_frame_nothing_is_drawn_with() -> None:
    """Why the environment is looked at behind it."""
    env = gymnasium.make("Pendulum-v1", render_mode="rgb_array")
    assert engines.engines(env) == {}
    env.reset()
    env.render()
    assert engines.engines(env) == {"pygame-ce": version("pygame-ce")}
    env.close()


def another(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Of a package, version 99 is installed now."""
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99" if name == package else installed(name))


def test_another_version_does_not_continue_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = stamp_config(tmp_path / "out", env="tests/Drawn-v0", episodes=2)
    collect(config)
    assert DRAWN_WITH.items() <= open_dataset(tmp_path / "out").spec.env_source.items()
    collect(dataclasses.replace(config, episodes=4))
    another(monkeypatch, "pillow")
    there = rf"env_source is {{.*'pillow': '{DRAWN_WITH['pillow']}'.*}} there, {{.*'pillow': '99'.*}} asked"
    with pytest.raises(OutputNotUsable, match=there):
        collect(dataclasses.replace(config, episodes=6))


@pytest.mark.parametrize(("env_id", "package"), [("tests/Drawn-v0", "pillow"), (FAST_CAR_RACING_ENV_ID, "Box2D")])
def test_a_worker_with_another_version_collects_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env_id: str, package: str
) -> None:
    spec = resolve_spec(stamp_config(tmp_path / "out", env=env_id, policy="random"))
    block_collector(GymSource(spec))
    another(monkeypatch, package)
    with pytest.raises(EnvironmentNotUsable, match=rf"'{package}': '99'.* there, .* asked; install the same on every node"):
        block_collector(GymSource(spec))


def test_a_source_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Pendulums()
    source.canvas = PIL.Image.new("RGB", (2, 2))  # type: ignore[attr-defined]
    config = CollectionConfig(out=tmp_path / "out", episodes=1, workers=0)
    collect_source(source, config)
    assert open_dataset(tmp_path / "out").spec.env_source["pillow"] == version("pillow")
    another(monkeypatch, "pillow")
    with pytest.raises(OutputNotUsable, match="'pillow': '99'"):
        collect_source(source, dataclasses.replace(config, episodes=2))
