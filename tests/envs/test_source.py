"""Where an environment comes from: recorded, and a changed one refused, where Gymnasium's version does not say it."""

import collections
import dataclasses
import datetime
import decimal
import functools
import hashlib
import importlib
import json
import sys
import types
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.wrappers import TransformReward

from tests.builders import digests, files_in
from tests.commands import options, start
from tests.conftest import stamp_config
from worldmodel_v.code.origin import code_source, held_in_common
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.collection.block import block_collector
from worldmodel_v.collection.collector import resolve_spec
from worldmodel_v.envs import FAST_CAR_RACING_ENV_ID, STAMP_ENV_ID, import_env, make_image_env
from worldmodel_v.envs.source import as_json, env_source, is_known
from worldmodel_v.errors import EnvironmentNotUsable, OutputNotUsable
from worldmodel_v.selection import SelectConfig, select
from worldmodel_v.sources import GymSource
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import open_dataset, verify

MODULE = """
import gymnasium
from worldmodel_v.envs.stamp import StampEnv

class Mine(StampEnv):
    def step(self, action):
        frame, reward, *rest = super().step(action)
        return frame, 2 * reward, *rest

gymnasium.register("Mine-v0", entry_point=Mine, kwargs={"size": 16}, max_episode_steps=9)
"""
SETTINGS = {"env": "my_world:Mine-v0", "episodes": 4, "episodes_per_shard": 2, "frame_size": 8, "policy": "random", "seed": 7}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the Python path whose modules and environments are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    registered = dict(gymnasium.registry)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    gymnasium.registry.clear()
    gymnasium.registry.update(registered)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def source_of(env_id: str) -> dict[str, str]:
    env = make_image_env(env_id, {})
    env.close()
    return env_source(env.gym, env_id)


@pytest.mark.parametrize("env_id", ["CarRacing-v3", "CartPole-v1", FAST_CAR_RACING_ENV_ID, STAMP_ENV_ID])
def test_gymnasiums_version_says_it_of_its_environments_and_of_ours(env_id: str) -> None:
    assert source_of(env_id) == {}


def test_a_users_module_is_recorded_by_its_file_and_registration(folder: Path) -> None:
    (folder / "my_world.py").write_text(MODULE)
    assert source_of("my_world:Mine-v0") == {
        "my_world.py": sha256(folder / "my_world.py"),
        "registration": '{"kwargs": {"size": 16}, "max_episode_steps": 9}',
    }


def test_a_users_package_is_recorded_by_the_files_of_its_classes_and_wrappers(folder: Path) -> None:
    package = folder / "my_package"
    (package / "worlds").mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import gymnasium\ngymnasium.register('Mine-v0', entry_point='my_package.worlds.two:Two')\n"
    )
    (package / "worlds" / "one.py").write_text("from worldmodel_v.envs.stamp import StampEnv\nclass One(StampEnv): pass\n")
    (package / "worlds" / "two.py").write_text("from my_package.worlds.one import One\nclass Two(One): pass\n")
    (package / "worlds" / "helper.py").write_text("")
    expected = {f"my_package/{name}.py": sha256(package / f"{name}.py") for name in ("__init__", "worlds/one", "worlds/two")}
    assert source_of("my_package:Mine-v0") == expected | {"registration": '{"kwargs": {}, "max_episode_steps": null}'}


def test_a_known_environment_in_a_strangers_wrapper_is_not_known(folder: Path) -> None:
    wrapper = WrapperSpec("Mine", f"{__name__}:Mine", {})
    gymnasium.register("Wrapped-v0", entry_point="gymnasium.envs.box2d:CarRacing", additional_wrappers=(wrapper,))
    assert is_known("CarRacing-v3")
    assert not is_known("Wrapped-v0")


