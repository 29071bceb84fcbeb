"""What a program has put around an environment that it steps itself, and what it has given to it."""

import inspect
import json
from typing import Any

import gymnasium
from gymnasium.wrappers import (
    HumanRendering,
    OrderEnforcing,
    PassiveEnvChecker,
    RecordEpisodeStatistics,
    RecordVideo,
    TimeLimit,
)

from worldmodel_v.envs.source import as_json, layers

WRAPPERS, LIMIT = "wrappers", "max_episode_steps"
AROUND = {WRAPPERS, LIMIT}
"""What `around` may say."""

LOOKING_ON = (HumanRendering, OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics, RecordVideo)
"""Wrappers that change nothing of what is recorded."""


def around(env: gymnasium.Env) -> dict[str, str]:
    """The wrappers as JSON, the outermost first, each with its arguments, and a limit of steps that the environment was not
    registered with; for `env_source`. Empty if there are none."""
    found: dict[str, str] = {}
    wrappers = [layer for layer in layers(env) if isinstance(layer, gymnasium.Wrapper) and not isinstance(layer, LOOKING_ON)]
    if env.spec is not None:
        wrappers = [wrapper for wrapper in wrappers if not isinstance(wrapper, TimeLimit)]
        registered = gymnasium.registry.get(env.spec.id, env.spec)
        if env.spec.max_episode_steps != registered.max_episode_steps:
            found[LIMIT] = str(env.spec.max_episode_steps)
    if wrappers:
        named = [[f"{type(each).__module__}:{type(each).__qualname__}", arguments(each)] for each in wrappers]
        found[WRAPPERS] = json.dumps(named, sort_keys=True)
    return found


def arguments(made: gymnasium.Env) -> dict[str, Any]:
    """What an environment or wrapper was made with, as JSON values: what Gymnasium says, or else those parameters of its
    `__init__` that it keeps under their names, as `self.gain = gain` or `self._gain = gain`."""
    kept = vars(made)
    if "_saved_kwargs" in kept:  # of Gymnasium's RecordConstructorArgs
        return as_json(kept["_saved_kwargs"])
    given = {
        name: kept[attribute]
        for name in inspect.signature(type(made)).parameters
        for attribute in (name, f"_{name}")
        if attribute in kept and not isinstance(kept[attribute], gymnasium.Env)
    }
    return as_json(given)
