"""Code that lives in no file: hashed as it was compiled, so that an edited class does not continue the data of the old one."""

import dataclasses
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from tests.envs.test_source import folder as folder
from worldmodel_v.code.fingerprint import lives_in_no_file, sha256_of_code
from worldmodel_v.code.origin import code_source
from worldmodel_v.collection import CollectConfig, CollectionConfig, collect, collect_source
from worldmodel_v.envs import STAMP_ENV_ID, make_image_env
from worldmodel_v.envs.source import env_source
from worldmodel_v.errors import ClusterNotUsable, EnvironmentNotUsable, OutputNotUsable, PolicyNotUsable
from worldmodel_v.policies import RandomPolicy
from worldmodel_v.storage import open_dataset, verify

CELL = """
import functools, enum, types
import numpy as np
from worldmodel_v.envs.stamp import StampEnv

GRAVITY, LEVEL, steps = 9.8, ["#.#", "###"], 0
WEIGHTS = np.arange(3.0)
SETTINGS = types.SimpleNamespace(wind=0.5)

class Colour(enum.Enum):
    RED = 1

class Ball:
    mass = 1.0

BALL = Ball()

def force(mass, factor=2):
    return factor * mass * GRAVITY

@functools.cache
def cached(x):
    return x + 1

def twice(function):
    def inner(*args):
        return function(*args)
    return inner

class Mine(StampEnv):
    reward = 1.0

    def step(self, action):
        global steps
        steps += 1
        frame, reward, *rest = super().step(action)
        inner = lambda: WEIGHTS[0] + SETTINGS.wind + cached(1) + len(LEVEL) + (Colour.RED.value in {1, 2, 3})
        return frame, reward + self.bonus + inner() * 0, *rest

    @property
    def bonus(self):
        return force(BALL.mass) * self.reward

    @staticmethod
    @twice
    def unused():
        return 1
"""
EDITS = {
    "a class attribute": ("reward = 1.0", "reward = 2.0"),
    "a method": ("steps += 1", "steps += 2"),
    "an operator": ("reward + self", "reward - self"),
    "a property": ("force(BALL.mass) *", "force(BALL.mass) /"),
    "a static method behind a decorator": ("return 1\n", "return 2\n"),
    "a decorator": ("return function(*args)", "return not function(*args)"),
    "a lambda inside": ("WEIGHTS[0]", "WEIGHTS[1]"),
    "a function that it reaches": ("factor * mass", "factor + mass"),
    "a default": ("factor=2", "factor=3"),
    "a constant that such a function reads": ("9.8", "1.6"),
    "an array": ("arange(3.0)", "arange(4.0)"),
    "a list": ('"###"]', '"#.#"]'),
    "a namespace": ("wind=0.5", "wind=0.6"),
    "an enumeration": ("RED = 1", "RED = 2"),
    "the class of an object": ("mass = 1.0", "mass = 1.5"),
    "a cached function": ("x + 1", "x + 2"),
    "a set": ("{1, 2, 3}", "{1, 2, 4}"),
}
NOTHING = {
    "nothing": ("reward", "reward"),
    "a comment": ("reward = 1.0", "reward = 1.0  # of each step"),
    "an empty line": ("\nclass Mine", "\n\n\nclass Mine"),
    "a function's state": ("], 0", "], 5"),
    "what is not reached": ("BALL = Ball()", "BALL = Ball()\nother = 3"),
}
PROGRAM = f"""{CELL}
import sys
from worldmodel_v.code.fingerprint import sha256_of_code
print(sha256_of_code(Mine))
"""


def run(text: str, name: str = "a_notebook") -> dict[str, Any]:
    """The names that a text defines, as in a module that has no file."""
    names: dict[str, Any] = {"__name__": name}
    exec(compile(text, "<cell>", "exec"), names)
    return names


def digest(text: str) -> str:
    return sha256_of_code(run(text)["Mine"])


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_is_seen(what: str) -> None:
    old, new = EDITS[what]
    assert old in CELL
    assert digest(CELL) != digest(CELL.replace(old, new))


@pytest.mark.parametrize("what", NOTHING)
def test_what_changes_nothing_is_not_an_edit(what: str) -> None:
    old, new = NOTHING[what]
    assert old in CELL
    assert digest(CELL) == digest(CELL.replace(old, new))


def test_what_playing_changes_is_not_an_edit() -> None:
    names = run(CELL)
    before = sha256_of_code(names["Mine"])
    env = names["Mine"]()
    env.reset(seed=0)
    env.action_space.seed(3)
    env.step(env.action_space.sample())
    assert names["steps"] == 1
    assert sha256_of_code(names["Mine"]) == before