def test_files_that_a_users_module_imports_are_recorded(folder: Path) -> None:
    package = folder / "my_package"
    (package / "parts").mkdir(parents=True)
    texts = {
        "__init__": "",
        "world": "from . import physics\nfrom .parts.arms import LENGTH\n" + MODULE,
        "physics": "try:\n    import my_masses\nexcept ImportError: ...\nif True:\n    from my_package import drawn\n",
        "parts/arms": "import numpy\nLENGTH = 2\ndef later():\n    from my_package import late\n",
        "drawn": "",
        "late": "",
    }
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    (folder / "my_masses.py").write_text("import my_package.world\n")
    source = source_of("my_package.world:Mine-v0")
    names = ["my_masses.py", *(f"my_package/{name}.py" for name in ("__init__", "parts/arms", "physics", "world"))]
    assert sorted(source) == sorted([*names, "registration"])
    (package / "parts" / "arms.py").write_text("LENGTH = 3\n")
    assert source_of("my_package.world:Mine-v0") != source


def test_an_installed_package_is_recorded_by_its_version(folder: Path) -> None:
    """Minari stands for a package with environments: it is installed, and no file of the user's."""
    (folder / "my_world.py").write_text(
        "import minari, gymnasium\nfrom worldmodel_v.envs.stamp import StampEnv\n"
        "class Mine(StampEnv): pass\nMine.__module__ = 'minari'\ngymnasium.register('Mine-v0', entry_point=Mine)\n"
    )
    __import__("my_world")
    assert source_of("Mine-v0") == {
        "minari": version("minari"),
        "registration": '{"kwargs": {}, "max_episode_steps": null}',
    }


MAKER = """
import gymnasium
from gymnasium.wrappers import TransformReward
def make(render_mode=None): return TransformReward(gymnasium.make("worldmodel_v/Stamp-v0"), lambda reward: 2 * reward)
"""


def test_a_function_that_makes_an_environment_of_known_parts_is_recorded_by_its_file(folder: Path) -> None:
    (folder / "my_maker.py").write_text(MAKER)
    gymnasium.register("Mine-v0", entry_point="my_maker:make")
    by_name = source_of("Mine-v0")
    gymnasium.registry.pop("Mine-v0")
    gymnasium.register("Mine-v0", entry_point=importlib.import_module("my_maker").make)
    assert source_of("Mine-v0") == by_name
    assert by_name["my_maker.py"] == sha256(folder / "my_maker.py")


def test_a_function_that_a_wrapper_applies_is_recorded(folder: Path) -> None:
    (folder / "my_rewards.py").write_text("def double(reward): return 2 * reward\n")
    double = importlib.import_module("my_rewards").double
    env = TransformReward(gymnasium.make(STAMP_ENV_ID), double)
    assert env_source(env)["my_rewards.py"] == sha256(folder / "my_rewards.py")
    typed = [eval(f"lambda reward: {factor} * reward") for factor in (2, 3)]
    sources = [env_source(TransformReward(gymnasium.make(STAMP_ENV_ID), function)) for function in typed]
    assert sources[0] != sources[1]


PATCHES = """
import functools
def step(self, action): ...
def other(self, action): ...
def wrapped(method): return functools.wraps(method)(step)
"""


def test_a_method_that_another_module_has_replaced_is_recorded_by_that_module(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "my_patches.py").write_text(PATCHES)
    patches = importlib.import_module("my_patches")
    env = gymnasium.make("CartPole-v1")
    cls, file = type(env.unwrapped), {"my_patches.py": sha256(folder / "my_patches.py")}
    name = f"{cls.__module__}.CartPoleEnv"
    replacements = {
        "step": (patches.step, "my_patches.step"),
        "reset": (patches.wrapped(cls.reset), "my_patches.step"),
        "close": (staticmethod(patches.other), "my_patches.other"),
        "unwrapped": (property(patches.other), "my_patches.other"),
    }
    for method, (replacement, said) in replacements.items():
        with monkeypatch.context() as patch:
            patch.setattr(cls, method, replacement)
            source = {key: value for key, value in env_source(env).items() if key != "registration"}
        assert source == {**file, f"{name}.{method}": said}
    patches.other.__wrapped__ = patches.other  # which ends nowhere
    env.unwrapped.step = types.MethodType(patches.other, env.unwrapped)
    source = held_in_common(env_source(env))
    assert source[f"{name}.step"] == "my_patches.other"  # so a worker, who lacks it, says so
    assert code_source(cls) == {}
    monkeypatch.setattr(cls, "step", patches.step)
    assert code_source(cls) == {**file, f"{name}.step": "my_patches.step"}


