"""worldmodel_v: the V stage of a World Model, as a data pipeline: collect, train, encode.

The public names below are loaded when they are first used, so that importing this package loads neither torch nor ray.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "CollectConfig": "collect",
    "EpisodeSource": "sources",
    "Recorder": "sources",
    "TrainConfig": "train",
    "EncodeConfig": "encode",
    "Encoder": "encode",
    "LatentSequences": "data",
    "LatentStream": "data",
    "FrameStream": "data",
    "Dataset": "storage",
    "open_dataset": "storage",
    "verify": "storage",
    "Episode": "records",
    "load_vae": "autoencoders.gaussian",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