def test_the_hash_is_the_same_in_another_process(tmp_path: Path) -> None:
    found = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-"]
        environment = {"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])}
        found.add(subprocess.run(command, input=PROGRAM, env=environment, text=True, capture_output=True, check=True).stdout)
    assert len(found) == 1


def test_functions_that_call_each_other_end() -> None:
    names = run(
        "both = []\ndef even(n): return n == 0 or odd(n - 1)\ndef odd(n): return both and even(n - 1)\nboth += [both, odd]"
    )
    assert len(sha256_of_code(names["even"])) == 64


# What lives in no file


@dataclasses.dataclass
class InAFile:
    """Dataclasses write methods that come from a text."""

    size: int = 3


def test_what_lives_in_no_file() -> None:
    assert lives_in_no_file(run("class A: pass")["A"])
    assert lives_in_no_file(run("class A:\n def step(self): pass", __name__)["A"])
    names: dict[str, Any] = {}
    exec("class A: x = 1", names)  # Python calls its module builtins
    assert lives_in_no_file(names["A"])
    for code in (InAFile, Path, int, type(None), gymnasium.Env, gymnasium.Wrapper, digest):
        assert not lives_in_no_file(code)


def test_a_class_in_a_file_is_recorded_by_files_alone() -> None:
    source = code_source(InAFile)
    assert "tests/code/test_fingerprint.py" in source
    assert all(name.endswith(".py") for name in source)


def test_a_method_that_was_replaced_by_hand_is_seen(folder: Path) -> None:
    (folder / "my_world.py").write_text("from worldmodel_v.envs.stamp import StampEnv\nclass Mine(StampEnv): pass\n")
    world = __import__("my_world")
    before = code_source(world.Mine)
    world.Mine.step = run("def step(self, action): return 1")["step"]
    after = code_source(world.Mine)
    assert before.items() < after.items()
    replaced = {"my_world.Mine.step", "a_notebook.step (in no file)"}
    assert after.keys() - before.keys() == {"my_world.Mine (in no file)", *replaced}


def source_of(entry_point: Callable, **kwargs: object) -> dict[str, str]:
    gymnasium.registry.pop("Typed-v0", None)
    gymnasium.register("Typed-v0", entry_point=entry_point, kwargs=kwargs)
    env = make_image_env("Typed-v0", {})
    env.close()
    return env_source(env.gym, "Typed-v0")


@pytest.mark.usefixtures("folder")
def test_a_function_that_makes_the_environment_counts_and_so_does_what_it_is_given() -> None:
    text = "from worldmodel_v.envs.stamp import StampEnv\ndef make(size=8, shape=None, **more): return StampEnv(size=size)"
    first, second = (run(text.replace("8", size))["make"] for size in ("8", "16"))
    assert source_of(first).keys() == {"entry point (in no file)", "registration"}
    assert source_of(first) != source_of(second)
    shapes = [run(f"def shape(): return {number}")["shape"] for number in (1, 2)]
    assert source_of(first, shape=shapes[0]) != source_of(first, shape=shapes[1])


def test_a_class_that_derives_from_its_old_self_counts_with_both() -> None:
    names = run(CELL)
    first = names["Mine"]
    exec("class Mine(Mine): pass", names)
    source = code_source(names["Mine"])
    assert source == {"a_notebook.Mine (in no file)": f"{sha256_of_code(names['Mine'])} {sha256_of_code(first)}"}


# Collecting


def config(out: Path, episodes: int, workers: int, **changes: str) -> CollectConfig:
    settings: dict[str, Any] = {"env": "Typed-v0", "policy": "random", "episodes_per_shard": 2, "frame_size": 8}
    return CollectConfig(out=out, episodes=episodes, workers=workers, **{**settings, **changes})


@pytest.mark.usefixtures("folder")
def test_an_edited_class_does_not_continue_and_the_same_one_typed_again_does(tmp_path: Path) -> None:
    def collected(text: str, episodes: int) -> int:
        gymnasium.registry.pop("Typed-v0", None)
        gymnasium.register("Typed-v0", entry_point=run(text)["Mine"])
        return collect(config(tmp_path / "out", episodes, workers=0)).new_episodes

    assert collected(CELL, 2) == 2
    with pytest.raises(OutputNotUsable, match=r"env_source is {'a_notebook\.Mine \(in no file\)': '[0-9a-f]{64}'"):
        collected(CELL.replace("reward = 1.0", "reward = 2.0"), 4)
    assert collected(CELL, 4) == 2
    assert verify(open_dataset(tmp_path / "out")) == []


@pytest.mark.usefixtures("folder", "local_ray")
def test_a_worker_says_that_it_lacks_what_was_typed(tmp_path: Path) -> None:
    gymnasium.register("Typed-v0", entry_point=run(CELL)["Mine"])
    expected = (
        r"Typed-v0: the worker on \S+ \(process \d+\) lacks it, or what it needs \(NameNotFound: Environment `Typed` doesn't "
        r"exist\.\); install its package on every node, or put it into a module that workers can import and name it "
        r"module:Typed-v0, or collect with workers=0$"
    )
    with pytest.raises(EnvironmentNotUsable, match=expected):
        collect(config(tmp_path / "out", 2, workers=1))


@pytest.mark.usefixtures("local_ray")
def test_a_worker_says_that_it_lacks_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = types.ModuleType("typed_policy")
    typed.make = RandomPolicy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "typed_policy", typed)
    with pytest.raises(PolicyNotUsable, match=r"^policy typed_policy:make: the worker on .*No module named 'typed_policy'.*0$"):
        collect(config(tmp_path / "out", 2, workers=1, env=STAMP_ENV_ID, policy="typed_policy:make"))


@pytest.mark.usefixtures("local_ray")
def test_a_source_of_the_program_itself_travels_with_its_code(tmp_path: Path) -> None:
    text = "from tests.extending.pendulums import Pendulums\nclass Typed(Pendulums):\n  def mine(self): pass"
    source = run(text, "__main__")["Typed"]()
    collect_source(source, CollectionConfig(out=tmp_path / "out", episodes=2, workers=1))
    assert "__main__.Typed (in no file)" in open_dataset(tmp_path / "out").spec.env_source


@pytest.mark.usefixtures("local_ray")
def test_a_worker_says_that_it_lacks_a_sources_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from tests.extending.pendulums import Pendulums\nclass Typed(Pendulums): pass"
    names = run(text, "typed_source")
    monkeypatch.setitem(sys.modules, "typed_source", types.ModuleType("typed_source"))
    vars(sys.modules["typed_source"]).update(names)
    expected = r"^a worker lacks the module typed_source \(ModuleNotFoundError: No module named 'typed_source'\); install it on"
    with pytest.raises(ClusterNotUsable, match=expected):
        collect_source(names["Typed"](), CollectionConfig(out=tmp_path / "out", episodes=2, workers=1))