def test_what_an_environment_holds_is_not_asked_for_attributes() -> None:
    class Settings(dict):
        def __getattr__(self, name: str) -> object:
            return self[name]  # KeyError, where Python expects AttributeError

    env = gymnasium.make("CartPole-v1")
    env.unwrapped.settings = Settings(size=16)
    assert env_source(env) == {}


def test_what_was_registered_with_a_known_class_is_recorded() -> None:
    cls = gymnasium.spec("CartPole-v1").entry_point
    sources = []
    for reward in (True, False):
        with_kwargs = EnvSpec("Mine-v0", entry_point=cls, kwargs={"sutton_barto_reward": reward})
        partial = EnvSpec("Mine-v0", entry_point=functools.partial(CartPoleEnv, sutton_barto_reward=reward))
        clipped = WrapperSpec("ClipReward", "gymnasium.wrappers:ClipReward", {"min_reward": -1, "max_reward": float(reward)})
        wrapped = EnvSpec("Mine-v0", entry_point=cls, additional_wrappers=(clipped,))
        sources += [env_source(gymnasium.make(spec))["registration"] for spec in (with_kwargs, partial, wrapped)]
    assert len({*sources}) == 6


def collect_in(folder: Path, **more: object) -> tuple[int, str]:
    """Exit code and errors of wm-collect, run where the user's module is."""
    command = ("wm-collect", "--out", folder / "out", "--workers", 0, "--quiet", *options({**SETTINGS, **more}))
    process = start(*command, PYTHONPATH=f"{folder}:{Path(__file__).parents[2]}")
    _, errors = process.communicate()
    return process.returncode, errors


def test_an_edited_environment_does_not_continue_and_an_unchanged_one_does(tmp_path: Path) -> None:
    module = tmp_path / "my_world.py"
    module.write_text(MODULE)
    assert collect_in(tmp_path) == (0, "")
    before = files_in(tmp_path / "out" / "shards")
    recorded = sha256(module)
    module.write_text(MODULE.replace("2 *", "3 *"))
    code, errors = collect_in(tmp_path, episodes=6)
    assert code == 2
    assert errors.startswith(
        f"wm-collect: {tmp_path / 'out'}: was made with other settings: env_source is {{'my_world.py': '{recorded}"
    )
    assert sha256(module) in errors
    assert errors.endswith("asked; use those versions, files and values, or another directory\n")
    assert errors.count("\n") == 1
    assert files_in(tmp_path / "out" / "shards") == before
    module.write_text(MODULE)
    assert collect_in(tmp_path, episodes=6) == (0, "")
    assert before.items() < files_in(tmp_path / "out" / "shards").items()
    assert verify(open_dataset(tmp_path / "out")) == []


