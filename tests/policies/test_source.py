"""A policy's code is a setting: recorded, and a changed one does not continue the data of the old one."""

import dataclasses
import hashlib
import json
import sys
import types
from pathlib import Path

import pytest

from tests.conftest import stamp_config
from tests.envs.test_source import folder as folder  # a fixture
from worldmodel_v.collection import collect
from worldmodel_v.collection.block import block_collector
from worldmodel_v.collection.collector import resolve_spec
from worldmodel_v.errors import EnvironmentNotUsable, OutputNotUsable, PolicyNotUsable
from worldmodel_v.policies import policy_source
from worldmodel_v.sources import GymSource

MODULE = """
import numpy as np

class Still:
    def __init__(self, env): pass
    def reset(self, rng): pass
    def act(self, frame): return np.zeros(2, np.float32)

def make(env): return Still(env)
"""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "name", ["my_policy:Still", "my_policy:make", "checkpoint:my_policy:make:w.pt", "mixture(my_policy:make)"]
)
def test_a_users_module_is_recorded_by_its_file(folder: Path, name: str) -> None:
    (folder / "my_policy.py").write_text(MODULE)
    assert policy_source(name) == {"my_policy.py": sha256(MODULE)}


def test_the_modules_of_its_bases_count_too(folder: Path) -> None:
    (folder / "my_policy.py").write_text(MODULE)
    (folder / "my_other.py").write_text(
        other := "import my_policy, torch\nclass Other(my_policy.Still, torch.nn.Module): pass\n"
    )
    assert policy_source("my_other:Other") == {"my_policy.py": sha256(MODULE), "my_other.py": sha256(other)}


@pytest.mark.parametrize("name", ["random", "mixture(2*brownian, driver)", "onnx:x.onnx", "sb3:x.zip"])
def test_policies_that_ship_have_no_source_of_their_own(name: str) -> None:
    assert policy_source(name) == {}


def test_code_that_lives_in_no_file_is_recorded_by_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = []
    for text in (MODULE, MODULE.replace("zeros", "ones"), MODULE):
        monkeypatch.setitem(sys.modules, "a_notebook", module := types.ModuleType("a_notebook"))
        exec(compile(text, "<stdin>", "exec"), vars(module))
        sources.append(policy_source("a_notebook:Still"))
    assert sources[0].keys() == {"a_notebook.Still (in no file)"}
    assert sources[0] == sources[2] != sources[1]


def test_code_that_is_missing_is_refused() -> None:
    with pytest.raises(PolicyNotUsable, match="policy 'checkpoint:no_such:make:w' cannot be loaded: No module named 'no_such'"):
        policy_source("checkpoint:no_such:make:w")


def test_an_edited_policy_does_not_continue_and_an_unchanged_one_does(folder: Path) -> None:
    module = folder / "my_policy.py"

    def collect_with(text: str, episodes: int) -> None:
        sys.modules.pop("my_policy", None)
        module.write_text(text)
        collect(stamp_config(folder / "out", policy="my_policy:make", episodes=episodes, episodes_per_shard=1, max_steps=2))

    collect_with(MODULE, 1)
    spec = json.loads((folder / "out/dataset.json").read_text())["spec"]
    assert spec["policy_source"] == {"my_policy.py": sha256(MODULE)}
    with pytest.raises(
        OutputNotUsable, match=rf"other settings: policy_source is {{'my_policy\.py': '{sha256(MODULE)}'}} there"
    ):
        collect_with(MODULE + "# other\n", 2)
    collect_with(MODULE, 2)


def test_a_policy_that_ships_leaves_nothing_in_the_settings(stamp_rollouts: Path) -> None:
    assert "policy_source" not in json.loads((stamp_rollouts / "dataset.json").read_text())["spec"]


def test_a_worker_with_another_policy_collects_nothing(folder: Path) -> None:
    (folder / "my_policy.py").write_text(MODULE)
    spec = resolve_spec(stamp_config(folder / "out", policy="my_policy:make"))
    block_collector(GymSource(spec))
    changed = dataclasses.replace(spec, policy_source={"my_policy.py": "0"})
    text = r"policy_source is {'my_policy\.py': '[0-9a-f]{64}'} there, {'my_policy\.py': '0'} asked; install the same"
    with pytest.raises(EnvironmentNotUsable, match=text):
        block_collector(GymSource(changed))
