"""Gymnasium's own record of the environment of a dataset, from which `gymnasium.make` builds it again."""

import copy

import gymnasium
from gymnasium.envs.registration import WrapperSpec

from worldmodel_v.envs.around import AROUND
from worldmodel_v.envs.parts import RENDER
from worldmodel_v.envs.plugins import import_plugin
from worldmodel_v.spec import RolloutSpec


def env_spec_json(spec: RolloutSpec) -> str | None:
    """Gymnasium's EnvSpec as JSON: the environment with the arguments that it was made with, and its wrappers.

    None if this process does not know the environment, or a program had put something around it (`around`). A module that the
    dataset names is not imported: it may be a stranger's.
    """
    if AROUND & spec.env_source.keys():
        return None
    import_plugin(spec.env)
    known = copy.deepcopy(gymnasium.registry.get(spec.env.rpartition(":")[2]))
    if known is None:
        return None
    kwargs = spec.env_kwargs | ({"render_mode": "rgb_array"} if spec.frames == RENDER else {})
    limit = kwargs.pop("max_episode_steps", None)  # `gymnasium.make` takes it itself, and -1 for none
    if limit is not None:
        known.max_episode_steps = None if limit == -1 else limit
    known.kwargs |= kwargs
    known.additional_wrappers += tuple(WrapperSpec(name.rpartition(":")[2], name, {}) for name in spec.wrap)
    try:
        return str(known.to_json())
    except ValueError:  # it was registered with a function, which has no name
        return None
