"""Environments as the pipeline sees them: seeded episodes of uint8 RGB frames, with ground truth where there is one.

Importing this package registers the toy environment `worldmodel_v/Stamp-v0`.
"""

import gymnasium

from worldmodel_v.envs.frames import FramePreprocessor
from worldmodel_v.envs.image_env import ImageEnv, make_image_env

STAMP_ENV_ID = "worldmodel_v/Stamp-v0"

if STAMP_ENV_ID not in gymnasium.registry:
    gymnasium.register(STAMP_ENV_ID, entry_point="worldmodel_v.envs.stamp:StampEnv")

__all__ = ["STAMP_ENV_ID", "FramePreprocessor", "ImageEnv", "make_image_env"]
