"""From what a network of Stable-Baselines3 gives to an action, as its `predict` goes on: the most probable one, or one drawn.

Legend: n outputs of the network. `rng` is None where the most probable action is taken.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces

from worldmodel_v.policies.sb3_network import Network
from worldmodel_v.policies.sb3_zip import SavedModel

Chooser = Callable[[torch.Tensor, torch.Tensor | None, np.random.Generator | None], Any]
"""The action of outputs (1, n) and log σ."""

LOG_STD_OF_SAC = (-20.0, 2.0)


def chooser(space: Space, saved: SavedModel, network: Network, *, draws: bool) -> Chooser:
    """What chooses actions in a space; raises PolicyNotUsable if it is to draw them, and that cannot be done."""
    if draws and (saved.use_sde or network.family == "TD3"):
        told = "noise that depends on the state (use_sde)" if saved.use_sde else "no noise in its policy (TD3, DDPG)"
        raise saved.refusal(f"it has {told}, so its actions cannot be drawn", "leave deterministic=0 out")
    match network.family, space:
        case "DQN", spaces.Discrete():
            rate = saved.data.get("exploration_rate")
            return partial(_best_or_any, exploration_rate=rate if isinstance(rate, float) else 0.0)
        case "SAC" | "TD3", spaces.Box():
            return partial(_continuous, space=space, is_squashed=True, bounds=LOG_STD_OF_SAC)
        case "actor-critic", spaces.Box():
            is_squashed = saved.policy_kwargs.squash_output
            return partial(_continuous, space=space, is_squashed=is_squashed, bounds=(-math.inf, math.inf))
        case "actor-critic", spaces.Discrete():
            return lambda logits, _, rng: _category(logits, rng)
        case "actor-critic", spaces.MultiDiscrete():
            sizes = space.nvec.tolist()
            return lambda logits, _, rng: np.array([_category(part, rng) for part in logits.split(sizes, dim=1)])
        case "actor-critic", spaces.MultiBinary():
            return lambda logits, _, rng: _bits(logits, rng).reshape(space.shape)
    raise saved.refusal(f"{network.family} has no actions of {space}", "save the model again")


def _continuous(
    mean: torch.Tensor,
    log_std: torch.Tensor | None,
    rng: np.random.Generator | None,
    *,
    space: spaces.Box,
    is_squashed: bool,
    bounds: tuple[float, float],
) -> np.ndarray:
    """Squashed to [-1, 1] and stretched to the space's bounds, or clipped to them."""
    if rng is not None and log_std is not None:
        noise = torch.from_numpy(rng.standard_normal(tuple(mean.shape), np.float32))
        mean = mean + log_std.clamp(*bounds).exp() * noise
    values = (torch.tanh(mean) if is_squashed else mean).numpy().reshape(space.shape)
    if is_squashed:
        values = space.low + (0.5 * (values + 1.0) * (space.high - space.low))
    return np.clip(values, space.low, space.high)  # after stretching too: rounding may put a value beyond


def _best_or_any(
    values: torch.Tensor, _: torch.Tensor | None, rng: np.random.Generator | None, *, exploration_rate: float
) -> int:
    if rng is not None and rng.random() < exploration_rate:
        return int(rng.integers(values.shape[1]))
    return int(values.argmax(dim=1))


def _category(logits: torch.Tensor, rng: np.random.Generator | None) -> int:
    """The largest is sought among the probabilities, (1, n), as there: rounding may make two of them equal."""
    p = torch.softmax(logits - logits.logsumexp(dim=-1, keepdim=True), dim=-1)
    if rng is None:
        return int(p.argmax(dim=1))
    weights = p[0].double().numpy()
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def _bits(logits: torch.Tensor, rng: np.random.Generator | None) -> np.ndarray:
    p = torch.sigmoid(logits)
    ones = torch.round(p).numpy() if rng is None else rng.random(tuple(p.shape)) < p.numpy()
    return ones.astype(np.int8)
