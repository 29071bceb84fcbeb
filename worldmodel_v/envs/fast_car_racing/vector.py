"""`gymnasium.make_vec("worldmodel_v/CarRacing-v3", num_envs=n)`: several of it in one process.

It is Gymnasium's `SyncVectorEnv` over environments without the wrappers that check each step of each, so seeds, options,
`reset_mask`, infos and the autoreset modes are Gymnasium's. Physics are Box2D's, which steps one world at a time; so the gain
over `vectorization_mode="sync"` is only that of the wrappers. Rejected: all physics before all drawing, which was no faster.
"""

from typing import Any

from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from worldmodel_v.envs.fast_car_racing.env import FastCarRacing


class FastCarRacingVector(SyncVectorEnv):
    """n times `FastCarRacing`: uint8 (n, 96, 96, 3), the same to the byte as n of them one by one."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int = 1000,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        **env_kwargs: Any,
    ) -> None:
        """`copy=False` returns the same array of observations each time; `env_kwargs` are those of CarRacing."""

        def make() -> TimeLimit:
            return TimeLimit(FastCarRacing(**env_kwargs), max_episode_steps)

        super().__init__([make] * num_envs, copy=copy, autoreset_mode=autoreset_mode)
