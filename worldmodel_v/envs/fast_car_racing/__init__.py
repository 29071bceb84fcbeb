"""`worldmodel_v/CarRacing-v3`: Gymnasium's CarRacing, the same to the byte, with a compiled drawing of the observation."""

from worldmodel_v.envs.fast_car_racing.env import FastCarRacing, warm_up

__all__ = ["FastCarRacing", "warm_up"]
