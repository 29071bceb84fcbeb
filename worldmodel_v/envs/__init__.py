"""Environments as the pipeline sees them: seeded episodes of uint8 RGB frames, with ground truth if there is one.

Importing this package registers `worldmodel_v/CarRacing-v3` (Gymnasium's CarRacing-v3, drawn faster with the same bytes) and
the toy environment `worldmodel_v/Stamp-v0`.
"""

import gymnasium

from worldmodel_v.envs.frames import FramePreprocessor, frame_preprocessor
from worldmodel_v.envs.image_env import ImageEnv, require_frame
from worldmodel_v.envs.making import import_env, make_image_env

STAMP_ENV_ID = "worldmodel_v/Stamp-v0"
FAST_CAR_RACING_ENV_ID = "worldmodel_v/CarRacing-v3"

if STAMP_ENV_ID not in gymnasium.registry:
    gymnasium.register(STAMP_ENV_ID, entry_point="worldmodel_v.envs.stamp:StampEnv")

if FAST_CAR_RACING_ENV_ID not in gymnasium.registry:
    gymnasium.register(
        FAST_CAR_RACING_ENV_ID,
        entry_point="worldmodel_v.envs.fast_car_racing:FastCarRacing",
        vector_entry_point="worldmodel_v.envs.fast_car_racing.vector:FastCarRacingVector",
        max_episode_steps=1000,
        reward_threshold=900,
    )

__all__ = [
    "FAST_CAR_RACING_ENV_ID",
    "STAMP_ENV_ID",
    "FramePreprocessor",
    "ImageEnv",
    "frame_preprocessor",
    "import_env",
    "make_image_env",
    "require_frame",
]
