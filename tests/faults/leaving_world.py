"""An environment whose episodes go wrong in ways that no ordinary error takes."""

import asyncio
import os
from collections.abc import Callable
from typing import Any, NoReturn

import gymnasium
import numpy as np

from worldmodel_v.envs.stamp import StampEnv

BAD_STEP = 2


class PanicError(BaseException):
    """As native code raises it."""


class Wordless(ValueError):
    """Says nothing, and asks Python to exit instead."""

    def __str__(self) -> str:
        raise SystemExit(0)


class Mute(ValueError):
    """What it says is no text."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


def _raising(error: BaseException) -> Callable[[], NoReturn]:
    def fault() -> NoReturn:
        raise error

    return fault


FAULTS: dict[str, Callable[[], object]] = {
    "exit": _raising(SystemExit(0)),
    "generator": _raising(GeneratorExit()),
    "cancelled": _raising(asyncio.CancelledError()),
    "panic": _raising(PanicError("called unwrap on a None")),
    "megabytes": _raising(ValueError("x" * (5 << 20))),
    "wordless": _raising(Wordless()),
    "mute": _raising(Mute()),
    "interrupt": _raising(KeyboardInterrupt()),
    "leave": lambda: os._exit(0),
    "abort": os.abort,
}


class LeavingWorld(StampEnv):
    """The toy world; `faults` says of an episode's seed in which method it has which fault."""

    def __init__(self, faults: dict[str, tuple[str, str]]) -> None:
        super().__init__(length=5, size=8)
        self._faults, self._bad = faults, ("", "")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._bad = self._faults.get(str(seed), ("", ""))
        self._go_wrong_in("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.stamps[0] == BAD_STEP:
            self._go_wrong_in("step")
        return super().step(action)

    def close(self) -> None:
        self._go_wrong_in("close")

    def _go_wrong_in(self, method: str) -> None:
        place, fault = self._bad
        if place == method:
            FAULTS[fault]()


if "tests/Breakaway-v0" not in gymnasium.registry:
    gymnasium.register("tests/Breakaway-v0", entry_point="tests.faults.leaving_world:LeavingWorld")