def test_episodes_of_both_versions_of_an_environment_become_one_dataset_that_says_so(tmp_path: Path) -> None:
    sources = []
    for seed, text in enumerate((MODULE, MODULE.replace("2 *", "3 *"))):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "my_world.py").write_text(text)
        assert collect_in(folder, seed=seed) == (0, "")
        sources.append({"my_world.py": sha256(folder / "my_world.py")})
    data = (tmp_path / "0" / "out", tmp_path / "1" / "out")
    select(SelectConfig(data=data, out=tmp_path / "both"))
    both, parts = open_dataset(tmp_path / "both", RolloutSpec), [open_dataset(path) for path in data]
    assert {"env_source", "seed"} <= {*both.spec.selection["differ"]}
    assert both.num_episodes == sum(part.num_episodes for part in parts)
    for number in range(both.num_episodes):
        origin = both.episode(number).origin
        assert origin is not None
        recorded = both.spec.selection["origins"][origin.dataset]["settings"]["env_source"]
        assert sources[origin.dataset].items() <= recorded.items()
        original = parts[origin.dataset].episode(origin.episode)
        assert both.episode(number).reward.tobytes() == original.reward.tobytes()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"gymnasium": "0.1"}, rf"gymnasium is '{gymnasium.__version__}' there, '0.1' asked; install the same on every node"),
        (
            {"env_source": {"my_world.py": "0"}},
            r"env_source is {'my_world.py': '[0-9a-f]{64}', .*} there, {'my_world.py': '0'}",
        ),
    ],
)
def test_a_worker_with_another_version_of_the_environment_collects_nothing(folder: Path, changes: dict, text: str) -> None:
    (folder / "my_world.py").write_text(MODULE)
    spec = resolve_spec(CollectConfig(out=folder / "out", workers=0, **SETTINGS))  # type: ignore[arg-type]
    block_collector(GymSource(spec))
    with pytest.raises(EnvironmentNotUsable, match=rf"^my_world:Mine-v0: on \S+ {text}"):
        block_collector(GymSource(dataclasses.replace(spec, **changes)))


def test_the_toy_world_has_no_source_of_its_own(tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "out", episodes=1))
    spec = json.loads((tmp_path / "out" / "dataset.json").read_text())["spec"]
    assert spec["env_source"] == {}
    assert set(digests(tmp_path / "out")) == {"dataset.json", "000000.h5"}


CONSTANTS = """
from my_physics import FRICTION, integrate, timed
from worldmodel_v.envs.stamp import StampEnv

GRAVITY = 9.8
STEP = 1 / 50
LIMITS = (-1, 1.5)
STEPS = 0
MODE = "day"
MODE = "night"
SIZES = [1, 2]
LEVELS = {"easy": 1, "hard": (2, 3)}
COLOURS = ["red"]
CACHE = {"none": 0}
SEEN = []

def reward_of(x):
    global STEPS
    STEPS += 1
    SIZES.sort()
    CACHE[x] = LEVELS["easy"] + LEVELS.get("hard")[0] + len(COLOURS)
    SEEN.append(x)
    return integrate(x) * GRAVITY

@timed
def wind_of(x): return x

class World(StampEnv):
    wind: float = 0.0
    made = 0

    class Ball:
        radius = 2

    def __init__(self, **named):
        super().__init__(**named)
        World.made += 1
        self.wind = 3
"""

PHYSICS = """
FRICTION = None
TURNS = True
def integrate(x): return x
def timed(function): return lambda x: function(x)
"""


@pytest.fixture
def world(folder: Path) -> types.ModuleType:
    (folder / "my_physics.py").write_text(PHYSICS)
    (folder / "my_world.py").write_text(CONSTANTS)
    return importlib.import_module("my_world")


def own(source: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in source.items() if not name.endswith(".py")}


def test_plain_values_that_a_program_has_set_are_recorded(world: types.ModuleType) -> None:
    world.reward_of(world.World(length=3).wind)
    world.STEPS, world.World.made, world.MODE, world.SIZES[0] = 7, 7, "dusk", 7  # state, or not written once as it is
    assert own(env_source(world.World(length=3))) == {}
    world.GRAVITY, world.STEP, world.LIMITS, world.COLOURS, world.LEVELS["hard"] = 9, 0.02, (-1.0, 1.5), ["blue"], 5
    world.World.wind, world.World.Ball.radius = 5.5, 3
    sys.modules["my_physics"].TURNS = False
    sys.modules["my_physics"].FRICTION = "some"
    expected = {
        "my_physics.FRICTION": "'some'",
        "my_physics.TURNS": "False",
        "my_world.COLOURS": "['blue']",
        "my_world.GRAVITY": "9",
        "my_world.LEVELS": "{'easy': 1, 'hard': 5}",
        "my_world.LIMITS": "(-1.0, 1.5)",
        "my_world.World.Ball.radius": "3",
        "my_world.World.wind": "5.5",
    }
    assert own(env_source(world.World(length=3))) == expected
    assert held_in_common(expected) == expected  # so a worker, where they are not set, says so
    assert own(code_source(world.reward_of)) == expected  # as of a policy that is a function


