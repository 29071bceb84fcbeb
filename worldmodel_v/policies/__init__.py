"""Policies: the `Policy` protocol, the built-in policies, and how one is built from its line.

`random`, `brownian`, `driver`, `random-start(…)`, `mixture(…)`, `checkpoint:…`, `onnx:…` `sb3:…` are built in; a user's own is
`module:factory`, where `factory(env)` gets the Gymnasium environment of one episode and returns a `Policy`. Numbers in the
line become keyword arguments of the factory. An action is cast to float32 (Box) or int (Discrete), and then to the action
space's dtype.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np

from worldmodel_v.code.origin import code_source
from worldmodel_v.errors import PolicyNotUsable, one_line, retold
from worldmodel_v.own_modules import load_own
from worldmodel_v.policies.acting import FRAME, OBSERVATION, acts_on, next_action
from worldmodel_v.policies.brownian import BrownianPolicy
from worldmodel_v.policies.checkpoint import PREFIX as CHECKPOINT_PREFIX
from worldmodel_v.policies.checkpoint import CheckpointPolicy, checkpoint_factory, sha256_of_weights, source_parts
from worldmodel_v.policies.composed import InnerPolicy, MixturePolicy, RandomStartPolicy
from worldmodel_v.policies.driver import DriverPolicy
from worldmodel_v.policies.expression import PolicyExpression, parse_policy
from worldmodel_v.policies.onnx import PREFIX as ONNX_PREFIX
from worldmodel_v.policies.onnx import OnnxPolicy
from worldmodel_v.policies.sb3 import PREFIX as SB3_PREFIX
from worldmodel_v.policies.sb3 import StableBaselinesPolicy
from worldmodel_v.policies.uniform import RandomPolicy
from worldmodel_v.settings import local_path


class Policy(Protocol):
    """Chooses actions. It may keep state within an episode; `reset` clears it for the next one.

    A policy that makes a choice at `reset` names it in an attribute `chosen`, which is recorded with the episode. A policy with
    an attribute `acts_on = "observation"` acts on the environment's own observation, whatever its space, and not on the frame.
    """

    def reset(self, rng: np.random.Generator) -> np.ndarray | None:
        """Begin an episode, after the environment's reset. All randomness must come from `rng`, which is seeded for this
        episode alone. Returns the first frame if the policy changed the environment, None otherwise; it is refused if it has
        called `step` or `reset` and returns none."""

    def act(self, frame: np.ndarray) -> Any:
        """The action on a raw frame (uint8, (H, W, 3) or (H, W)) as the environment gives it, before crop and resize; or on the
        observation, as the environment with its wrappers gives it."""


PolicyFactory = Callable[..., Policy]

POLICIES: dict[str, PolicyFactory] = {
    "random": RandomPolicy,
    "brownian": BrownianPolicy,
    "driver": DriverPolicy,
    "random-start": RandomStartPolicy,
    "mixture": MixturePolicy,
}


FILE_POLICIES: dict[str, PolicyFactory] = {ONNX_PREFIX: OnnxPolicy, SB3_PREFIX: StableBaselinesPolicy}
"""What a file alone makes, by what stands before its path."""


def find_policy(name: str) -> PolicyFactory:
    """The factory of a policy, by its name, its file (`checkpoint:…`, `onnx:…`, `sb3:…`) or `module:factory`.

    Raises PolicyNotUsable.
    """
    if name in POLICIES:
        return POLICIES[name]
    if name.startswith(CHECKPOINT_PREFIX):
        return checkpoint_factory(name.removeprefix(CHECKPOINT_PREFIX))
    for prefix, policy in FILE_POLICIES.items():
        if name.startswith(prefix):
            return partial(policy, file=Path.cwd() / local_path(name.removeprefix(prefix)))
    if ":" not in name:
        files = (f"{prefix}FILE" for prefix in FILE_POLICIES)
        expected = ", ".join([*POLICIES, f"{CHECKPOINT_PREFIX}MODULE:FACTORY:FILE", *files])
        raise PolicyNotUsable(f"unknown policy {name!r}: expected one of {expected}, or module:factory")
    return _loaded(name, name)


def _loaded(name: str, source: str) -> PolicyFactory:
    """What `source`, module:factory, names in the policy `name`."""
    begin, end = f"policy {name!r} cannot be loaded: ", "; expected module:factory on the Python path"
    factory = load_own(source, lambda why: PolicyNotUsable(begin + why + end))
    if not callable(factory):
        raise PolicyNotUsable(
            f"policy {name!r}: {source.partition(':')[2]} is not callable; expected a factory(env) that returns a Policy"
        )
    return factory


def policy_weights(text: str) -> dict[str, str]:
    """The SHA-256 of every file of weights that a policy's line names, by its path; raises PolicyNotUsable."""
    names = parse_policy(text).names()
    files = [source_parts(name.removeprefix(CHECKPOINT_PREFIX))[2] for name in names if name.startswith(CHECKPOINT_PREFIX)]
    files += [name.removeprefix(prefix) for prefix in FILE_POLICIES for name in names if name.startswith(prefix)]
    return {file: sha256_of_weights(local_path(file)) for file in files}


