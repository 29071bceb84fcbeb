"""Weights under the names that trainers give them."""

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.policies import make_policy
from worldmodel_v.policies.network import chosen_action
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


LAYER = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
LARGER = {"weight": torch.ones(3, 4), "bias": torch.ones(3)}


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (prefixed("0.", LARGER) | prefixed("2.", LAYER), "unexpected 0.bias, 0.weight (read at ['2.*'])"),
        (prefixed("fc1.", LARGER) | prefixed("fc2.", LAYER), "unexpected fc1.bias, fc1.weight (read at ['fc2.*'])"),
        (
            {"model": prefixed("module.net.0.", LARGER) | prefixed("module.net.2.", LAYER) | {"log_std": torch.ones(1)}},
            "unexpected module.net.0.bias, module.net.0.weight (read at model['module.net.2.*'])",
        ),
    ],
)
def test_a_layer_of_a_larger_network_is_not_taken_for_the_network(stored: Any, text: str) -> None:
    with pytest.raises(
        PolicyNotUsable, match=re.escape(f"f.pt does not fit the network: {text}; build the network that was saved")
    ):
        fitting_weights(stored, LAYER, "f.pt")


def test_blocks_of_a_sequence_are_not_taken_for_the_network() -> None:
    stored = prefixed("blocks.0.") | {f"blocks.1.{name}": torch.ones(7, 7) for name in WEIGHTS}
    with pytest.raises(PolicyNotUsable, match=re.escape("unexpected blocks.1.body.0.bias, blocks.1.body.0.weight")):
        fitting_weights(stored, NETWORK, "f.pt")


@pytest.mark.parametrize("stored", [prefixed("actor.", LAYER), {"n_averaged": torch.tensor(1)} | prefixed("module.", LAYER)])
def test_a_network_of_one_layer_is_found_where_it_stands_alone(stored: Any) -> None:
    assert fitting_weights(stored, LAYER, "f.pt").keys() == LAYER.keys()


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


def wide(env: gymnasium.Env) -> torch.nn.Module:
    return Unbatched(3, 5)


def test_outputs_that_are_no_logits_of_the_actions_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(5, 3), "bias": torch.arange(5.0) % 2}, tmp_path / "w.pt")
    policy = make_policy(f"checkpoint:{__name__}:wide:{tmp_path}/w.pt", gymnasium.make("CartPole-v1"))
    with pytest.raises(ValueError, match=re.escape("network gives (5,), expected 2 logits for Discrete(2)")):
        policy.act(np.zeros((1, 1, 3), np.uint8))


class Pair(torch.nn.Linear):
    """Returns an action and a state."""

    def forward(self, x_1CHW: torch.Tensor) -> Any:
        return super().forward(x_1CHW.flatten()), None


def pair(env: gymnasium.Env) -> torch.nn.Module:
    return Pair(3, 2)


def test_an_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, tmp_path / "w.pt")
    policy = make_policy(f"checkpoint:{__name__}:pair:{tmp_path}/w.pt", gymnasium.make("CartPole-v1"))
    with pytest.raises(TypeError, match=r"^the policy's network gives \(tensor.*\(tuple\), expected a tensor: an action or"):
        policy.act(np.zeros((1, 1, 3), np.uint8))


def test_several_actions_are_not_taken_for_one() -> None:
    space = gymnasium.spaces.Box(-1, 1, (2,))
    assert chosen_action(np.zeros((1, 2)), space).shape == (2,)
    with pytest.raises(ValueError, match=r"^the policy's network gives \(8, 2\), expected one action of Box"):
        chosen_action(np.zeros((8, 2)), space)


def test_logits_that_are_nan_choose_nothing() -> None:
    with pytest.raises(ValueError, match=re.escape("the policy's network gives NaN: [[0.0, nan]]")):
        chosen_action(np.array([[0.0, np.nan]]), gymnasium.spaces.Discrete(2))


def test_the_first_action_may_have_another_number_than_0() -> None:
    assert chosen_action(np.array([[0.0, 1.0]]), gymnasium.spaces.Discrete(2, start=3)) == 4


def linear(env: gymnasium.Env) -> torch.nn.Module:
    return torch.nn.Linear(3, 2)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_checkpoint_policy_takes_compiled_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    weights = prefixed("_orig_mod.", torch.nn.Linear(3, 2).state_dict())
    (torch.save if suffix == "pt" else save_file)(weights, tmp_path / f"w.{suffix}")
    policy: Any = make_policy(f"checkpoint:{__name__}:linear:{tmp_path}/w.{suffix}", gymnasium.make("CartPole-v1"))
    torch.testing.assert_close(policy._network.weight, weights["_orig_mod.weight"], rtol=0, atol=0)


def test_dicts_that_stand_in_each_other_many_times_are_read_once() -> None:
    inner: dict[str, Any] = WEIGHTS
    for _ in range(4):
        inner = dict.fromkeys(map(str, range(10_000)), inner)
    assert fitting_weights(inner, NETWORK, "f.pt").keys() == WEIGHTS.keys()