def test_a_file_that_was_edited_into_something_wrong_is_still_recorded(folder: Path, world: types.ModuleType) -> None:
    (folder / "my_world.py").write_text(CONSTANTS.replace("9.8", "1 / 0"))
    assert own(env_source(world.World(length=3))) == {}
    (folder / "my_world.py").write_text("def")
    assert env_source(world.World(length=3))["my_world.py"] == sha256(folder / "my_world.py")


def test_a_function_that_a_program_has_put_into_a_module_is_recorded(folder: Path, world: types.ModuleType) -> None:
    (folder / "my_patches.py").write_text(PATCHES)
    world.reward_of = importlib.import_module("my_patches").step
    source = env_source(world.World(length=3))
    assert own(source) == {"my_world.reward_of": "my_patches.step"}
    assert "my_patches.py" in source


def test_a_constant_of_gymnasiums_that_a_program_has_set_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    lunar_lander = importlib.import_module("gymnasium.envs.box2d.lunar_lander")
    monkeypatch.setattr(lunar_lander, "MAIN_ENGINE_POWER", 20.0)
    assert own(source_of("LunarLander-v3"))["gymnasium.envs.box2d.lunar_lander.MAIN_ENGINE_POWER"] == "20.0"


def test_another_constant_does_not_continue_the_dataset(tmp_path: Path, world: types.ModuleType) -> None:
    gymnasium.register("World-v0", entry_point=world.World)
    config = stamp_config(tmp_path / "out", env="my_world:World-v0", episodes=2, episodes_per_shard=1)
    world.GRAVITY = 1.6
    collect(config)
    collect(config)
    world.GRAVITY = 9.8
    with pytest.raises(OutputNotUsable, match=r"{'my_world.GRAVITY': '1.6'} there, {} asked"):
        collect(config)


MAKERS = """
import shutil
from gymnasium.wrappers import TransformReward
from worldmodel_v.envs.stamp import StampEnv

def scaled(factor, *, offset=0.0):
    steps, log = 0, []
    def reward(value, power=factor + 1):
        nonlocal steps
        steps += 1
        log.append(value)
        return factor * value**power + offset
    return reward

def world_of(gravity):
    class World(StampEnv):
        wind = gravity / 2
        def __init__(self, **named):
            super().__init__(**named)
            folder = "/tmp/of-this-process"
            self.clean = lambda: shutil.rmtree(folder)
        def pull(self):
            return gravity
    return World

def maker(gravity):
    def make(**named):
        return TransformReward(world_of(1)(**named), scaled(gravity))
    return make
"""


