"""Weights under the names that trainers give them."""

import re
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.policies import make_policy
from worldmodel_v.policies.weights import fitting_weights

WEIGHTS = {
    "body.0.weight": torch.arange(6.0).reshape(2, 3),
    "body.0.bias": torch.tensor([1.0, 2.0]),
    "out.weight": torch.ones(1, 2),
}
NETWORK = {name: torch.zeros_like(value) for name, value in WEIGHTS.items()}
TARGET = {name: value + 1 for name, value in WEIGHTS.items()}


def prefixed(prefix: str, weights: dict[str, Any] = WEIGHTS) -> dict[str, Any]:
    return {prefix + name: value for name, value in weights.items()}


@pytest.mark.parametrize(
    "stored",
    [
        WEIGHTS,
        prefixed("_orig_mod."),
        prefixed("module."),
        prefixed("_orig_mod.module."),
        {"epoch": 3, "state_dict": WEIGHTS},
        {"epoch": 3, "model": prefixed("module."), "optimizer": {"state": {0: {"exp_avg": torch.ones(2, 3)}}}},
        {"agent": {"networks": {"policy": WEIGHTS}}, "critic": {"out.weight": torch.ones(1, 2)}},
        {"state_dict": prefixed("policy.actor.net.") | {"policy.critic.out.weight": torch.ones(1, 2)}},
        {"body._orig_mod.0.weight": WEIGHTS["body.0.weight"]} | {k: v for k, v in WEIGHTS.items() if k != "body.0.weight"},
        {"n_averaged": torch.tensor(4)} | prefixed("module."),
        {"state_dict": prefixed("net."), "ema": prefixed("net.")},
    ],
)
def test_weights_are_found_under_prefixes_nesting_and_wrappers(stored: Any) -> None:
    found = fitting_weights(stored, NETWORK, "f.pt")
    assert found.keys() == WEIGHTS.keys()
    assert all(found[name] is value for name, value in WEIGHTS.items())


def test_a_network_that_is_wrapped_takes_bare_weights() -> None:
    found = fitting_weights(WEIGHTS, prefixed("_orig_mod.", NETWORK), "f.pt")
    assert found.keys() == prefixed("_orig_mod.").keys()


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (prefixed("actor.") | prefixed("target.", TARGET), "['actor.*'], ['target.*']"),
        ({"model": WEIGHTS, "ema": prefixed("module.", TARGET)}, "model, ema"),
    ],
)
def test_weights_that_differ_and_both_fit_are_refused_by_their_places(stored: Any, text: str) -> None:
    with pytest.raises(
        PolicyNotUsable, match=re.escape(f"f.pt has several sets of weights that fit the network, at {text}; save")
    ):
        fitting_weights(stored, NETWORK, "f.pt")


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ({}, "missing body.0.weight, body.0.bias, out.weight (read at the top); build"),
        ([1], "missing body.0.weight, body.0.bias, out.weight (read at the top); build"),
        (WEIGHTS | {"x": torch.ones(1)}, "unexpected x (read at the top); build"),
        (
            {"state_dict": prefixed("net.", WEIGHTS | {"out.weight": torch.ones(5, 2)})},
            "wrong shape out.weight (file (5, 2), network (1, 2)) (read at state_dict['net.*']); build",
        ),
        (WEIGHTS | {f"x{i}": torch.ones(1) for i in range(5)}, "unexpected x0, x1, x2 and 2 more (read at the top); build"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_their_names(stored: Any, text: str) -> None:
    with pytest.raises(PolicyNotUsable, match=f"^f.pt does not fit the network: {re.escape(text)}"):
        fitting_weights(stored, NETWORK, "f.pt")


class Unbatched(torch.nn.Linear):
    """Returns (A,) in the place of (1, A)."""

    def forward(self, x_1CHW: torch.Tensor) -> torch.Tensor:
        return super().forward(x_1CHW.flatten())


def unbatched(env: gymnasium.Env) -> torch.nn.Module:
    return Unbatched(3, 2)


def test_an_output_without_batch_is_the_action(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.tensor([0.0, 1.0])}, tmp_path / "w.pt")
    policy = make_policy(f"checkpoint:{__name__}:unbatched:{tmp_path}/w.pt", gymnasium.make("CartPole-v1"))
    assert policy.act(np.zeros((1, 1, 3), np.uint8)) == 1


def linear(env: gymnasium.Env) -> torch.nn.Module:
    return torch.nn.Linear(3, 2)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_checkpoint_policy_takes_compiled_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    weights = prefixed("_orig_mod.", torch.nn.Linear(3, 2).state_dict())
    (torch.save if suffix == "pt" else save_file)(weights, tmp_path / f"w.{suffix}")
    policy: Any = make_policy(f"checkpoint:{__name__}:linear:{tmp_path}/w.{suffix}", gymnasium.make("CartPole-v1"))
    torch.testing.assert_close(policy._network.weight, weights["_orig_mod.weight"], rtol=0, atol=0)


def test_a_file_that_would_grow_in_memory_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "bomb": torch.zeros(1_000_000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    with pytest.raises(PolicyNotUsable, match=r"w\.pt cannot be read as weights \(ValueError\)"):
        make_policy(f"checkpoint:{__name__}:linear:{tmp_path}/w.pt", gymnasium.make("CartPole-v1"))
