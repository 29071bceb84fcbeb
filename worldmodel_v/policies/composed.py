"""Policies made of others: `random-start` and `mixture`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from worldmodel_v.envs.car_racing import is_car_racing, move_car_to_tile
from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.policies.acting import acts_on

if TYPE_CHECKING:
    from worldmodel_v.policies import Policy


@dataclass(frozen=True)
class InnerPolicy:
    """A policy inside another."""

    weight: float
    text: str
    """The policy as it was written."""

    policy: "Policy"


class RandomStartPolicy:
    """`random-start(policy)`: puts the car on a random tile of the track, facing along it, and lets `policy` drive.

    The policy that is recorded with the episode names the tile, as in random-start(driver, tile=137), and starts there. So
    this policy, with the recorded seed and actions, replays the episode.
    """

    def __init__(self, env: gymnasium.Env, inner: Sequence[InnerPolicy] = (), *, tile: float | None = None) -> None:
        if len(inner) != 1:
            raise PolicyNotUsable(f"policy random-start drives with one policy, as in random-start(driver); got {len(inner)}")
        if not is_car_racing(env):
            raise PolicyNotUsable("policy random-start needs CarRacing, whose track it starts on")
        self._env, self._policy, self._text, self._tile = env, inner[0].policy, inner[0].text, tile

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        num_tiles = len(self._env.unwrapped.track)
        drawn = int(rng.integers(num_tiles))
        tile = drawn if self._tile is None else int(self._tile) % num_tiles
        frame = move_car_to_tile(self._env, tile)
        moved = self._policy.reset(rng)
        self.acts_on = acts_on(self._policy)
        self.chosen = f"random-start({getattr(self._policy, 'chosen', self._text)}, tile={tile})"
        return frame if moved is None else moved

    def act(self, seen: Any) -> Any:
        return self._policy.act(seen)


class MixturePolicy:
    """`mixture(4*a, b)`: one of the policies drives each episode, drawn by weight from the episode's own seed."""

    def __init__(self, env: gymnasium.Env, inner: Sequence[InnerPolicy] = ()) -> None:
        if not inner or min(member.weight for member in inner) <= 0:
            raise PolicyNotUsable("policy mixture needs policies with positive weights, as in mixture(4*driver, 1*random)")
        self._inner = inner
        self._probabilities = np.array([member.weight for member in inner]) / sum(member.weight for member in inner)

    def reset(self, rng: np.random.Generator) -> np.ndarray | None:
        member = self._inner[rng.choice(len(self._inner), p=self._probabilities)]
        self._policy = member.policy
        frame = self._policy.reset(rng)
        self.acts_on = acts_on(self._policy)
        self.chosen = getattr(member.policy, "chosen", member.text)
        return frame

    def act(self, seen: Any) -> Any:
        return self._policy.act(seen)