def policy_source(text: str) -> dict[str, str]:
    """Where a user's own code in a policy's line comes from (see `worldmodel_v.code.origin`): that of `module:factory`, and of
    a checkpoint's factory. Empty for the policies that ship; raises PolicyNotUsable if there is no such code."""
    source: dict[str, str] = {}
    for name in parse_policy(text).names():
        if name not in POLICIES and not name.startswith(tuple(FILE_POLICIES)):
            factory = ":".join(name.removeprefix(CHECKPOINT_PREFIX).split(":")[:2])
            source |= code_source(_loaded(name, factory), factory.partition(":")[0])
    return source


def make_policy(text: str, env: gymnasium.Env) -> Policy:
    """Build a policy for an environment from its line; raises PolicyNotUsable if it does not follow the protocol."""
    return policy_maker(text)(env)


def policy_maker(text: str) -> Callable[[gymnasium.Env], Policy]:
    """A function that builds the policy of a line for each environment it is given. Both may raise PolicyNotUsable.

    Modules are imported here. Files are looked for in the present working directory, which an environment may change later.
    """
    expression = parse_policy(text)
    return partial(_build, expression, {name: find_policy(name) for name in expression.names()})


def _build(expression: PolicyExpression, factories: Mapping[str, PolicyFactory], env: gymnasium.Env) -> Policy:
    factory = factories[expression.name]
    if expression.numbers:
        _require_taken(expression, factory)
    inner = [InnerPolicy(weight, str(member), _build(member, factories, env)) for weight, member in expression.inner]
    with retold(lambda error: PolicyNotUsable(f"policy '{expression}' cannot be built: {one_line(error)}")):
        policy = factory(env, *([inner] if inner else []), **expression.numbers)
    for method in ("reset", "act"):
        if not callable(getattr(policy, method, None)):
            raise PolicyNotUsable(
                f"policy '{expression}': {type(policy).__name__} has no method {method}; see worldmodel_v.policies.Policy"
            )
    if acts_on(policy) not in (FRAME, OBSERVATION):
        raise PolicyNotUsable(
            f"policy '{expression}': acts_on is {acts_on(policy)!r:.100}; set it to {FRAME!r} (the default) or {OBSERVATION!r}"
        )
    return policy


def _require_taken(expression: PolicyExpression, factory: PolicyFactory) -> None:
    """Raise PolicyNotUsable, with the numbers that the factory takes, if it does not take one of those in the line."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # native code does not say
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    named = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}
    if unknown := [name for name in expression.numbers if name not in named]:
        takes = [parameter.name for parameter in parameters if isinstance(parameter.default, int | float | None)]
        raise PolicyNotUsable(f"policy '{expression}': takes no {unknown[0]}; it takes {', '.join(takes) or 'no numbers'}")


__all__ = [
    "POLICIES",
    "BrownianPolicy",
    "CheckpointPolicy",
    "DriverPolicy",
    "MixturePolicy",
    "OnnxPolicy",
    "Policy",
    "PolicyFactory",
    "RandomPolicy",
    "RandomStartPolicy",
    "StableBaselinesPolicy",
    "find_policy",
    "make_policy",
    "next_action",
    "parse_policy",
    "policy_maker",
    "policy_source",
    "policy_weights",
]
