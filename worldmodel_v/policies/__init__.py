"""Who drives: the `Policy` protocol, the policies that ship, and how one is found by name.

A user's own policy is `module:factory`, where `factory(env)` gets the Gymnasium environment of one episode and returns a
`Policy`. Its action is cast to float32 (Box) or int (Discrete) and then to the action space's dtype before the step.
"""

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np

from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.policies.brownian import BrownianPolicy
from worldmodel_v.policies.uniform import RandomPolicy


class Policy(Protocol):
    """Chooses actions. May keep state within an episode; `reset` starts the next one afresh."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode. All randomness must come from `rng`, which is seeded for this episode alone."""

    def act(self, frame: np.ndarray) -> Any:
        """The action on a raw frame (uint8, (H, W, 3) or (H, W)) as the environment gives it, before crop and resize."""


PolicyFactory = Callable[[gymnasium.Env], Policy]

POLICIES: dict[str, PolicyFactory] = {"random": RandomPolicy, "brownian": BrownianPolicy}


def find_policy(name: str) -> PolicyFactory:
    """The factory of a policy, by its name or as `module:factory`; raises PolicyNotUsable."""
    if name in POLICIES:
        return POLICIES[name]
    module, separator, attribute = name.partition(":")
    if not separator:
        raise PolicyNotUsable(f"unknown policy {name!r}: expected one of {', '.join(POLICIES)}, or module:factory")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        what = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise PolicyNotUsable(
            f"policy {name!r} cannot be loaded: {what}; expected module:factory on the Python path"
        ) from error
    if not callable(factory):
        raise PolicyNotUsable(f"policy {name!r}: {attribute} is not callable; expected a factory(env) that returns a Policy")
    return factory


def make_policy(name: str, env: gymnasium.Env) -> Policy:
    """Build a policy for an environment; raises PolicyNotUsable if it does not keep the protocol."""
    factory = find_policy(name)
    try:
        policy = factory(env)
    except PolicyNotUsable:
        raise
    except Exception as error:
        raise PolicyNotUsable(f"policy {name!r} cannot be built: {type(error).__name__}: {error}") from error
    for method in ("reset", "act"):
        if not callable(getattr(policy, method, None)):
            raise PolicyNotUsable(
                f"policy {name!r}: {type(policy).__name__} has no method {method}; see worldmodel_v.policies.Policy"
            )
    return policy


__all__ = ["POLICIES", "BrownianPolicy", "Policy", "PolicyFactory", "RandomPolicy", "find_policy", "make_policy"]
