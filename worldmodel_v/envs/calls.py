"""Who steps and resets an environment meanwhile: the calls of `step` and `reset` on any of its layers, or of an environment
that a layer holds as `env` or `_env`, with what they gave.

So a policy that moves the environment is found, and an environment that resets itself when its episode ends.
"""

import functools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import gymnasium

from worldmodel_v.envs.source import layers


@dataclass
class Call:
    """One call of `step` or `reset`."""

    name: str
    of_layer: bool
    """Whether it is of a layer of the environment, and not of one that a layer holds."""

    in_step: bool
    """Of a reset: whether a step of an environment that a layer holds runs meanwhile."""

    given: Any = None
    """What it returned; None while it runs, or if it raised."""


@contextmanager
def calls_noted(env: gymnasium.Env) -> Iterator[list[Call]]:
    """Yields a list of the calls of `step` and `reset` within the block, on any layer of the environment and on what a layer
    holds; on none of a copy.

    The classes note them, since a method of the object's own would be in its copies too.
    """
    calls: list[Call] = []
    parts, own = list(_held(env)), [*map(id, layers(env))]
    with ExitStack() as noted:
        for part in parts:
            _CALLS[id(part)] = calls, id(part) in own
            noted.callback(_CALLS.pop, id(part), None)
        for cls in {type(part) for part in parts}:
            noted.enter_context(_noting(cls))
        yield calls


def _held(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """The layers of an environment. A layer may hold another environment as `env` or `_env` without being a
    `gymnasium.Wrapper`; its layers count too."""
    met: set[int] = set()
    waiting: list[Any] = [env]
    while waiting:
        for layer in layers(waiting.pop()):
            if id(layer) not in met:
                met.add(id(layer))
                yield layer
                waiting += [each for name in ("env", "_env") if isinstance(each := vars(layer).get(name), gymnasium.Env)]


_CALLS: dict[int, tuple[list[Call], bool]] = {}
"""Where the calls of an object are noted, by its id, and whether it is a layer."""

_NOTING: dict[type, tuple[int, ExitStack]] = {}
"""How many blocks, of several threads, note the calls of a class, and what ends it."""

_LOCK = threading.Lock()


@contextmanager
def _noting(cls: type) -> Iterator[None]:
    """Within the block, a class notes the calls of those of its objects that are in _CALLS."""
    with _LOCK:
        blocks, end = _NOTING.get(cls, (0, ExitStack()))
        _NOTING[cls] = blocks + 1, end
        for name in () if blocks else ("step", "reset"):
            with suppress(TypeError):  # native code lets nobody replace its methods
                end.enter_context(_replaced(cls, name))
    try:
        yield
    finally:
        with _LOCK:
            blocks, end = _NOTING.pop(cls)
            if blocks > 1:
                _NOTING[cls] = blocks - 1, end
            else:
                end.close()


@contextmanager
def _replaced(cls: type, name: str) -> Iterator[None]:
    """Within the block, a class has a method that notes its calls."""
    own, method = vars(cls).get(name), getattr(cls, name)

    @functools.wraps(method)
    def noted(self: gymnasium.Env, *arguments: Any, **options: Any) -> Any:
        if (known := _CALLS.get(id(self))) is None:
            return method(self, *arguments, **options)
        calls, of_layer = known
        in_step = name == "reset" and any(each.name == "step" and not each.of_layer and each.given is None for each in calls)
        call = Call(name, of_layer, in_step)
        calls.append(call)
        call.given = method(self, *arguments, **options)
        return call.given

    setattr(cls, name, noted)
    try:
        yield
    finally:
        if own is None:
            delattr(cls, name)
        else:
            setattr(cls, name, own)
