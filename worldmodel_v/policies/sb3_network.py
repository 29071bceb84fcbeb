"""The network that acts in a policy of Stable-Baselines3, rebuilt from the names and shapes of its weights.

Legend: C, H, W picture, n outputs. One observation at a time, so the first axis is 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from worldmodel_v.policies.sb3_zip import ONNX_INSTEAD, SavedModel
from worldmodel_v.policies.weights import some_names

Layer = Callable[[torch.Tensor], torch.Tensor]

NATURE_CNN_STRIDES = (4, 2, 1)


@dataclass(frozen=True)
class Family:
    """Where the policies of an algorithm hold their weights."""

    name: str
    features: tuple[str, ...]
    """The prefixes of the network in front, of which the first that is there acts."""

    hidden: str
    head: str
    """What gives the outputs; "" where that is the last layer of `hidden`."""

    beside: tuple[str, ...]
    """The prefixes of what does not act: critics and targets."""

    activation: str
    log_std: str | None = None


FAMILIES = {
    "stable_baselines3.common.policies": Family(
        name="actor-critic",
        features=("pi_features_extractor.", "features_extractor."),
        hidden="mlp_extractor.policy_net.",
        head="action_net",
        beside=("features_extractor.", "vf_features_extractor.", "mlp_extractor.value_net.", "value_net."),
        activation="Tanh",
        log_std="log_std",
    ),
    "stable_baselines3.dqn.policies": Family(
        name="DQN",
        features=("q_net.features_extractor.",),
        hidden="q_net.q_net.",
        head="",
        beside=("q_net_target.",),
        activation="ReLU",
    ),
    "stable_baselines3.sac.policies": Family(
        name="SAC",
        features=("actor.features_extractor.",),
        hidden="actor.latent_pi.",
        head="actor.mu",
        beside=("critic.", "critic_target."),
        activation="ReLU",
        log_std="actor.log_std",
    ),
    "stable_baselines3.td3.policies": Family(
        name="TD3",
        features=("actor.features_extractor.",),
        hidden="actor.mu.",
        head="",
        beside=("actor_target.", "critic.", "critic_target."),
        activation="ReLU",
    ),
}
"""By the module of the policy's class: PPO and A2C; DQN; SAC; TD3 and DDPG."""


class Network:
    """Maps a picture (1, C, H, W) or numbers (1, …), float32, to what the last layer gives, (1, n)."""

    def __init__(self, saved: SavedModel) -> None:
        """Raises PolicyNotUsable, naming what is not understood."""
        family = FAMILIES.get(saved.policy_module)
        if family is None:
            told = f"its policy is a class of {saved.policy_module:.100}, expected one of {', '.join(FAMILIES)}"
            raise saved.refusal(told, ONNX_INSTEAD)
        self.family, kwargs = family.name, saved.policy_kwargs
        weights = _Weights(saved)
        prefix = next((prefix for prefix in family.features if weights.has(prefix)), None)
        self._features = [partial(torch.flatten, start_dim=1)] if prefix is None else _nature_cnn(weights, prefix)
        hidden = weights.numbered(family.hidden)
        is_clipped = saved.use_sde and family.name == "SAC" and kwargs.clip_mean > 0
        if family.head:
            self._head = [weights.linear(f"{family.head}.0" if is_clipped else family.head)]
        else:
            self._head = [hidden.pop()] if hidden else []
        if is_clipped:
            self._head.append(partial(torch.clamp, min=-kwargs.clip_mean, max=kwargs.clip_mean))
        activation = getattr(torch.nn, kwargs.activation or family.activation)()
        self._hidden = [layer for linear in hidden for layer in (linear, activation)]
        self._log_std = weights.log_std(family.log_std) if family.log_std else None
        weights.require_all_taken(family.beside)

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the last layer gives, and log σ beside it where actions are drawn from a normal distribution."""
        latent = _through([*self._features, *self._hidden], x)
        log_std = self._log_std(latent) if callable(self._log_std) else self._log_std
        return _through(self._head, latent), log_std


class _Weights:
    """The weights of a model, each to be taken once."""

    def __init__(self, saved: SavedModel) -> None:
        self._saved, self._left = saved, dict(saved.weights)

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self._left)

    def linear(self, name: str) -> Layer:
        return partial(functional.linear, weight=self._take(f"{name}.weight"), bias=self._take(f"{name}.bias"))

    def conv(self, name: str, stride: int) -> Layer:
        weight, bias = self._take(f"{name}.weight"), self._take(f"{name}.bias")
        return partial(functional.conv2d, weight=weight, bias=bias, stride=stride)

    def numbered(self, prefix: str) -> list[Layer]:
        """The linear layers of a Sequential, which stand at 0, 2, 4, …; what stands between them has no weights."""
        layers: list[Layer] = []
        while f"{prefix}{2 * len(layers)}.weight" in self._left:
            layers.append(self.linear(f"{prefix}{2 * len(layers)}"))
        return layers

    def log_std(self, name: str) -> Layer | torch.Tensor | None:
        """A layer, or one value for each action; None where actions are discrete."""
        return self.linear(name) if f"{name}.weight" in self._left else self._left.pop(name, None)

    def require_all_taken(self, beside: tuple[str, ...]) -> None:
        """Raise PolicyNotUsable if weights are left that are neither known to stand beside what acts."""
        if left := [name for name in self._left if not name.startswith(beside)]:
            raise self._saved.refusal(f"its weights {some_names(left)} are of no network that is known", ONNX_INSTEAD)

    def _take(self, name: str) -> torch.Tensor:
        if name not in self._left:
            raise self._saved.refusal(f"its weights lack {name}", ONNX_INSTEAD)
        return self._left.pop(name)


def _nature_cnn(weights: _Weights, prefix: str) -> list[Layer]:
    """The network of Mnih et al., "Human-level control through deep reinforcement learning", Nature 518 (2015)."""
    convolutions = [weights.conv(f"{prefix}cnn.{2 * i}", stride) for i, stride in enumerate(NATURE_CNN_STRIDES)]
    layers = [layer for convolution in convolutions for layer in (convolution, functional.relu)]
    return [*layers, partial(torch.flatten, start_dim=1), weights.linear(f"{prefix}linear.0"), functional.relu]


def _through(layers: list[Layer], x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        x = layer(x)
    return x