def test_what_functions_and_classes_have_from_the_function_that_made_them_is_recorded(folder: Path) -> None:
    (folder / "my_makers.py").write_text(MAKERS)
    makers = importlib.import_module("my_makers")
    reward = {"factor": "2", "offset": "0.0", "power": "3"}
    of_reward = {f"my_makers.scaled.<locals>.reward.{name}": value for name, value in reward.items()}
    world = {"my_makers.world_of.<locals>.World.wind": "1.5", "my_makers.world_of.<locals>.World.pull.gravity": "3"}
    applied = {"gymnasium.wrappers.transform_reward.TransformReward.func": "my_makers.scaled.<locals>.reward"}
    env = TransformReward(makers.world_of(3)(length=3), makers.scaled(2))
    assert own(env_source(env)) == world | applied | of_reward
    env.reset(seed=0)
    env.step(0)  # counts its steps, which is state
    assert own(env_source(env)) == world | applied | of_reward
    assert own(code_source(makers.scaled(2))) == of_reward


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("part", ["wrap", "policy"])
def test_a_module_that_registers_another_environment_by_the_id_is_refused(folder: Path, tmp_path: Path, part: str) -> None:
    (folder / "my_world.py").write_text(MODULE)
    (folder / "my_other.py").write_text(MODULE)
    named: dict[str, Any] = {"wrap": ("my_other:Mine",)} if part == "wrap" else {"policy": "my_other:Mine"}
    config = stamp_config(tmp_path / "out", **SETTINGS | named)
    for _ in range(2):
        with pytest.raises(
            EnvironmentNotUsable, match=r"environment under this id: .*my_other.Mine.* in the place of .*my_world"
        ):
            resolve_spec(config)
        del sys.modules["my_other"]
    make_image_env("my_world:Mine-v0", {}).close()
    assert "my_world" in str(gymnasium.registry["Mine-v0"].entry_point)


@pytest.mark.parametrize(
    ("value", "recorded"),
    [
        (datetime.date(2020, 1, 1), "datetime.date(2020, 1, 1)"),
        (datetime.timedelta(1), "datetime.timedelta(days=1)"),
        (np.array(["2020-01-01", "2020-01-02"], "M8[D]"), ["2020-01-01", "2020-01-02"]),
        (np.datetime64("2020-01-01T00:00", "ns"), "2020-01-01T00:00:00.000000000"),
        (decimal.Decimal("0.10"), "Decimal('0.10')"),
        (2j, "2j"),
        (b"ab", "b'ab'"),
        (collections.deque([1, 2]), [1, 2]),
        (torch.nn.Parameter(torch.tensor([1.5, 2], dtype=torch.bfloat16)), ["torch.bfloat16", [1.5, 2.0]]),
        (gymnasium.spaces.Discrete(3), {"type": "Discrete", "n": 3, "start": 0, "dtype": "int64"}),
    ],
)
def test_arguments_that_are_no_json_are_recorded_by_their_values(value: Any, recorded: Any) -> None:
    assert as_json({"value": value}) == {"value": recorded}


def test_spaces_that_look_alike_are_told_apart() -> None:
    one, other = np.ones(2000, np.float32), np.ones(2000, np.float32)
    other[1000] = 2
    assert as_json(gymnasium.spaces.Box(0, one)) != as_json(gymnasium.spaces.Box(0, other))


@pytest.mark.filterwarnings("ignore:.*Overriding environment")
def test_the_same_environment_may_be_registered_again_under_another_spelling(folder: Path) -> None:
    (folder / "my_world.py").write_text(MODULE)
    register = 'gymnasium.register("Mine-v0", entry_point="my_world:Mine", kwargs={"size": 16}, max_episode_steps=9)'
    (folder / "my_again.py").write_text(f"import gymnasium\nfrom my_world import Mine\n{register}\n")
    import_env("my_world:Mine-v0", {}, ("my_again:Mine",))


def test_a_long_text_of_a_value_is_recorded_by_its_hash() -> None:
    one, other = as_json(bytes(5000)), as_json(bytes(4999) + b"a")
    assert len(one) < 100
    assert one != other


def test_an_environment_that_another_argument_made_does_not_continue_the_dataset(tmp_path: Path, folder: Path) -> None:
    (folder / "my_makers.py").write_text(MAKERS)
    makers = importlib.import_module("my_makers")
    config = stamp_config(tmp_path / "out", env="Made-v0", episodes=2, episodes_per_shard=1)
    for gravity in (4.5, 4.5):
        gymnasium.register("Made-v0", entry_point=makers.maker(gravity))
        collect(config)
        del gymnasium.registry["Made-v0"]
    gymnasium.register("Made-v0", entry_point=makers.maker(9.0))
    with pytest.raises(OutputNotUsable, match=r"my_makers.maker.<locals>.make.gravity': '4.5'"):
        collect(config)
