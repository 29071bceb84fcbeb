"""Who steps and resets an environment meanwhile: the calls of `step` and `reset` on any of its layers, with what they gave.

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
    given: Any = None
    """What it returned; None while it runs, or if it raised."""


@contextmanager
def calls_noted(env: gymnasium.Env) -> Iterator[list[Call]]:
    """Yields a list of the calls of `step` and `reset` within the block, on any layer of the environment; on none of a copy.

    The classes note them, since a method of the object's own would be in its copies too.
    """
    calls: list[Call] = []
    parts = list(_held(env))
    with ExitStack() as noted:
        for part in parts:
            _CALLS[id(part)] = calls
            noted.callback(_CALLS.pop, id(part), None)
        for cls in {type(part) for part in parts}:
            noted.enter_context(_noting(cls))
        yield calls


def _held(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """The layers of an environment, and those of the one that the innermost holds as `env` or `_env`, as one does that is a
    wrapper without Gymnasium's class; and so on."""
    met: set[int] = set()
    waiting: list[Any] = [env]
    while waiting:
        for layer in layers(waiting.pop()):
            if id(layer) not in met:
                met.add(id(layer))
                yield layer
                waiting += [each for name in ("env", "_env") if isinstance(each := vars(layer).get(name), gymnasium.Env)]


_CALLS: dict[int, list[Call]] = {}
"""Where the calls of an object are noted, by its id."""

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
        call = Call(name)
        if (calls := _CALLS.get(id(self))) is not None:
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
