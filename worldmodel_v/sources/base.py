"""The interface of a source: what collecting needs from it."""

import random
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from numpy.random import get_bit_generator, set_bit_generator  # type: ignore[attr-defined]  # they have no stubs

from worldmodel_v.process import process_kept
from worldmodel_v.records import Episode
from worldmodel_v.spec import RolloutSpec


class Source(Protocol):
    """Episodes by number. It is sent to workers, so it must be picklable."""

    @property
    def spec(self) -> RolloutSpec:
        """What determines every episode."""

    def check(self) -> None:
        """Raise EnvironmentNotUsable if this machine would make other episodes than `spec` says."""

    def episode(self, episode_id: int) -> Episode:
        """Episode `episode_id`: a function of `spec` and the number. Raises EpisodeFailed, with number and seed."""

    def beginning(self, episode_id: int, num_steps: int) -> Episode:
        """The episode, cut after `num_steps` actions if the source can cut it."""

    @property
    def repeats(self) -> bool:
        """Whether an episode is known to be the same when it is played twice."""


def episode_seeds(root_seed: int, episode_id: int) -> tuple[int, np.random.Generator]:
    """The environment's seed (32 bits) and the policy's generator of episode `episode_id`."""
    sequence = np.random.SeedSequence(root_seed, spawn_key=(episode_id,))
    return int(sequence.generate_state(1)[0]), np.random.default_rng(sequence.spawn(1)[0])


@contextmanager
def episode_apart(root_seed: int, episode_id: int) -> Iterator[None]:
    """For the user's code of an episode: `seeded_globally` seeds the block, and afterwards the process is as before."""
    with process_kept(), seeded_globally(root_seed, episode_id):
        yield


@contextmanager
def seeded_globally(root_seed: int, episode_id: int) -> Iterator[None]:
    """Within the block, the global generators of Python, NumPy, PyTorch and numba (if they are loaded) are seeded for episode
    `episode_id`, and so is what Gymnasium makes without a seed; afterwards they are as before.

    For environments and policies that use them instead of the seed that they are given.
    """
    python, numpy, torch = random.getstate(), get_bit_generator(), sys.modules.get("torch")
    seeds = np.random.SeedSequence(root_seed, spawn_key=(episode_id, 1)).generate_state(3)
    random.seed(int(seeds[0]))
    set_bit_generator(np.random.MT19937(0))  # an episode before may have set another kind
    np.random.seed(seeds[1])
    try:
        with torch.random.fork_rng(devices=[]) if torch else nullcontext(), _compiled_seeded(seeds), _unseeded_from(seeds):
            if torch:
                torch.default_generator.manual_seed(int(seeds[2]))
            yield
    finally:
        random.setstate(python)
        set_bit_generator(numpy)


@contextmanager
def _compiled_seeded(seeds: np.ndarray) -> Iterator[None]:
    """Within the block, the generators that `random` and `numpy.random` use in functions that numba has compiled are seeded,
    with other seeds than Python's and NumPy's own; those of this thread."""
    numba: Any = sys.modules.get("numba._helperlib")
    states = [numba.rnd_get_py_state_ptr(), numba.rnd_get_np_state_ptr()] if numba else []
    before = [numba.rnd_get_state(state) for state in states] if numba else []
    for state, seed in zip(states, seeds, strict=False):
        numba.rnd_seed(state, int(seed) ^ 0xFFFFFFFF)
    try:
        yield
    finally:
        for state, value in zip(states, before, strict=True):
            numba.rnd_set_state(state, value)


_OF_THREAD = threading.local()
"""`sequence`: what seeds the generators that Gymnasium makes without a seed, in an episode of this thread; `spaces`: those that
have got one."""

_GYMNASIUMS = seeding.np_random
_GENERATOR: Any = gymnasium.Space.np_random
"""Of a space, which makes one when it first draws."""

_LOCK = threading.Lock()
_blocks = 0
"""How many episodes, of several threads, are in progress."""


@contextmanager
def _unseeded_from(seeds: np.ndarray) -> Iterator[None]:
    """Within the block, Gymnasium seeds from `seeds` what it makes without a seed: the generator of an environment that draws
    before its first reset, as CarRacing its colours, and of a space that nobody has seeded. Afterwards such a space has none
    again: one that belongs to a class would go on from episode to episode."""
    global _blocks
    before = getattr(_OF_THREAD, "sequence", None), getattr(_OF_THREAD, "spaces", [])
    _OF_THREAD.sequence, _OF_THREAD.spaces = np.random.SeedSequence(seeds.tolist()), []
    with _LOCK:
        _blocks += 1
        seeding.np_random = _np_random
        gymnasium.Space.np_random = property(_np_random_of)
    try:
        yield
    finally:
        for space in filter(None, (reference() for reference in _OF_THREAD.spaces)):
            space._np_random = None
        _OF_THREAD.sequence, _OF_THREAD.spaces = before
        with _LOCK:
            _blocks -= 1
            if not _blocks:
                seeding.np_random = _GYMNASIUMS
                gymnasium.Space.np_random = _GENERATOR


def _np_random(seed: int | None = None) -> tuple[np.random.Generator, int]:
    """In the place of `seeding.np_random` while episodes are in progress."""
    sequence = getattr(_OF_THREAD, "sequence", None)
    drawn = int(sequence.spawn(1)[0].generate_state(1)[0]) if seed is None and sequence is not None else seed
    return _GYMNASIUMS(drawn)


def _np_random_of(space: gymnasium.Space) -> np.random.Generator:
    """In the place of `Space.np_random` while episodes are in progress."""
    if space._np_random is None:
        getattr(_OF_THREAD, "spaces", []).append(weakref.ref(space))
    return _GENERATOR.fget(space)
